// The list of concepts. Only the rows in sight exist, and are used again while scrolling.

const THUMB = 60;
const GAP = 3;
const ARROW = 16; // in a head, with the gap before it
const pen = document.createElement("canvas").getContext("2d");
const list = { rows: [], order: new Uint32Array(0), active: 0, rowHeight: 92, thumbs: 4, structure: "", wide: true };

function makeList() {
  const search = el("input", { type: "search",
  placeholder: "Search labels and numbers", "aria-label": "Search labels and numbers", id: "search" });
  search.addEventListener("input", () => go({ q: search.value }));
  const sort = selectBox("Sort by", [
    ["id", "Number"],
    ["label", "Label"], ...columnOptions()
  ], "id", (key) => go({ sort: key, up: key === "label" }));
  sort.id = "sort";
  const direction = el("button.icon", { type: "button", id: "direction", onclick: () => go({ sort: state.sort ?? defaultSort(),
      up: !state.up }) });
  const filters = el("button", { type: "button", id: "show-filters", "aria-expanded": "false", "aria-controls": "filters",
    onclick: () => toggleFilters() }, "Filters");
  list.count = el("p.count", { id: "count" });
  list.only = el("button.chip", { type: "button", "aria-pressed": "true", onclick: () => go({ only: null }) },
    "Chosen concepts ×");
  list.clear = el("button.plain", { type: "button", id: "clear", onclick: () => go({ filters: {}, q: "", set: "all", alive: [],
      dead: [], only: null }) }, "Clear filters");
  const more = selectBox("Add a column", [
    ["", "Add a column …"], ...columnOptions()
  ], "", (key) => {
    more.value = "";
    if (key && !state.shown.includes(key)) go({ shown: [...state.shown, key] });
  });
  list.chosen = el("div.chips");
  list.switches = data.header.models.map((_, model) => el("button.chip", { type: "button", onclick: () => toggleModel(
    model) }, modelName(model)));
  list.shownModels = el("summary");
  const box = (id, head, ...inside) => el("details.looks-box", { name: "box", id }, head, ...inside); // one is open
  const modelsBox = list.switches.length > 1 && box("show-models", list.shownModels, el("div.looks", {}, ...list.switches));
  const columnsBox = box("show-columns", el("summary", {}, "Columns"), el("div.looks", {}, more, list.chosen));
  const looksBox = box("show-looks", el("summary", {}, "Look"), lookTools() ?? el("div.looks", {}, "There are no heat maps."));
  list.head = el("div.head", { role: "row", "aria-rowindex": 1 });
  list.body = el("div.rows", { role: "rowgroup" });
  list.table = el("div.table", { role: "table", "aria-label": "Concepts", id: "concepts" }, el("div", { role: "rowgroup" }, list
    .head), list.body);
  list.scroller = el("div.scroller", { tabindex: "0", role: "region", "aria-label": "List of concepts" }, list.table);
  list.none = el("div.none", { hidden: true });
  list.node = el(
    "div.view.list", {},
    makeFilters(),
    el(
      "section.content", { "aria-label": "Concepts" },
      el("h1.visually-hidden", {}, "Concepts"),
      el("div.listbar", {}, filters, search, el("label.inline", {}, el("span.quiet", {}, "Sort by"), sort), direction, list
        .count, list.only, list.clear, el("span.grow"), el("div.boxes", {}, modelsBox, columnsBox, looksBox)),
      list.scroller,
      list.none,
    ),
  );
  list.search = search;
  list.sort = sort;
  list.direction = direction;
  list.scroller.addEventListener("scroll", () => scheduleList(), { passive: true });
  new ResizeObserver(() => layOutList()).observe(list.scroller);
  if (hasMaps()) need("strip", 0).then(() => redrawList()).catch(() => {});
  return list.node;
}

function toggleFilters(open = !list.node.classList.contains("filters-open")) {
  list.node.classList.toggle("filters-open", open);
  byId("show-filters").setAttribute("aria-expanded", String(open));
  if (open) byId("filters").querySelector("button, input")?.focus();
}

