// A reply as it is written.
import { ask, lostConnection, Refusal } from "./api.js";

/** Yields {id, version, text, done, canned, failed, token} as the reply grows. Raises Refusal or AbortError. */
export async function* streamReply(messages, { user, conversation, share, signal }) {
  const answer = await ask("/v1/chat/completions", {
    method: "POST",
    signal,
    body: { model: "champion", messages, stream: true, store: share, user, metadata: { conversation_id: conversation, apology: "true" } },
  });
  const part = { id: "", version: "", text: "", done: false, canned: false, failed: false, token: "" };
  for await (const data of serverSentEvents(answer.body)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(chunk.error.message, { status: 500, code: chunk.error.code });
    const choice = chunk.choices?.[0];
    part.id = chunk.id ?? part.id;
    part.version = chunk.model_version ?? part.version;
    part.canned ||= Boolean(chunk.canned); // a safety reply, or an apology
    part.failed ||= Boolean(chunk.failed);
    part.token = chunk.feedback_token ?? part.token;
    part.text += choice?.delta?.content ?? "";
    if (choice?.finish_reason) part.done = true;
    else yield { ...part, done: false };
  }
  if (!part.done) throw new Refusal("The reply broke off. Please try again.");
  yield part; // last, for what the server says of it may come with any chunk
}

async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : lostConnection();
    });
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: ")) yield event.slice(6);
  }
}
