// Keys. Everything that the mouse does can be done by keys alone.

const KEYS = [
  ["j k or ↓ ↑", "Next and previous concept"],
  ["Enter", "Open the concept"],
  ["Esc", "Back, from filters to the list, or clear the search"],
  ["← → ↑ ↓", "Move between images, patches, or points of the map"],
  ["Shift + arrow", "On the map: draw a box, of which Enter lists the concepts"],
  ["/", "Search"],
  ["f", "Filters"],
  ["s", "Star"],
  ["l", "Label"],
  ["1 to 9", "Show or hide a model"],
  ["h", "Next style of heat maps"],
  ["v", "Next choice of images of a concept"],
  ["c, m, i, o", "Concepts, map, images, overview"],
  ["t", "Light or dark"],
  ["?", "This help"],
];

function makeHelp() {
  const rows = KEYS.flatMap(([key, words]) => [el("dt", {}, ...key.split(" ").map((one) => (["or", "to", "+"].includes(one) ?
    ` ${one} ` : el("kbd", {}, one)))), el("dd", {}, words)]);
  const dialog = el("dialog", { id: "help", "aria-labelledby": "help-title" }, el("h2", { id: "help-title" }, "Keys"), el(
    "dl.keys", {}, ...rows), el("p.quiet", {},
    "Every view, selection and concept has an address of its own: copy it to share what you see."), el(
  "form", { method: "dialog" }, el("button", { autofocus: true }, "Close")));
  document.body.append(dialog);
}

function showHelp() {
  const dialog = byId("help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

const isField = (node) => node.matches?.("input:not([type=checkbox]):not([type=range]), textarea, select") ?? false;

document.addEventListener("keydown", (event) => {
  if (!data.header || event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.key === "Escape") {
    event.preventDefault();
    if (isField(event.target)) {
      if (event.target === list.search && state.q) go({ q: "" });
      event.target.blur();
      focusView();
    } else if (state.view === "list" && (event.target.closest?.(".panel") || list.node.classList.contains("filters-open"))) {
      toggleFilters(false);
      if (byId("show-filters").checkVisibility()) byId("show-filters").focus();
      else focusView(); // there is room for both, and the next keys are meant for the list
    } else goBack();
    return;
  }
  if (isField(event.target)) {
    if (event.key === "Enter" && event.target.type === "search") {
      event.preventDefault();
      moveInList(0);
    }
    if (event.key === "Enter" && event.target.id === "label") {
      event.preventDefault();
      event.target.blur(); // which keeps the label
      byId("title").focus({ preventScroll: true });
    }
    return;
  }
  const action = actionOf(event.key, event.target);
  if (action) {
    event.preventDefault();
    action();
  }
});

function actionOf(key, target) {
  const concept = currentConcept();
  const general = {
    "/": () => (go({ view: "list" }), byId("search").focus(), byId("search").select()),
    "?": showHelp,
    c: () => go({ view: "list" }),
    m: () => go({ view: "map" }),
    i: () => go({ view: "images" }),
    o: () => go({ view: "overview" }),
    t: toggleTheme,
    h: nextStyle,
    f: () => (go({ view: "list" }), toggleFilters()),
    s: concept === null ? null : () => (labels.star(concept), updateStars()),
    l: concept === null ? null : () => (go({ view: "c", concept }), byId("label").focus()),
  };
  if (general[key]) return general[key];
  if (/^[1-9]$/.test(key) && Number(key) <= data.header.models.length) return () => toggleModel(Number(key) - 1);
  if (state.view === "list") return listAction(key, target);
  if (state.view === "c") return conceptAction(key, target);
  if (state.view === "images" && key.startsWith("Arrow")) return () => moveInImages(key);
  if (state.view === "image" && (key === "ArrowLeft" || key === "ArrowRight" || key === "j" || key === "k")) {
    const image = state.image + (key === "ArrowLeft" || key === "k" ? -1 : 1);
    return () => image >= 0 && image < data.header.nImages && go({ image, patch: null });
  }
  return null;
}

function listAction(key, target) {
  if (target.closest?.(".panel")) return null;
  const page = Math.max(1, Math.floor(list.scroller.clientHeight / list.rowHeight) - 1);
  const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (key in steps) return () => moveInList(list.order.length ? clamp(steps[key], -list.order.length, list.order.length) : 0);
  const inList = target === document.body || target === list.scroller || target.closest?.(".row") || target.id === "main";
  if (key === "Enter" && inList && !target.closest?.("a, button") && list.order.length) {
    return () => go({ view: "c", concept: list.order[list.active] });
  }
  return null;
}

function conceptAction(key, target) {
  if (["ArrowDown", "ArrowUp"].includes(key)) return null; // these scroll the page
  const step = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 } [key];
  if (step && !target.matches?.("input")) {
    const order = orderOf(state);
    const next = order[order.indexOf(state.concept) + step];
    return () => order.includes(state.concept) && next !== undefined && go({ concept: next });
  }
  if (key === "v") {
    const shows = showsOf(state.concept).map(([one]) => one);
    const now = document.querySelector(".switches [aria-pressed=true]")?.dataset.value;
    return () => go({ show: shows[(shows.indexOf(now) + 1) % shows.length] });
  }
  return null;
}

/** The concept that keys act on: that of the page, or the active row. */
function currentConcept() {
  if (state.view === "c") return state.concept;
  if (state.view === "list" && list.order.length) return list.order[list.active];
  return null;
}

function focusView() {
  if (state.view === "list") moveInList(0);
  else(byId("title") ?? byId("main")).focus({ preventScroll: true });
}
