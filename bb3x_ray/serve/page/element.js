// The only way these pages make elements: properties, never HTML, so that text stays text.

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A decoration; what it means is said in words beside it. */
export function icon(name) {
  return element("span", { className: `icon icon-${name}`, ariaHidden: "true" });
}

export function button(words, act, className = "") {
  const made = element("button", { type: "button", className, textContent: words });
  made.addEventListener("click", act);
  return made;
}

/** A button that shows an icon and says its name to whoever cannot see it. */
export function iconButton(name, words, act) {
  const made = element("button", { type: "button", className: "tool", title: words, ariaLabel: words }, icon(name));
  made.addEventListener("click", act);
  return made;
}

/** What somebody wrote: its direction is its own, and turns nothing around it. */
export function wordsOf(text, className = "words") {
  return element("div", { className, dir: "auto", textContent: text });
}
