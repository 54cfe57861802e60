// Thumbs under a reply. A thumb counts on the click; a reason or comment after it revises the feedback.
import { sendFeedback } from "./api.js";
import { element } from "./element.js";

const REASONS = {
  off_topic: "Off topic",
  nonsensical: "Makes no sense",
  rude: "Rude",
  spam: "Spam",
  other: "Something else",
};

/** The row of thumbs for one finished reply. `say(sentence)` tells the person how it went. */
export function thumbs(completionId, user, say) {
  const row = element("div", { className: "thumbs", role: "group", ariaLabel: "Rate this reply" });
  const state = { rating: null, reasons: new Set(), comment: "" };
  const up = thumb("up", "Good reply", 1);
  const down = thumb("down", "Bad reply", -1);
  const picker = reasonPicker(state, send);
  row.append(up, down);

  function thumb(kind, name, rating) {
    const button = element("button", { type: "button", className: `thumb ${kind}`, title: name, ariaLabel: name });
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => press(state.rating === rating ? null : rating));
    return button;
  }

  async function press(rating) {
    const before = state.rating;
    state.rating = rating;
    show();
    if (!(await send())) {
      state.rating = before;
      show();
    }
  }

  function show() {
    up.setAttribute("aria-pressed", String(state.rating === 1));
    down.setAttribute("aria-pressed", String(state.rating === -1));
    if (state.rating === -1) row.parentElement.after(picker);
    else picker.remove();
  }

  async function send() {
    const reasons = state.rating === -1 ? [...state.reasons] : [];
    const comment = state.rating === -1 ? state.comment : "";
    try {
      await sendFeedback({ completion_id: completionId, rating: state.rating, reasons, comment, user });
      say(state.rating === null ? "Taken back." : "Thank you, that counts.");
      return true;
    } catch (error) {
      say(error.message);
      return false;
    }
  }
  return row;
}

function reasonPicker(state, send) {
  const box = element("div", { className: "reasons", role: "group", ariaLabel: "What was wrong with it?" });
  box.append(element("p", { textContent: "What was wrong with it?" }));
  const choices = element("div", { className: "choices" });
  for (const [reason, words] of Object.entries(REASONS)) {
    const button = element("button", { type: "button", className: "choice", textContent: words });
    button.dataset.reason = reason;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!state.reasons.delete(reason)) state.reasons.add(reason);
      button.setAttribute("aria-pressed", String(state.reasons.has(reason)));
      send();
    });
    choices.append(button);
  }
  const form = element("form", { className: "comment" });
  const input = element("input", { type: "text", maxLength: 2000, placeholder: "Your words (optional)", ariaLabel: "Comment" });
  form.append(input, element("button", { type: "submit", className: "quiet", textContent: "Add" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    state.comment = input.value;
    send();
  });
  box.append(choices, form);
  return box;
}
