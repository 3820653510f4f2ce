// What is shown. It lives here, and in the part of the address behind #, where the browser lets it.

const VIEWS = ["list", "c", "image", "images", "map", "overview"];
const START = {
  view: "list",
  concept: null,
  image: null,
  patch: null,
  show: null, // what the concept page shows; null is its first choice
  sort: null,
  up: false,
  q: "",
  set: "all",
  alive: [], // models in which a concept fires
  dead: [], // and in which it does not
  shown: [], // columns that were added to the list
  only: null,
  colour: null, // column that colours the map; null is its first choice
  filters: {},
  hidden: [], // models
};

const state = structuredClone(START);
let cameFrom = null; // address of the list that a concept was opened from

function parsed(hash) {
  const found = structuredClone(START);
  const parts = hash.replace(/^#/, "").split("&").filter(Boolean);
  const numbers = (text) => text.split(",").filter((word) => /^\d+$/.test(word)).map(Number);
  const ofModels = (text) => numbers(text).filter((i) => i < data.header.models.length);
  for (const part of parts) {
    const cut = part.indexOf("=");
    const name = cut < 0 ? part : part.slice(0, cut);
    const value = attempt(() => decodeURIComponent(cut < 0 ? "" : part.slice(cut + 1)), "");
    if (name === "c" && /^\d+$/.test(value))[found.view, found.concept] = ["c", Number(value)];
    else if (name === "image" && /^\d+$/.test(value))[found.view, found.image] = ["image", imageOf(Number(value))];
    else if (VIEWS.includes(name) && cut < 0) found.view = name;
    else if (name === "patch" && /^\d+$/.test(value)) found.patch = Number(value);
    else if (name === "sort")[found.sort, found.up] = [value.replace(/^\^/, ""), value.startsWith("^")];
    else if (["q", "set", "show"].includes(name)) found[name] = value;
    else if (["alive", "dead", "hidden"].includes(name)) found[name] = ofModels(value);
    else if (name === "columns") found.shown = [...new Set(value.split(","))].filter((key) => columns.has(key));
    else if (name === "colour") found.colour = columns.has(value) ? value : null;
    else if (name === "only") found.only = numbers(value);
    else if (columns.has(name)) {
      const [low, high] = value.split("..").map((word) => (word === "" || Number.isNaN(Number(word)) ? null : Number(word)));
      if (low !== null || (high ?? null) !== null) found.filters[name] = [low, high ?? null];
    }
  }
  if (found.concept !== null && found.concept >= data.header.nConcepts)[found.view, found.concept] = ["list", null];
  if (found.view === "image" && found.image === null) found.view = "images";
  if (found.hidden.length >= data.header.models.length) found.hidden = [];
  return found;
}

/** The part of the address behind # that leads to a state. */
function addressOf(changes = {}) {
  const next = { ...state, ...changes };
  const number = (value) => (value === null ? "" : String(Number(value.toPrecision(6))));
  const parts = [next.view === "c" ? `c=${next.concept}` : next.view === "image" ? `image=${numberOf(next.image)}` :
    next.view];
  const quoted = (text) => encodeURIComponent(text).replace(/%(2C|3A|5E)/g, (one) => decodeURIComponent(one));
  const add = (name, value) => parts.push(`${name}=${quoted(value)}`);
  if (next.view === "image" && next.patch !== null) add("patch", next.patch);
  if (next.view === "c" && next.show) add("show", next.show);
  if (next.sort) add("sort", (next.up ? "^" : "") + next.sort);
  if (next.q) add("q", next.q);
  if (next.set !== "all") add("set", next.set);
  if (next.alive.length) add("alive", next.alive.join(","));
  if (next.dead.length) add("dead", next.dead.join(","));
  if (next.shown.length) add("columns", next.shown.join(","));
  if (next.hidden.length) add("hidden", next.hidden.join(","));
  if (next.colour) add("colour", next.colour);
  if (next.only) add("only", next.only.join(","));
  for (const [key, [low, high]] of Object.entries(next.filters)) {
    parts.push(`${quoted(key)}=${number(low)}..${number(high)}`);
  }
  return `#${parts.join("&")}`;
}

/** Changes what is shown. Another view is a step of the browser's history; a changed filter is not. */
function go(changes) {
  const next = { ...state, ...changes };
  const moves = next.view !== state.view || next.concept !== state.concept || next.image !== state.image;
  if (moves && next.view === "c" && state.view !== "c") cameFrom = { ...state };
  Object.assign(state, next);
  const address = addressOf();
  attempt(() => (moves ? history.pushState(null, "", address) : history.replaceState(null, "", address)));
  render(moves);
}

/** Leaves a page for the view that it was opened from. */
function goBack() {
  if (state.view === "list") {
    if (state.q || state.only || state.set !== "all") go({ q: "", only: null, set: "all" });
    return;
  }
  const target = state.view === "image" && state.concept !== null ? { view: "c" } : { ...(cameFrom ?? {}), view: cameFrom
      ?.view ?? "list" };
  if (target.view === state.view) target.view = "list";
  go(target.view === "c" ? target : { view: target.view, concept: target.view === "list" ? state.concept : null, image: target
      .image ?? null });
}

function goWhereTheAddressSays() {
  const found = parsed(document.body.dataset.at ? `#${document.body.dataset.at}` : location.hash);
  delete document.body.dataset.at;
  Object.assign(state, found);
  render(true);
}

window.addEventListener("hashchange", () => data.header && location.hash !== addressOf() && goWhereTheAddressSays());
window.addEventListener("popstate", () => data.header && goWhereTheAddressSays());

const visibleModels = () => data.header.models.map((_, i) => i).filter((i) => !state.hidden.includes(i));

/** Shows or hides a model; one stays. */
function toggleModel(model) {
  const hidden = state.hidden.includes(model) ? state.hidden.filter((i) => i !== model) : [...state.hidden, model].sort((a,
    b) => a - b);
  if (hidden.length < data.header.models.length) {
    go({ hidden });
    say(`${modelName(model)} is ${hidden.includes(model) ? "hidden" : "shown"}`);
  }
}
