// Elements, numbers as text, and messages. Text from outside becomes text nodes and attributes only, never markup.

const byId = (id) => document.getElementById(id);

/** Makes an element. Attributes that are functions listen to events; `null` and `false` leave an attribute out. */
function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name || "div");
  if (classes.length) node.className = classes.join(" ");
  assign(node, attributes);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function assign(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.replace(/^on/, ""), value);
    else if (name === "style")
      for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
}

function replaceIn(parent, ...children) {
  parent.replaceChildren(...children.flat().filter(Boolean));
  return parent;
}

/** A number as people read it; "–" where there is none. */
function shown(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === Infinity) return "∞";
  if (value === -Infinity) return "−∞";
  const size = Math.abs(value);
  let text;
  if (size >= 1000 || digits === 0) text = Math.round(size).toLocaleString("en");
  else if (size > 0 && size < 0.5 * 10 ** -digits) text = size.toExponential(0).replace("e-", "e−");
  else text = size.toFixed(digits);
  return value < 0 && /[1-9]/.test(text) ? `−${text}` : text;
}

const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

/** Tells a screen reader something that the eye sees. */
function say(text) {
  byId("said").textContent = text;
}

/** Shows a problem at the top of the page, each once. */
function notice(text, ...buttons) {
  const box = byId("notice");
  if ([...box.children].some((line) => line.dataset.text === text)) return;
  const line = el("p", { "data-text": text }, el("span", {}, text), ...buttons);
  line.append(el("button.plain", { type: "button", onclick: () => close() }, "Dismiss"));
  const close = () => {
    line.remove();
    box.hidden = !box.childElementCount;
  };
  for (const button of buttons) button.addEventListener("click", close);
  box.append(line);
  box.hidden = false;
}

/** What a browser may refuse, in a notebook's frame for example: then the value is `otherwise`. */
function attempt(action, otherwise = null) {
  try {
    return action();
  } catch {
    return otherwise;
  }
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Keeps the entries that were used last. */
class Cache {
  constructor(most) {
    this.most = most;
    this.entries = new Map();
  }

  get(key) {
    const value = this.entries.get(key);
    if (value !== undefined) {
      this.entries.delete(key);
      this.entries.set(key, value);
    }
    return value;
  }

  set(key, value) {
    this.entries.set(key, value);
    if (this.entries.size > this.most) this.entries.delete(this.entries.keys().next().value);
  }

  delete(key) {
    this.entries.delete(key);
  }
}
