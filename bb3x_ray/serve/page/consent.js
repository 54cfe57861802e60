// What a person is told and asked before they talk for the first time. Sharing is a choice of its own.
import { makeDialog, openDialog } from "./dialog.js";
import { button, element } from "./element.js";
import { person } from "./person.js";

/** Returns whether they agreed, now or before. Closing it is no agreement: they are asked again when they send. */
export async function consent() {
  if (person.agreed) return true;
  const share = element("input", { type: "checkbox", id: "consent-share" });
  const dialog = makeDialog("Before you talk", "consent",
    element("p", { textContent: "You talk to a language model that people teach. It makes things up, and it can be wrong or rude. Please tell it nothing secret." }),
    element("ul", {},
      element("li", { textContent: "A random name in this browser tells you from others. There is no account." }),
      element("li", { textContent: "Your thumbs are kept and teach the next version." }),
      element("li", { textContent: "Your words are kept only if you share them, below." })),
    element("label", { className: "share-choice" }, share,
      element("span", {},
        element("strong", { textContent: "Share my conversations" }),
        element("small", { textContent: "Optional. What you and the bot say is kept and may train the next versions. You can change this, and delete what you said, under “Your data”." }))),
    element("div", { className: "actions" },
      button("Agree and start", () => dialog.close("agreed"), "primary")));
  const answer = await openDialog(dialog);
  dialog.remove();
  if (answer === "agreed") person.agree(share.checked);
  return person.agreed;
}
