// The blind comparison: two versions answer, a person chooses, then they learn which was which.
import { ask, models } from "./api.js";
import { Compared } from "./compared.js";
import { composer } from "./composer.js";
import { consent } from "./consent.js";
import { openData } from "./data.js";
import { button, element, wordsOf } from "./element.js";
import { say, speak } from "./notice.js";
import { PairOfReplies } from "./pair.js";
import { person } from "./person.js";

const byId = (id) => document.getElementById(id);
const [main, log, empty, section] = ["main", "log", "empty", "pair"].map(byId);
let talk = new Compared();
let running = null;
let settle = () => {}; // what becomes of the pair on the page when the next message is sent

async function send(words) {
  if (!(await consent())) {
    composer.giveBack(words);
    say("Please agree first; nothing was sent.");
    return;
  }
  settle();
  settle = () => {};
  talk.hear(words);
  showSharing();
  log.append(turn("person", "You: ", words));
  empty.hidden = true;
  await compare();
}

async function compare() {
  const here = (running = new AbortController());
  const pair = new PairOfReplies(section, (choice) => choose(choice));
  let answer = null, chosen = false;
  say("");
  speak("Two versions write a reply.");
  composer.setBusy(true);
  main.scrollTop = main.scrollHeight;
  try {
    const body = { messages: talk.messages, user: person.name, store: talk.share };
    answer = await (await ask("/v1/compare", { method: "POST", body, signal: here.signal })).json();
    person.setProof(answer.id);
    if (running !== here) return;
    talk.answered(answer);
    pair.show(answer.replies);
    speak(answer.replies.map(({ slot, content }) => `Reply ${slot.toUpperCase()}: ${content}`).join(" "));
    settle = () => goOn("neither", answer.replies);
  } catch (error) {
    if (running === here) failed(error);
  } finally {
    if (running === here) {
      running = null;
      composer.setBusy(false);
    }
  }

  async function choose(choice) {
    if (chosen) return;
    chosen = true;
    try {
      const body = { choice, user: person.name };
      const told = await (await ask(`/v1/compare/${encodeURIComponent(answer.id)}`, { method: "POST", body })).json();
      pair.reveal(choice, told.versions);
      settle = () => goOn(choice, answer.replies);
    } catch (error) {
      chosen = false; // they can press again
      say(error.message);
    }
  }
}

/** The conversation goes on with the reply that was liked; with none of them where neither was. */
function goOn(choice, replies) {
  section.hidden = true;
  if (choice === "neither") return;
  const { content } = replies.find((reply) => reply.slot === (choice === "both" ? "a" : choice));
  talk.messages.push({ role: "assistant", content });
  log.append(turn("bot", "Reply: ", content.trim()));
}

function failed(error) {
  section.hidden = true;
  if (error.name === "AbortError") retry("You stopped this. Nothing was kept.", "stopped");
  else if (error.canRetry) retry(error.message, "failed");
  else if (error.status) {
    log.lastElementChild.remove();
    composer.giveBack(talk.messages.pop().content); // sent again as it is, it would be refused again
    empty.hidden = !talk.isEmpty;
    say(error.message);
    if (error.code === "one_version") explain();
  } else throw error;
}

function retry(sentence, className) {
  const box = element("li", { className: "turn" }, element("div", { className: `ending ${className}` },
    element("p", { textContent: sentence }), button("Try again", again, "quiet")));
  log.append(box);
  speak(sentence);
  settle = () => box.remove();
  function again() {
    box.remove();
    settle = () => {};
    composer.focus();
    compare();
  }
}

function begin() {
  running?.abort();
  running = null;
  talk = new Compared();
  settle = () => {};
  log.replaceChildren();
  section.hidden = true;
  empty.hidden = false;
  composer.setBusy(false);
  say("");
  speak("A new conversation.");
  showSharing();
  composer.focus();
}

function turn(who, said, words) {
  return element("li", { className: `turn ${who}` }, element("span", { className: "unseen", textContent: said }), wordsOf(words));
}

function explain() {
  byId("hello").textContent = "Nothing to compare just now";
  byId("explained").textContent = "Only one version is in memory. Come back while a new one is tried beside it.";
}

function showSharing() {
  const share = talk.isEmpty ? person.share : talk.share;
  byId("sharing").textContent = share ? "on" : "off";
  byId("kept").textContent = share ? "your words are kept with your choice." : "only your choice is kept.";
}

composer.onSend = () => {
  if (running) return;
  send(composer.take());
};
byId("new").addEventListener("click", begin);
composer.onStop = () => running?.abort();
for (const opener of ["open-data", "change-sharing"]) {
  byId(opener).addEventListener("click", () => openData({ talk: () => talk, begin, onChange: showSharing }));
}
models().then(({ versions }) => { if (new Set(versions).size < 2) explain(); }, (error) => say(error.message));
showSharing();
if (!person.agreed) consent().then(() => { showSharing(); composer.focus(); });
