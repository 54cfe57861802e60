// One reply after the other. A rating counts once the server says that it is on disk; then the next one comes.
const byId = (id) => document.getElementById(id);
const [main, talk, reply, words, done, labels, notice, count, progress] =
  ["main", "talk", "reply", "words", "done", "labels", "notice", "count", "progress"].map(byId);

// Properties, never HTML: text stays text.
const element = (name, properties = {}) => Object.assign(document.createElement(name), properties);

let items = [];
let rated = {}; // id -> label
let at = 0;
let saving = false;
const buttons = new Map(); // label -> its button

async function begin() {
  const answer = await fetch("sheet");
  if (!answer.ok) throw new Error(`The server answered ${answer.status}; start the page again.`);
  const sheet = await answer.json();
  items = sheet.items;
  rated = sheet.labels;
  byId("rater").textContent = sheet.rater;
  sheet.rubric.forEach(addLabel);
  progress.max = items.length;
  at = nextUnrated(0);
  show();
}

function addLabel({ label, name, words: meaning }, index) {
  const button = element("button", { type: "button", className: "label" });
  button.dataset.label = label;
  const text = element("span", { className: "text" });
  text.append(element("b", { textContent: name }), element("span", { className: "meaning", textContent: meaning }));
  button.append(element("kbd", { textContent: String(index + 1) }), text);
  button.addEventListener("click", () => rate(label));
  buttons.set(label, button);
  labels.append(button);
}

function nextUnrated(from) {
  for (let step = 0; step < items.length; step += 1) {
    const place = (from + step) % items.length;
    if (!rated[items[place].id]) return place;
  }
  return items.length;
}

function show() {
  const item = items[at];
  const finished = Object.keys(rated).length;
  count.textContent = `${finished} of ${items.length}`;
  progress.value = finished;
  done.hidden = item !== undefined;
  talk.hidden = reply.hidden = labels.hidden = item === undefined;
  byId("back").disabled = at === 0;
  byId("skip").disabled = item === undefined;
  byId("clear").disabled = item === undefined || !rated[item.id];
  if (!item) return;
  talk.replaceChildren(...item.turns.map(turn));
  talk.classList.toggle("empty", item.turns.length === 0);
  if (!item.turns.length) talk.append(element("p", { className: "start", textContent: "The talk begins with this reply." }));
  words.textContent = item.reply;
  for (const [label, button] of buttons) button.setAttribute("aria-pressed", String(rated[item.id] === label));
  reply.scrollIntoView({ block: reply.offsetHeight > main.clientHeight ? "start" : "end" });
}

function turn({ who, text }) {
  const line = element("div", { className: `turn ${who}` });
  line.append(element("span", { className: "who", textContent: who === "person" ? "Person" : "Bot" }));
  line.append(element("p", { textContent: text }));
  return line;
}

async function rate(label) {
  const item = items[at];
  if (!item || saving) return;
  saving = true;
  labels.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch("ratings", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: item.id, label }),
    });
    if (!answer.ok) {
      const { error } = await answer.json().catch(() => ({ error: null }));
      throw new Error(error ?? `The server answered ${answer.status}; please try again.`);
    }
    notice.textContent = "";
    if (label === null) delete rated[item.id];
    else {
      rated[item.id] = label;
      at = nextUnrated(at + 1);
    }
  } catch (error) {
    // A fetch that reached nobody throws a TypeError in the browser's own words.
    notice.textContent = error instanceof TypeError ? "Not saved: the page's server does not answer." : error.message;
  } finally {
    saving = false;
    labels.removeAttribute("aria-busy");
    show();
  }
}

function go(step) {
  if (saving) return;
  at = Math.min(Math.max(at + step, 0), items.length);
  notice.textContent = "";
  show();
}

byId("back").addEventListener("click", () => go(-1));
byId("skip").addEventListener("click", () => go(1));
byId("clear").addEventListener("click", () => rate(null));
window.addEventListener("resize", () => { if (items[at]) show(); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const label = [...buttons.keys()][Number(event.key) - 1];
  if (/^[1-9]$/.test(event.key) && label) rate(label);
  else if (event.key === "ArrowLeft") go(-1);
  else if (event.key === "ArrowRight") go(1);
  else if (event.key === "Backspace" && items[at] && rated[items[at].id]) rate(null);
  else return;
  event.preventDefault();
});
begin().catch((error) => { notice.textContent = error.message; });
