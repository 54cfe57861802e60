// One reply in the list: as it is written, and how it ended.
import { button, element, icon, iconButton, wordsOf } from "./element.js";
import { say, speak } from "./notice.js";
import { sensitive } from "./sensitive.js";
import { thumbs } from "./thumbs.js";

export class Reply {
  constructor() {
    this.words = wordsOf("");
    this.item = element("li", { className: "turn bot writing" },
      element("span", { className: "unseen", textContent: "Reply: " }), this.words);
  }

  write(text) {
    this.words.textContent = text.trimStart();
  }

  /** part: as `streamReply` yields it; `again` asks for another reply. */
  finish(part, { keepsWords, again }) {
    this.write(part.text);
    this.#end();
    speak(`Reply: ${part.text}`);
    const line = element("div", { className: "line" });
    if (part.failed) line.append(againButton(again)); // an apology: nothing to rate
    else if (part.canned) line.append(element("span", { className: "tag" }, icon("shield"), "safety reply"));
    else line.append(thumbs(part, this.item, keepsWords), ...copier(part.text), againButton(again));
    if (part.version && !part.canned) line.append(element("span", { className: "tag", textContent: part.version, title: "The version that wrote this" }));
    this.item.append(line);
    if (part.canned && !part.failed) this.item.append(sensitive(part));
  }

  stopped(again) {
    this.#end();
    this.#say("You stopped this reply. It is not part of the conversation.", "stopped", button("Try again", again, "quiet"));
  }

  /** The reason in words, and a button; where the server said how long to wait, it works after that. */
  failed(refusal, again) {
    this.#end();
    this.words.remove();
    const retry = button("Try again", again, "quiet");
    this.#say(refusal.message, "failed", retry);
    if (refusal.retryAfter) countDown(retry, refusal.retryAfter);
  }

  /** Another reply can be asked for under the last one only. */
  settle() {
    for (const old of this.item.querySelectorAll(".again")) old.remove();
    if (this.item.querySelector(".failed")) this.item.remove();
    else this.item.querySelector(".stopped button")?.remove();
  }

  #end() {
    this.item.classList.remove("writing");
  }

  #say(sentence, className, retry) {
    speak(sentence);
    this.item.append(element("div", { className: `ending ${className}` }, element("p", { textContent: sentence }), retry));
  }
}

function againButton(again) {
  const made = iconButton("retry", "Another reply", again);
  made.classList.add("again");
  return made;
}

/** [a button]; [] where the browser lets no page copy, as over plain http. */
function copier(text) {
  if (!navigator.clipboard) return [];
  return [iconButton("copy", "Copy", () =>
    navigator.clipboard.writeText(text.trim()).then(
      () => say("Copied."),
      () => say("The browser does not let this page copy."),
    ))];
}

function countDown(retry, seconds) {
  retry.disabled = seconds > 0;
  retry.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
  if (seconds > 0) setTimeout(countDown, 1000, retry, seconds - 1);
}
