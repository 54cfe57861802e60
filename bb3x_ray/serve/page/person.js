// Who sits at this browser: a random name, what they agreed to, and a proof that replies were written for them.

const NAME = "bb3x-person", AGREED = "bb3x-agreed", SHARE = "bb3x-share", PROOF = "bb3x-proof";
const unkept = new Map(); // where the browser keeps nothing, for as long as the page is open

export const person = {
  /** Tells people apart and says nothing about them. */
  get name() {
    return read(NAME) ?? write(NAME, randomId("p"));
  },
  get agreed() {
    return read(AGREED) === "yes";
  },
  get share() {
    return read(SHARE) === "yes";
  },
  /** Id of a completion or comparison that was written for this person, "" before the first reply. */
  get proof() {
    return read(PROOF) ?? "";
  },
  agree(share) {
    write(AGREED, "yes");
    this.setShare(share);
  },
  setShare(share) {
    write(SHARE, share ? "yes" : "no");
    dispatchEvent(new Event("bb3x-share"));
  },
  setProof(id) {
    write(PROOF, id);
  },
  /** What the server wants to see before it shows or deletes what it keeps of a person. */
  headers() {
    return { "bb3x-user": this.name, "bb3x-proof": this.proof };
  },
  /** Somebody new from now on; what they agreed to stays. */
  begin() {
    write(NAME, randomId("p"));
    write(PROOF, "");
  },
};

export function randomId(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `${prefix}-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function read(key) {
  try {
    return localStorage.getItem(key) ?? unkept.get(key) ?? null;
  } catch {
    return unkept.get(key) ?? null; // the browser is set to keep nothing
  }
}

function write(key, value) {
  unkept.set(key, value);
  try {
    localStorage.setItem(key, value);
  } catch {
    // the same: the page goes on with what it remembers itself
  }
  return value;
}
