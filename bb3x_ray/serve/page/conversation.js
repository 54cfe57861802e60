// One conversation at a time, in this page's memory only.
import { ask } from "./api.js";
import { person, randomId } from "./person.js";

export class Conversation {
  constructor() {
    this.id = randomId("c");
    this.messages = []; // {role, content}; the person's last one may be without a reply
    this.share = person.share;
    this.lastReply = ""; // its completion id
  }

  get isEmpty() {
    return this.messages.length === 0;
  }

  hear(words) {
    if (this.isEmpty) this.share = person.share;
    this.messages.push({ role: "user", content: words });
  }

  answered(part) {
    this.messages.push({ role: "assistant", content: part.text });
    this.lastReply = part.id;
  }

  /** Take back the last reply, to ask for another one. */
  unanswer() {
    if (this.messages.at(-1)?.role === "assistant") this.messages.pop();
  }

  /** Take back what the person said last; returns the words. */
  unhear() {
    return this.messages.pop()?.content ?? "";
  }

  /** Whether the server lists it as this: its id is ours and a suffix. */
  holds(conversation) {
    return conversation.startsWith(`${this.id}.`);
  }

  /** Nothing of it may teach from now on, nor what was said in it. Raises Refusal. */
  async unshare() {
    if (this.share && this.lastReply) {
      const body = { user: person.name, completion_id: this.lastReply, store: false, scope: "conversation" };
      await ask("/v1/consent", { method: "POST", body });
    }
    this.share = false;
  }
}
