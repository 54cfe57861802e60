// Under a safety reply, instead of thumbs: was the topic really sensitive?
import { element } from "./element.js";
import { say } from "./notice.js";
import { Rating } from "./rating.js";

/** Agreeing is a thumb up on the safety reply, disagreeing a thumb down. */
export function sensitive(part) {
  const rating = new Rating(part);
  const buttons = [[1, "Yes, it was"], [-1, "No, a false alarm"]].map(([value, words]) => {
    const made = element("button", { type: "button", className: "choice", textContent: words, ariaPressed: "false" });
    made.addEventListener("click", () => press(made.ariaPressed === "true" ? null : value));
    return { made, value };
  });

  async function press(value) {
    show(value);
    try {
      await rating.say(() => ({ rating: value }));
      say(value === null ? "Taken back." : "Thank you, that counts.");
    } catch (error) {
      show(rating.said.rating);
      say(error.message);
    }
  }

  function show(value) {
    for (const one of buttons) one.made.ariaPressed = String(one.value === value);
  }
  return element("div", { className: "sensitive", role: "group", ariaLabel: "Was this topic sensitive?" },
    element("span", { textContent: "Was this topic sensitive?" }), ...buttons.map((one) => one.made));
}
