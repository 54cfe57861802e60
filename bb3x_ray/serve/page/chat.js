// The chat page: what happens when a person sends, stops, tries again and begins anew.
import { models } from "./api.js";
import { composer } from "./composer.js";
import { consent } from "./consent.js";
import { Conversation } from "./conversation.js";
import { openData } from "./data.js";
import { element, wordsOf } from "./element.js";
import { say, speak } from "./notice.js";
import { person } from "./person.js";
import { Reply } from "./reply.js";
import { streamReply } from "./stream.js";

const byId = (id) => document.getElementById(id);
const [main, log, empty, version, sharing] = ["main", "log", "empty", "version", "sharing"].map(byId);
let talk = new Conversation();
let running = null; // AbortController of the reply that is being written
let last = null; // the Reply at the end of the list
let asked = null; // the list item of what the person said last

async function send(words) {
  if (!(await consent())) {
    composer.giveBack(words);
    say("Please agree first; nothing was sent.");
    return;
  }
  say("");
  talk.hear(words);
  asked = element("li", { className: "turn person" }, element("span", { className: "unseen", textContent: "You: " }), wordsOf(words));
  last?.settle();
  log.append(asked);
  empty.hidden = true;
  await answer();
}

/** Ask for a reply to what the conversation holds. */
async function answer() {
  const here = (running = new AbortController());
  const reply = (last = new Reply());
  log.append(reply.item);
  composer.setBusy(true);
  speak("Writing a reply.");
  scrollDown();
  try {
    for await (const part of streamReply(talk.messages, { user: person.name, conversation: talk.id, share: talk.share, signal: here.signal })) {
      if (running !== here) return;
      const follows = isAtEnd();
      if (part.done) finish(reply, part);
      else reply.write(part.text);
      if (follows) scrollDown();
    }
  } catch (error) {
    if (running === here) end(reply, error);
  } finally {
    if (running === here) {
      running = null;
      composer.setBusy(false);
      show();
    }
  }
}

function finish(reply, part) {
  talk.answered(part);
  person.setProof(part.id);
  version.textContent = part.version;
  reply.finish(part, { keepsWords: talk.share, again });
}

function end(reply, error) {
  if (error.name === "AbortError") reply.stopped(again);
  else if (error.canRetry) reply.failed(error, again);
  else if (error.status) {
    reply.item.remove();
    asked.remove();
    composer.giveBack(talk.unhear()); // sent again as it is, it would be refused again
    say(talk.messages.length >= 199 ? "This conversation is full. Please begin a new one." : error.message);
    empty.hidden = !talk.isEmpty;
  } else throw error;
  scrollDown();
}

function again() {
  if (running) return;
  say("");
  talk.unanswer();
  last.item.remove();
  composer.focus();
  answer();
}

function begin() {
  running?.abort();
  running = null;
  talk = new Conversation();
  last = asked = null;
  log.replaceChildren();
  empty.hidden = false;
  composer.setBusy(false);
  say("");
  speak("A new conversation.");
  show();
  composer.focus();
}

function isAtEnd() {
  return main.scrollHeight - main.scrollTop - main.clientHeight < 80;
}

function scrollDown() {
  main.scrollTop = main.scrollHeight;
}

function show() {
  sharing.textContent = talk.isEmpty ? (person.share ? "on" : "off") : talk.share ? "on" : "off";
}

composer.onSend = () => {
  send(composer.take());
  composer.focus();
};
composer.onStop = () => running?.abort();
byId("new").addEventListener("click", begin);
for (const opener of ["open-data", "change-sharing"]) {
  byId(opener).addEventListener("click", () => openData({ talk: () => talk, begin, onChange: show }));
}
for (const starter of empty.querySelectorAll("button")) {
  starter.addEventListener("click", () => {
    send(starter.textContent);
    composer.focus();
  });
}
models().then(({ champion }) => { version.textContent = champion; }, (error) => say(error.message));
show();
if (!person.agreed) consent().then(() => { show(); composer.focus(); });
