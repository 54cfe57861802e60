// Talks to the server: a streamed reply, and feedback on it.

/** Yields {id, version, text, done} as the reply grows. Throws an Error with a sentence for the person. */
export async function* streamReply(messages, { user, conversation, share, signal }) {
  const answer = await post("/v1/chat/completions", {
    model: "champion", messages, stream: true, store: share, user, metadata: { conversation_id: conversation },
  }, signal);
  let text = "";
  for await (const data of serverSentEvents(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    const choice = chunk.choices[0];
    if (!choice) continue;
    text += choice.delta.content ?? "";
    yield { id: chunk.id, version: chunk.model_version, text, done: choice.finish_reason !== null };
  }
  throw new Error("The reply broke off; please try again.");
}

export async function sendFeedback(feedback) {
  const answer = await post("/v1/feedback", feedback);
  return answer.json();
}

export async function currentVersion() {
  const answer = await fetch("/v1/models");
  return answer.ok ? (await answer.json()).champion : "";
}

async function post(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({ error: null }));
    throw new Error(error?.message ?? `The server answered ${answer.status}; please try again.`);
  }
  return answer;
}

async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) yield event.replace(/^data: /, "");
  }
}
