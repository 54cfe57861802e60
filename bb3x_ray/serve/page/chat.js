// The page: one conversation at a time, kept in memory only.
import { currentVersion, streamReply } from "./api.js";
import { element } from "./element.js";
import { thumbs } from "./feedback.js";

const byId = (id) => document.getElementById(id);
const [log, empty, form, text, send, share, notice, version] =
  ["log", "empty", "form", "text", "send", "share", "notice", "version"].map(byId);
const user = pseudonym();
let messages = [];
let conversation = randomId("c");
let running = null;

function randomId(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${prefix}-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** A random name for this browser: tells people apart, says nothing about them. */
function pseudonym() {
  const known = localStorage.getItem("bb3x-person");
  if (known) return known;
  const made = randomId("p");
  localStorage.setItem("bb3x-person", made);
  return made;
}

function say(sentence) {
  notice.textContent = sentence;
}

function addMessage(who, words) {
  const item = element("li", { className: who });
  const bubble = element("div", { className: "bubble", textContent: words });
  item.append(element("span", { className: "unseen", textContent: who === "person" ? "You: " : "Reply: " }), bubble);
  log.append(item);
  empty.hidden = true;
  item.scrollIntoView({ block: "end" });
  return { item, bubble };
}

async function reply(words) {
  const asked = [...messages, { role: "user", content: words }];
  const mine = addMessage("person", words);
  const { item, bubble } = addMessage("bot", "");
  item.classList.add("writing");
  log.setAttribute("aria-busy", "true"); // screen readers hear the whole reply once, not every piece
  running = new AbortController();
  const here = running;
  try {
    for await (const part of streamReply(asked, { user, conversation, share: share.checked, signal: here.signal })) {
      if (running !== here) return;
      bubble.textContent = part.text.trimStart();
      if (part.done) finish(item, part, asked);
      item.scrollIntoView({ block: "end" });
    }
  } catch (error) {
    if (running !== here) return; // a new conversation began meanwhile
    mine.item.remove();
    item.remove();
    empty.hidden = messages.length > 0;
    text.value = words; // nothing was kept: the person can send it again
    say(error.message);
  } finally {
    item.classList.remove("writing");
    if (running === here) {
      running = null;
      log.setAttribute("aria-busy", "false");
      show();
    }
  }
}

function finish(item, part, asked) {
  messages = [...asked, { role: "assistant", content: part.text }];
  const line = element("div", { className: "line" });
  line.append(element("span", { className: "tag", textContent: part.version, title: "the version that wrote this" }));
  line.append(thumbs(part.id, user, say));
  item.append(line);
  version.textContent = part.version;
}

function show() {
  send.disabled = running !== null;
  share.disabled = messages.length > 0 || running !== null; // one choice for the whole conversation
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 160)}px`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words || running) return;
  text.value = "";
  say("");
  const talking = reply(words);
  show();
  talking.then(() => text.focus());
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
text.addEventListener("input", show);
byId("new").addEventListener("click", () => {
  running?.abort();
  running = null;
  messages = [];
  conversation = randomId("c");
  log.replaceChildren();
  log.setAttribute("aria-busy", "false");
  empty.hidden = false;
  say("");
  show();
  text.focus();
});
currentVersion().then((name) => { version.textContent = name; });
show();
