// What the page says: short sentences that one sees, and whole replies that a screen reader reads once.

const shown = document.getElementById("notice");
const spoken = document.getElementById("spoken");

export function say(sentence) {
  shown.textContent = sentence;
}

/** For whoever listens: not each piece of a reply as it is written, but all of it at the end. */
export function speak(words) {
  spoken.textContent = words;
}
