// Two replies side by side, and the choice between them.
import { element, wordsOf } from "./element.js";

const CHOICES = [["a", "A is better", "A"], ["b", "B is better", "B"], ["both", "Both are good", "O"], ["neither", "Neither is good", "N"]];

export class PairOfReplies {
  /** Fills `section`; onChoice("a" | "b" | "both" | "neither"). */
  constructor(section, onChoice) {
    this.section = section;
    this.onChoice = onChoice;
    this.cards = Object.fromEntries(["a", "b"].map((slot) => [slot, card(slot)]));
    this.votes = element("div", { className: "votes", role: "group", ariaLabel: "Which reply is better?", tabIndex: -1 });
    this.outcome = element("p", { className: "outcome", tabIndex: -1, hidden: true });
    section.replaceChildren(
      element("div", { className: "cards" }, ...Object.values(this.cards).map((one) => one.box)), this.votes, this.outcome);
    section.classList.add("waiting");
    section.hidden = false;
    section.onkeydown = (event) => this.#key(event);
  }

  /** replies: [{slot, content}], both at once, so that their speed tells nothing. */
  show(replies) {
    this.section.classList.remove("waiting");
    for (const { slot, content } of replies) this.cards[slot].words.textContent = content.trim();
    this.votes.append(...CHOICES.map(([choice, words, key]) => {
      const vote = element("button", { type: "button", className: "vote" }, words, element("kbd", { textContent: key, ariaHidden: "true" }));
      vote.setAttribute("aria-keyshortcuts", key);
      vote.addEventListener("click", () => this.onChoice(choice));
      return vote;
    }));
    this.votes.focus(); // keys work from here on, and only here
  }

  /** versions: {a, b}. */
  reveal(choice, versions) {
    for (const [slot, { box, heading }] of Object.entries(this.cards)) {
      heading.append(element("span", { className: "tag", textContent: versions[slot] }));
      box.classList.toggle("preferred", choice === slot || choice === "both");
    }
    this.votes.remove();
    this.outcome.hidden = false;
    this.outcome.append(sentence(choice, versions),
      element("small", { textContent: "Your choice counts. Write on, or start over." }));
    this.outcome.focus();
  }

  #key(event) {
    const choice = CHOICES.find(([, , key]) => key === event.key.toUpperCase());
    if (!choice || !this.votes.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.onChoice(choice[0]);
  }
}

function card(slot) {
  const heading = element("h2", { id: `reply-${slot}`, textContent: `Reply ${slot.toUpperCase()}` });
  const words = wordsOf("");
  const box = element("article", { className: "card" }, heading, words);
  box.setAttribute("aria-labelledby", heading.id);
  return { box, heading, words };
}

function sentence(choice, { a, b }) {
  if (choice === "both") return `You liked both: A was ${a}, B was ${b}.`;
  if (choice === "neither") return `You liked neither: A was ${a}, B was ${b}.`;
  const [better, other] = choice === "a" ? [a, b] : [b, a];
  return `You prefer ${better} to ${other}.`;
}
