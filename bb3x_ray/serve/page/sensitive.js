// Under a safety reply, instead of thumbs: was the topic really sensitive?
import { element } from "./element.js";
import { say } from "./notice.js";
import { Rating } from "./rating.js";

export function sensitive(part) {
  const rating = new Rating(part);
  const buttons = [[true, "Yes, it was"], [false, "No, a false alarm"]].map(([value, words]) => {
    const made = element("button", { type: "button", className: "choice", textContent: words, ariaPressed: "false" });
    made.addEventListener("click", () => press(made.ariaPressed === "true" ? null : value));
    return { made, value };
  });

  async function press(value) {
    show(value);
    try {
      await rating.say(() => ({ sensitive: value }));
      say(value === null ? "Taken back." : "Thank you, that counts.");
    } catch (error) {
      show(rating.said.sensitive);
      say(error.message);
    }
  }

  function show(value) {
    for (const one of buttons) one.made.ariaPressed = String(one.value === value);
  }
  return element("div", { className: "sensitive", role: "group", ariaLabel: "Was this topic sensitive?" },
    element("span", { textContent: "Was this topic sensitive?" }), ...buttons.map((one) => one.made));
}