function updateList() {
  updateFilters();
  const order = orderOf(state);
  const changed = order !== list.order;
  list.order = order;
  if (document.activeElement !== list.search) list.search.value = state.q;
  list.sort.value = state.only && !state.sort ? "id" : (state.sort ?? defaultSort());
  list.direction.textContent = state.up ? "↑" : "↓";
  list.direction.setAttribute("aria-label", state.up ? "Smallest first; show the largest first" :
    "Largest first; show the smallest first");
  list.count.textContent = `${order.length.toLocaleString("en")} of ${plural(data.header.nConcepts, "concept")}`;
  list.only.hidden = !state.only;
  list.clear.hidden = !(Object.keys(state.filters).length || state.q || state.set !== "all" || state.alive.length || state
    .dead.length || state.only);
  replaceIn(list.chosen, state.shown.map((key) => el("button.chip", { type: "button", "aria-label":
    `Remove the column ${titleOf(columns.get(key))}`, onclick: () => go({ shown: state.shown.filter((one) => one !==
      key) }) }, `${titleOf(columns.get(key))} ×`)));
  const shownModels = visibleModels();
  list.shownModels.textContent = state.hidden.length ? `${shownModels.length} of ${list.switches.length} models` : "Models";
  list.switches.forEach((button, model) => {
    const isShown = shownModels.includes(model);
    button.setAttribute("aria-pressed", String(isShown));
    button.setAttribute("aria-disabled", String(isShown && shownModels.length === 1)); // one stays
  });
  list.table.setAttribute("aria-rowcount", order.length + 1);
  list.none.hidden = order.length > 0;
  list.scroller.hidden = order.length === 0;
  if (!order.length) {
    const button = el("button", { type: "button", onclick: () => list.clear.click() }, "Clear filters");
    replaceIn(list.none, emptyState("No concept fits", state.set === "starred" ? "Press s on a concept to give it a star." :
      "Widen a range, or clear all filters.", button));
  }
  if (changed) {
    list.active = 0;
    list.scroller.scrollTop = 0;
  }
  layOutList();
}

/** Decides what fits into a row, from the width. */
function layOutList() {
  const width = list.scroller.clientWidth;
  if (!width || list.node.hidden) return;
  const models = visibleModels();
  list.wide = width > 720;
  const numbers = numberColumns(width > 1180 ? 4 : width > 980 ? 3 : list.wide ? 2 : 1);
  const left = list.wide ? 150 : 0;
  const widths = numbers.map((key) => numberWidth(key, width));
  const right = widths.reduce((sum, one) => sum + one + 16, 0);
  const room = list.wide ? width - left - right - 44 : width - 32;
  list.thumbs = clamp(Math.floor((room / models.length - 16 + GAP) / (THUMB + GAP)), 1, 4);
  const perLine = list.wide ? models.length : clamp(Math.floor((width - 24) / (THUMB + 8)), 1, models.length);
  const lines = Math.max(1, state.shown.length); // under the name, in a narrow window
  list.rowHeight = list.wide ? 96 : 46 + 18 * lines + 84 * Math.ceil(models.length / perLine);
  list.table.style.setProperty("--name-row", `${22 + 18 * lines}px`);
  list.numbers = numbers;
  list.models = models;
  const strip = list.thumbs * (THUMB + GAP) - GAP;
  const column = Math.max(strip, Math.min(112, Math.floor(room / models.length) - 16)); // names fit where there is room
  const template = list.wide ?
    `minmax(${left}px, 1fr) ${models.map(() => `${column}px`).join(" ")} ${widths.map((one) => `${one}px`).join(" ")}` :
    `repeat(${perLine}, minmax(0, 1fr))`;
  list.table.style.setProperty("--columns", template);
  list.table.style.setProperty("--row", `${list.rowHeight}px`);
  list.table.classList.toggle("narrow", !list.wide);
  list.table.classList.toggle("single", column < 112);
  const least = left + models.length * (column + 16) + right + 40;
  list.table.style.minWidth = list.wide ? `max(100%, ${least}px)` : "";
  const sortable = (key, text, title, end = false) => {
    const sorts = (state.sort ?? defaultSort()) === key && !(state.only && !state.sort);
    const button = el("button.plain", { type: "button", title, onclick: () => go({ sort: key, up: sorts ? !state.up : key ===
          "label" }) }, text ? el("span.words", {}, text) : "", sorts ? (state.up ? " ↑" : " ↓") : "");
    return el(end ? "div.ends" : "div", { role: "columnheader", "aria-sort": sorts ? (state.up ? "ascending" : "descending") :
        "none" }, button);
  };
  replaceIn(
    list.head,
    sortable("label", "Concept", "Sort by label"),
    models.map((model) => {
      const head = sortable(`firing:${model}`, "", `Sort by firing in ${modelName(model)}`);
      head.firstChild.prepend(modelTag(model));
      return head;
    }),
    numbers.map((key) => sortable(key, titleOf(columns.get(key)), columns.get(key).help, true)),
  );
  list.body.style.height = `${list.order.length * list.rowHeight}px`;
  const structure = JSON.stringify([models, list.thumbs, numbers.length, list.wide]);
  if (structure !== list.structure) {
    list.structure = structure;
    for (const row of list.rows) row.node.remove();
    list.rows = [];
  }
  for (const row of list.rows) row.index = -1;
  drawList();
}

