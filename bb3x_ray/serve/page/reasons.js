// "What went wrong?" under a thumb down. The answer is feedback: the bot never hears it as talk.
import { button, element } from "./element.js";
import { say } from "./notice.js";

const REASONS = {
  off_topic: "Off topic or ignores me",
  nonsensical: "Makes no sense or is wrong",
  rude: "Rude or inappropriate",
  spam: "Looks like spam",
  other: "Something else",
};
const LONGEST = 2000;

/** keepsWords: whether the conversation is shared; else the server keeps reasons and no words. */
export function reasons(rating, keepsWords, onClose) {
  const box = element("section", { className: "reasons", ariaLabel: "What went wrong?" });
  const close = () => {
    box.remove();
    onClose();
  };
  const choices = element("div", { className: "choices", role: "group", ariaLabel: "Reasons" },
    ...Object.entries(REASONS).map(([reason, words]) => choice(rating, reason, words)));
  box.append(element("h2", { textContent: "What went wrong?" }), choices);
  box.append(keepsWords ? inWords(rating, close) : element("div", { className: "actions" },
    element("small", { textContent: "You do not share this conversation, so only the reasons are kept." }),
    button("Done", close, "quiet")));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  return box;
}

function choice(rating, reason, words) {
  const made = button(words, press, "choice");
  made.dataset.reason = reason;
  made.ariaPressed = "false";
  async function press() {
    const chosen = made.ariaPressed !== "true";
    made.ariaPressed = String(chosen);
    const others = (said) => said.reasons.filter((one) => one !== reason);
    try {
      await rating.say((said) => ({ reasons: chosen ? [...others(said), reason] : others(said) }));
      say("Thank you, that helps.");
    } catch (error) {
      made.ariaPressed = String(!chosen);
      say(error.message);
    }
  }
  return made;
}

function inWords(rating, close) {
  const comment = element("textarea", { rows: 1, maxLength: LONGEST, placeholder: "In your own words" });
  const correction = element("textarea", { rows: 2, maxLength: LONGEST, placeholder: "A better reply" });
  const form = element("form", { className: "in-words" },
    element("label", {}, "Tell us more (optional)", comment),
    element("label", {}, "What should it have said? (optional)", correction),
    element("div", { className: "actions" },
      element("small", { textContent: "This is feedback: the bot does not see it as a message." }),
      button("Close", close, "quiet"),
      element("button", { type: "submit", className: "primary", textContent: "Send" })));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await rating.say(() => ({ comment: comment.value.trim(), correction: correction.value.trim() }));
      say("Thank you, that helps.");
      close();
    } catch (error) {
      say(error.message);
    }
  });
  return form;
}
