// What a person says of one reply. Each change is sent at once, and replaces what they said before.
import { ask } from "./api.js";
import { person, randomId } from "./person.js";

export class Rating {
  /** part: the finished reply, as `streamReply` yields it. */
  constructor(part) {
    this.part = part;
    this.said = { rating: null, reasons: [], comment: "", correction: "" };
    this.sending = Promise.resolve();
  }

  /**
   * One after the other, as they were said. Raises Refusal; then nothing has changed.
   * change: (what was said so far) -> what is new in it
   */
  say(change) {
    const sent = this.sending.then(() => this.#send({ ...this.said, ...change(this.said) }));
    this.sending = sent.catch(() => {}); // whoever called hears of it
    return sent;
  }

  async #send(next) {
    if (next.rating !== -1) Object.assign(next, { reasons: [], comment: "", correction: "" });
    const who = this.part.token ? { token: this.part.token } : { user: person.name };
    await ask("/v1/feedback", {
      method: "POST",
      headers: { "Idempotency-Key": randomId("f") },
      body: { completion_id: this.part.id, ...next, ...who },
    });
    this.said = next;
  }
}