/** Width of a column of numbers: that of its head's longest word, in bold and beside an arrow, unless that is very long. */
function numberWidth(key, width) {
  pen.font = `600 12px ${getComputedStyle(list.head).fontFamily}`;
  const words = titleOf(columns.get(key)).split(/\s+/).map((word) => pen.measureText(word).width);
  return Math.round(clamp(Math.max(...words) + ARROW, 84, Math.max(140, width / 8)));
}

/** What is sorted by and what was added, then as many as fit of what is filtered by and of what matters to most. */
function numberColumns(most) {
  const first = new Set([...othersThanStrips([state.sort ?? defaultSort()]), ...state.shown]);
  const filtered = Object.keys(state.filters).filter((key) => !key.startsWith("share:")); // which bars under pictures show
  const rest = othersThanStrips([...filtered, "entropy", "iou", "correlation", "apart", "energy:0", "max:0"]);
  return [...new Set([...first, ...rest])].slice(0, list.wide ? Math.max(most, first.size) : most);
}

/** Without what a row shows beside its pictures or under its name. */
const othersThanStrips = (keys) => keys.filter((key) => columns.has(key) && key !== "universal" && !key.startsWith("firing:"));

let frame = 0;

function scheduleList() {
  if (!frame) frame = requestAnimationFrame(() => ((frame = 0), drawList()));
}

function drawList() {
  const height = list.scroller.clientHeight;
  if (!height) return;
  const needed = Math.min(list.order.length, Math.ceil(height / list.rowHeight) + 7);
  while (list.rows.length < needed) list.rows.push(makeRow());
  while (list.rows.length > needed) list.rows.pop().node.remove();
  const top = list.scroller.scrollTop - list.head.offsetHeight;
  const first = clamp(Math.floor(top / list.rowHeight) - 3, 0, list.order.length - needed);
  for (let index = first; index < first + needed; index++) fillRow(list.rows[index % needed], index);
}

function redrawList() {
  for (const row of list.rows) row.strips.forEach((strip, place) => drawLater(strip, () => drawStrip(row, place)));
}

