// What a person said before: to be downloaded, and deleted one conversation at a time.
import { ask } from "./api.js";
import { confirmed } from "./dialog.js";
import { download } from "./download.js";
import { button, element, iconButton, wordsOf } from "./element.js";
import { person } from "./person.js";

const LONGEST_TITLE = 80;

/** The section of the panel; hidden where the server lists none. onDelete(id) after one is gone. */
export function conversations(tell, onDelete) {
  const list = element("ul", { className: "entries" });
  const none = element("p", { textContent: "Nothing yet. Only what you share is kept." });
  const all = button("Download all", () => save(), "quiet");
  const box = element("section", { hidden: true },
    element("h3", { textContent: "Your conversations", tabIndex: -1 }), none, list,
    element("div", { className: "actions" }, all));
  if (person.proof) load().catch((error) => tell(error.message));

  async function load() {
    const found = await fetchAll();
    if (!found) return;
    for (const one of found) list.append(entry(one));
    show();
  }

  async function fetchAll() {
    const answer = await ask("/v1/conversations", { headers: person.headers() }).catch((error) => {
      if (error.status === 404) return null; // this server lists none
      throw error;
    });
    return answer && (await answer.json()).data;
  }

  async function save() {
    try {
      download("conversations.json", { exported: new Date().toISOString(), conversations: (await fetchAll()) ?? [] });
    } catch (error) {
      tell(error.message);
    }
  }

  function entry(conversation) {
    const item = element("li", {}, element("div", {},
      wordsOf(titleOf(conversation)),
      element("small", { textContent: `${dateOf(conversation)}, ${counted(conversation)}` })));
    item.append(iconButton("bin", "Delete this conversation", () => remove(conversation, item)));
    return item;
  }

  async function remove(conversation, item) {
    if (!(await confirmed("Delete this conversation?", "Delete"))) return;
    try {
      await ask(`/v1/conversations/${encodeURIComponent(conversation.id)}`, { method: "DELETE", headers: person.headers() });
      item.remove();
      show();
      box.querySelector("h3").focus();
      tell("It is being deleted.");
      onDelete(conversation.id);
    } catch (error) {
      tell(error.message);
    }
  }

  function show() {
    box.hidden = false;
    none.hidden = list.childElementCount > 0;
    all.hidden = !none.hidden;
  }
  return box;
}

function titleOf(conversation) {
  const words = conversation.messages.find((message) => message.content)?.content ?? "Words that were not kept";
  const characters = [...words]; // whole ones: half an emoji is none
  return characters.length > LONGEST_TITLE ? `${characters.slice(0, LONGEST_TITLE).join("")}…` : words;
}

function counted({ object, messages: { length } }) {
  if (object === "comparison") return "a comparison";
  return length === 1 ? "1 message" : `${length} messages`;
}

/** `created` in seconds since 1970. */
function dateOf(conversation) {
  return new Date(conversation.created * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
