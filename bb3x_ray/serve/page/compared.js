// One talk with two versions, in this page's memory only. The server keeps a comparison for each question.
import { ask } from "./api.js";
import { person } from "./person.js";

export class Compared {
  constructor() {
    this.messages = []; // {role, content}; the person's last one may be without a reply
    this.share = person.share;
    this.id = ""; // of the latest comparison
    this.kept = []; // ids of the comparisons whose words the server keeps
    this.conversations = []; // as what the server lists them
  }

  get isEmpty() {
    return this.messages.length === 0;
  }

  hear(words) {
    if (this.isEmpty) this.share = person.share;
    this.messages.push({ role: "user", content: words });
  }

  answered({ id, conversation_id: conversation }) {
    this.id = id;
    this.conversations.push(conversation);
    if (this.share) this.kept.push(id);
  }

  holds(conversation) {
    return this.conversations.includes(conversation);
  }

  /** None of it counts or is kept from now on. Raises Refusal. */
  async unshare() {
    for (const id of this.kept) {
      const body = { user: person.name, completion_id: id, store: false, scope: "conversation" };
      await ask("/v1/consent", { method: "POST", body });
    }
    this.kept = [];
    this.share = false;
  }
}