function makeRow() {
  const title = el("a.title", { tabindex: "-1" });
  const sub = el("div.sub");
  const star = el("button.star", { type: "button", tabindex: "-1", onclick: () => (labels.star(row.concept), updateStars()) });
  const scale = Math.min(2, window.devicePixelRatio || 1);
  const strips = list.models.map((model) => {
    const canvas = el("canvas", { role: "img" });
    const width = list.thumbs * (THUMB + GAP) - GAP;
    [canvas.width, canvas.height] = [width * scale, THUMB * scale];
    canvas.style.width = `${width}px`;
    canvas.style.height = `${THUMB}px`;
    const bar = el("i");
    const text = el("span");
    const cell = el("div.strip", { role: "cell", style: { "--hue": hueOf(model) } }, canvas, el("div.firing", {}, el(
      "span.track", {}, bar), text));
    return { cell, canvas, context: canvas.getContext("2d"), scale, bar, text, model };
  });
  const numbers = list.numbers.map(() => el("div.number", { role: "cell" }));
  const node = el("div.row", { role: "row" }, el("div.name", { role: "cell" }, star, el("div", {}, title, sub)), ...strips.map((
    one) => one.cell), ...numbers);
  const row = { node, title, sub, star, strips, numbers, index: -1, concept: -1, version: -1 };
  node.addEventListener("click", (event) => {
    if (event.target.closest("button") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    list.active = row.index;
    go({ view: "c", concept: row.concept });
  });
  node.addEventListener("focus", () => {
    list.active = row.index;
  });
  list.body.append(node);
  return row;
}

function fillRow(row, index) {
  const concept = list.order[index];
  row.node.tabIndex = index === list.active ? 0 : -1;
  if (row.index === index && row.concept === concept && row.version === labels.version) return;
  row.index = index;
  row.version = labels.version;
  row.concept = concept;
  row.node.style.transform = `translateY(${index * list.rowHeight}px)`;
  row.node.setAttribute("aria-rowindex", index + 2);
  row.title.textContent = conceptName(concept);
  row.title.href = addressOf({ view: "c", concept });
  const proposals = labels.proposed(concept);
  row.sub.textContent = labels.text(concept) ? `${concept}` : proposals.length ? `perhaps ${proposals[0][0]}` : universalWords(
    concept);
  if (!list.wide && state.shown.length) row.sub.textContent = state.shown.map((key) =>
    `${titleOf(columns.get(key))} ${shown(valueOf(key, concept), columns.get(key).digits)}`).join("\n");
  row.star.dataset.star = concept;
  markStar(row.star, concept);
  list.numbers.forEach((key, i) => (row.numbers[i].textContent = shown(valueOf(key, concept), columns.get(key).digits)));
  row.strips.forEach((strip, place) => {
    const firing = valueOf(`firing:${strip.model}`, concept);
    strip.bar.style.transform = `scaleX(${firing > 0 ? clamp(1 + Math.log10(firing) / 4, 0.03, 1) : 0})`;
    strip.text.textContent = firing > 0 ? (firing < 1e-4 ? "< 0.01 %" : `${shown(firing * 100, 2)} %`) : "does not fire";
    strip.canvas.setAttribute("aria-label",
      `Concept ${concept} in ${modelName(strip.model)}: largest code ${shown(valueOf(`max:${strip.model}`, concept))}`);
    strip.context.clearRect(0, 0, strip.canvas.width, strip.canvas.height);
    drawLater(strip, () => drawStrip(row, place));
  });
}

function universalWords(concept) {
  if (valueOf("universal", concept) === 1) return "universal";
  const alive = data.header.models.filter((_, i) => valueOf(`firing:${i}`, concept) > 0).length;
  if (!alive) return "fires nowhere";
  return data.header.models.length > 1 && alive < data.header.models.length ?
    `alive in ${alive} of ${data.header.models.length}` : "";
}

/** Draws a model's examples of a row: what is decoded at once, the rest when it is. */
function drawStrip(row, place) {
  const strip = row.strips[place];
  const { context, scale, model } = strip;
  const size = THUMB * scale;
  const { shape, none } = data.arrays.shown;
  const [, models, n] = shape;
  const maps = hasMaps() ? needNow("strip", 0)?.maps : null;
  const concept = row.concept;
  for (let i = 0; i < list.thumbs; i++) {
    const x = i * (THUMB + GAP) * scale;
    const at = (concept * models + model) * n + i;
    const image = i < n ? data.arrays.shown[at] : none;
    if (image === none) {
      context.clearRect(x, 0, size, size);
      continue;
    }
    const bytes = maps ? maps.shape[3] : 0;
    const draw = (picture) => {
      paint(context, [x, 0, size, size], picture, maps ? levelsOf(maps, at * bytes, bytes) : null);
      if (!list.painted) list.painted = attempt(() => performance.mark("usae-rows"), true);
    };
    const now = hasPictures() ? pictureNow(image) : null;
    if (now !== undefined) draw(now);
    else {
      context.clearRect(x, 0, size, size);
      pictureOf(image).then((picture) => row.concept === concept && draw(picture));
    }
  }
}

/** Moves the active row, and shows it. */
function moveInList(step, focus = true) {
  if (!list.order.length) return;
  list.active = clamp(list.active + step, 0, list.order.length - 1);
  showActiveRow();
  if (focus) list.rows.find((row) => row.index === list.active)?.node.focus({ preventScroll: true });
}

function showActiveRow() {
  const top = list.active * list.rowHeight;
  const height = list.scroller.clientHeight - list.head.offsetHeight;
  if (top < list.scroller.scrollTop) list.scroller.scrollTop = top;
  else if (top + list.rowHeight > list.scroller.scrollTop + height) list.scroller.scrollTop = top + list.rowHeight - height;
  drawList();
}
