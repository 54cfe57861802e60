// Thumbs under a reply. A thumb counts on the click; what is said after it refines it.
import { element, icon } from "./element.js";
import { say } from "./notice.js";
import { Rating } from "./rating.js";
import { reasons } from "./reasons.js";

/** The row of thumbs for one finished reply; a thumb down opens the question under `item`. */
export function thumbs(part, item, keepsWords) {
  const rating = new Rating(part);
  const up = thumb("Good reply", "up", 1), down = thumb("Bad reply", "down", -1);
  const question = reasons(rating, keepsWords, () => down.focus());

  function thumb(name, kind, value) {
    const button = element("button", {
      type: "button", className: `tool thumb ${kind}`, title: name, ariaLabel: name, ariaPressed: "false",
    }, icon("thumb"));
    button.addEventListener("click", () => press(button.ariaPressed === "true" ? null : value));
    return button;
  }

  async function press(value) {
    show(value); // at once; taken back below where it was not kept
    try {
      await rating.say(() => ({ rating: value }));
      say(value === null ? "Taken back." : "Thank you, that counts.");
    } catch (error) {
      show(rating.said.rating);
      say(error.message);
    }
  }

  function show(value) {
    up.ariaPressed = String(value === 1);
    down.ariaPressed = String(value === -1);
    if (value !== -1) question.remove();
    else if (!question.isConnected) {
      item.append(question);
      question.scrollIntoView({ block: "nearest" });
    }
  }
  return element("div", { className: "thumbs", role: "group", ariaLabel: "Rate this reply" }, up, down);
}
