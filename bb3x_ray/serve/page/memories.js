// What the bot remembers of a person, and of itself towards them: to be seen, and forgotten one by one.
import { ask } from "./api.js";
import { element, iconButton, wordsOf } from "./element.js";
import { person } from "./person.js";

/** The section of the panel; it stays hidden where the server remembers nothing. */
export function memories(tell) {
  const list = element("ul", { className: "entries" });
  const none = element("p", { textContent: "Nothing yet." });
  const box = element("section", { hidden: true }, element("h3", { textContent: "What it remembers", tabIndex: -1 }), none, list);
  if (person.proof) load().catch((error) => tell(error.message));

  async function load() {
    const answer = await ask("/v1/memories", { headers: person.headers() }).catch((error) => {
      if (error.status === 404) return null; // this server has no memories
      throw error;
    });
    if (!answer) return;
    for (const memory of (await answer.json()).data) list.append(entry(memory));
    show();
  }

  function entry(memory) {
    const about = memory.about === "bot" ? "about itself" : "about you";
    const item = element("li", {}, element("div", {},
      wordsOf(memory.text), element("small", { textContent: about })));
    item.append(iconButton("bin", "Forget this", () => forget(memory, item)));
    return item;
  }

  async function forget(memory, item) {
    try {
      await ask(`/v1/memories/${encodeURIComponent(memory.id)}`, { method: "DELETE", headers: person.headers() });
      const next = (item.nextElementSibling ?? item.previousElementSibling)?.querySelector("button");
      item.remove();
      show();
      (next ?? box.querySelector("h3")).focus();
      tell("Forgotten.");
    } catch (error) {
      tell(error.message);
    }
  }

  function show() {
    box.hidden = false;
    none.hidden = list.childElementCount > 0;
  }
  return box;
}
