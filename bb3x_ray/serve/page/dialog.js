// Dialogs: the browser keeps the focus inside and closes on Escape; we give the focus back.
import { button, element, icon } from "./element.js";

/** A dialog with a heading. `content`: elements. Closed by Escape, a click beside it, or its ×. */
export function makeDialog(title, className, ...content) {
  const heading = element("h2", { id: `${className}-title`, textContent: title, tabIndex: -1 });
  const close = button("", () => dialog.close(), "tool close");
  close.append(icon("close"));
  close.ariaLabel = "Close";
  const dialog = element("dialog", { className }, element("header", {}, heading, close), ...content);
  dialog.setAttribute("aria-labelledby", heading.id);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  return dialog;
}

/** Returns when it is closed, and the focus is back where it was. */
export function openDialog(dialog, first = dialog.querySelector("h2")) {
  const before = document.activeElement;
  dialog.returnValue = "";
  dialog.showModal();
  first.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      if (before?.isConnected && before !== document.body) before.focus();
      resolve(dialog.returnValue);
    }, { once: true });
  });
}

/** Asks once more before something that cannot be undone. Returns whether to do it. */
export async function confirmed(question, yes) {
  const dialog = makeDialog(question, "confirm",
    element("p", { textContent: "This cannot be undone." }),
    element("div", { className: "actions" },
      button("Cancel", () => dialog.close(), "quiet"),
      button(yes, () => dialog.close("yes"), "danger")));
  const answer = await openDialog(dialog);
  dialog.remove();
  return answer === "yes";
}
