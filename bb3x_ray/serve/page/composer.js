// Where a person writes. While a reply is written, its button stops that.
const form = document.getElementById("form");
const text = document.getElementById("text");
const send = document.getElementById("send");
const left = document.getElementById("left");
const LONGEST = text.maxLength;
const WARN_BELOW = 200; // characters that are left

export const composer = {
  busy: false,
  onSend: () => {},
  onStop: () => {},
  setBusy(busy) {
    this.busy = busy;
    send.firstElementChild.className = `icon icon-${busy ? "stop" : "send"}`;
    send.ariaLabel = send.title = busy ? "Stop" : "Send";
    show();
  },
  /** Not where a keyboard would come up over what one reads. */
  focus() {
    if (!matchMedia("(pointer: coarse)").matches) text.focus();
  },
  /** Give words back that could not be sent, before what was written meanwhile. */
  giveBack(words) {
    text.value = [words, text.value].filter(Boolean).join("\n");
    show();
  },
  take() {
    const words = text.value.trim();
    text.value = "";
    show();
    return words;
  },
};

function show() {
  send.ariaDisabled = String(!composer.busy && !text.value.trim()); // never disabled: it may hold the focus
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 180)}px`;
  const characters = LONGEST - text.value.length;
  left.textContent = characters < WARN_BELOW ? `${characters} characters left` : "";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (composer.busy) composer.onStop();
  else if (text.value.trim()) composer.onSend();
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!composer.busy) form.requestSubmit();
  }
});
text.addEventListener("input", show);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && composer.busy && !document.querySelector("dialog[open]")) composer.onStop();
});
show();
