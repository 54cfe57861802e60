// "Your data": sharing, what is remembered, what was said, and how to get rid of it.
import { ask } from "./api.js";
import { confirmed, makeDialog, openDialog } from "./dialog.js";
import { download } from "./download.js";
import { button, element } from "./element.js";
import { conversations } from "./conversations.js";
import { memories } from "./memories.js";
import { person } from "./person.js";

/** talk(): the conversation under way; begin() starts a new one; onChange() after sharing changed. */
export function openData({ talk, begin, onChange }) {
  const told = element("p", { className: "told", role: "status" });
  const tell = (sentence) => { told.textContent = sentence; };
  const dialog = makeDialog("Your data", "data",
    sharing(talk, tell, onChange),
    memories(tell),
    conversations(tell, (id) => { if (talk().holds(id)) begin(); }),
    thisConversation(talk),
    everything(tell, begin),
    told);
  openDialog(dialog).then(() => dialog.remove());
}

function sharing(talk, tell, onChange) {
  const box = element("input", { type: "checkbox", role: "switch", id: "share", checked: person.share });
  box.addEventListener("change", async () => {
    try {
      if (!box.checked) await talk().unshare();
      person.setShare(box.checked);
      if (!box.checked) tell("Nothing that you say from now on is kept. This conversation no longer teaches.");
      else tell(talk().isEmpty ? "Thank you. What you say from now on may teach." : "Thank you. Sharing begins with your next conversation.");
      onChange();
    } catch (error) {
      box.checked = person.share;
      tell(error.message);
    }
  });
  return section("Sharing", element("label", { className: "switch" }, element("span", {},
    element("strong", { textContent: "Share my conversations" }),
    element("small", { textContent: "What you and the bot say is kept and may train the next versions. Without it, only thumbs and reasons are kept." })), box));
}

function thisConversation(talk) {
  if (talk().isEmpty) return "";
  return section("This conversation", element("div", { className: "actions" },
    button("Download this conversation", () => download("conversation.json", { id: talk().id, messages: talk().messages }), "quiet")));
}

function everything(tell, begin) {
  if (!person.proof) return "";
  const erase = async () => {
    if (!(await confirmed("Delete everything you said here?", "Delete everything"))) return;
    try {
      await ask("/v1/erasure", { method: "POST", body: { user: person.name, completion_id: person.proof } });
      person.begin();
      begin();
      tell("Everything that you said is being deleted. You have a new random name.");
    } catch (error) {
      tell(error.message);
    }
  };
  return section("Delete everything",
    element("p", { textContent: "Removes all that you said, your thumbs and what is remembered of you. Copies in training data go with it." }),
    element("div", { className: "actions" }, button("Delete everything", erase, "danger")));
}

export function section(title, ...content) {
  return element("section", {}, element("h3", { textContent: title }), ...content);
}
