// Thumbs under a reply. A thumb counts on the click; a reason, comment or correction after it revises it.
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
  const state = { rating: null, reasons: new Set(), comment: "", correction: "" };
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
    const { comment, correction } = state.rating === -1 ? state : { comment: "", correction: "" };
    try {
      await sendFeedback({ completion_id: completionId, rating: state.rating, reasons, comment, correction, user });
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
  const comment = element("input", { type: "text", maxLength: 2000, placeholder: "Your words (optional)", ariaLabel: "Comment" });
  const better = element("label", { className: "better", textContent: "What should it have said?" });
  const correction = element("textarea", { rows: 2, maxLength: 2000, placeholder: "A better reply (optional)" });
  better.append(correction);
  form.append(comment, better, element("button", { type: "submit", className: "quiet", textContent: "Add" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    state.comment = comment.value;
    state.correction = correction.value.trim();
    send();
  });
  box.append(choices, form);
  return box;
}
