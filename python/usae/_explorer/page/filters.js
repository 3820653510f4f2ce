// The panel beside the list: ready-made selections, sets, and ranges of measures.

const FIRST_FILTERS = ["entropy", "iou", "correlation", "apart", "z", "energy:0"];
const addedFilters = new Set();
let filterNodes = null;

function makeFilters() {
  const models = data.header.models;
  const presets = data.header.presets.map((preset) =>
    el("button.chip", { type: "button", title: preset.help, "aria-pressed": "false", onclick: () => applyPreset(preset) },
      preset.name),
  );
  const sets = models.map((_, model) => ({ alive: setBox("alive", model), dead: setBox("dead", model) }));
  const set = selectBox(
    "Labels and stars",
    [
      ["all", "All concepts"],
      ["starred", "With a star"],
      ["labelled", "With a label"],
      ["unlabelled", "Without a label"]
    ],
    state.set,
    (value) => go({ set: value }),
  );
  const ranges = el("div.ranges");
  const more = selectBox("Add a filter", [
    ["", "Add a filter …"], ...columnOptions()
  ], "", (key) => {
    more.value = "";
    if (!key) return;
    addedFilters.add(key);
    updateFilters();
    ranges.querySelector(`[data-key="${CSS.escape(key)}"] input`)?.focus();
  });
  const importer = el("input", { type: "file", accept: ".json,.csv,application/json,text/csv", class: "visually-hidden",
    id: "importer", tabindex: "-1", "aria-hidden": "true" });
  importer.addEventListener("change", () => {
    for (const file of importer.files) labels.import(file);
    importer.value = "";
  });
  const panel = el(
    "aside.panel", { "aria-label": "Filters", id: "filters" },
    el("h2", {}, "Selections"),
    el("div.chips", {}, ...presets),
    el("h2", {}, "Sets"),
    el("div.sets", {}, ...["", "alive", "dead"].map((text) => el("small", { "aria-hidden": "true" }, text)), ...models.flatMap((
      _, model) => [modelTag(model), setLabel(sets[model], "alive", model), setLabel(sets[model], "dead", model)])),
    el("h2", {}, "Measures"),
    ranges,
    more,
    el("h2", {}, "Labels"),
    set,
    el(
      "div.buttons", {},
      el("button", { type: "button", id: "export-json", onclick: () => download("labels.json",
          `${JSON.stringify(labels.file(), null, 1)}\n`, "application/json") }, "Export JSON"),
      el("button", { type: "button", id: "export-csv", onclick: () => download("labels.csv", labels.asCsv(), "text/csv") },
        "CSV"),
      el("button", { type: "button", onclick: () => importer.click() }, "Import"),
      importer,
    ),
  );
  filterNodes = { panel, presets, sets, set, ranges, made: new Map() };
  return panel;
}

/** A box that keeps the concepts that are alive in a model, or those that are dead in it. */
function setBox(kind, model) {
  const box = el("input", { type: "checkbox", "data-set": kind });
  box.addEventListener("change", () => {
    const without = (one) => state[one].filter((other) => other !== model);
    const next = { alive: without("alive"), dead: without("dead") };
    if (box.checked) next[kind] = [...next[kind], model].sort((a, b) => a - b);
    go(next);
  });
  return box;
}

function setLabel(boxes, kind, model) {
  const values = columns.get(`firing:${model}`).values;
  const n = values.reduce((sum, value) => sum + ((value > 0) === (kind === "alive")), 0);
  return el("label.check", { title: `${plural(n, "concept")} ${kind} in ${modelName(model)}` }, boxes[kind], el(
    "span.visually-hidden", {}, `${kind} in ${modelName(model)}`));
}

function applyPreset(preset) {
  if (isApplied(preset)) go({ filters: {}, sort: null, up: false });
  else go({ filters: structuredClone(preset.filters), sort: preset.sort, up: false, alive: [], dead: [], only: null });
  say(`${preset.name}: ${plural(orderOf(state).length, "concept")}`);
}

function isApplied(preset) {
  const plain = (filters) => JSON.stringify(Object.entries(filters).sort());
  const near = Object.fromEntries(Object.entries(preset.filters).map(([key, limits]) => [key, limits.map((x) => (x === null ?
    null : Number(x.toPrecision(6))))]));
  const mine = Object.fromEntries(Object.entries(state.filters).map(([key, limits]) => [key, limits.map((x) => (x === null ?
    null : Number(x.toPrecision(6))))]));
  return Object.keys(mine).length > 0 && plain(near) === plain(mine);
}

function updateFilters() {
  if (!filterNodes) return;
  filterNodes.presets.forEach((button, i) => button.setAttribute("aria-pressed", String(isApplied(data.header.presets[i]))));
  filterNodes.sets.forEach((boxes, model) => {
    for (const kind of ["alive", "dead"]) boxes[kind].checked = state[kind].includes(model);
  });
  filterNodes.set.value = state.set;
  const wanted = new Set([...FIRST_FILTERS.filter((key) => columns.has(key)), ...addedFilters, ...Object.keys(state.filters)]);
  for (const key of wanted) {
    if (!filterNodes.made.has(key)) filterNodes.made.set(key, rangeFilter(columns.get(key)));
    const one = filterNodes.made.get(key);
    if (one.node.parentNode !== filterNodes.ranges) filterNodes.ranges.append(one.node);
    one.update();
  }
  for (const [key, one] of filterNodes.made)
    if (!wanted.has(key)) one.node.remove();
}

/** A histogram of a column with two sliders and two fields. */
function rangeFilter(column) {
  const title = titleOf(column);
  const axis = axisOf(column);
  const node = el("fieldset.range", { "data-key": column.key }, el("legend", { title: column.help }, title));
  if (!axis) {
    node.append(el("p.quiet", {}, rangeOf(column) ? `${shown(rangeOf(column)[0], column.digits)} for all` :
      "No concept has one."));
    return { node, update() {} };
  }
  const STEPS = 200;
  const sliders = ["Smallest", "Largest"].map((word, i) =>
    el("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": `${word} ${title}`, class: i ? "upper" :
        "lower" }),
  );
  const fields = ["From", "To"].map((word) => el("input", { type: "text",
  inputmode: "decimal", "aria-label": `${word} ${title}` }));
  const picture = el("div.histogram", {});
  const clear = el("button.plain.clear", { type: "button", "aria-label": `Clear ${title}`, onclick: () => set([null, null]) },
    "×");
  const counts = histogramOf(column);
  const logarithmic = Math.max(...counts) > 20 * (counts.reduce((sum, n) => sum + n, 0) / counts.length);

  const limits = () => state.filters[column.key] ?? [null, null];

  function set([low, high]) {
    const filters = { ...state.filters };
    delete filters[column.key];
    if (low !== null || high !== null) filters[column.key] = [low, high];
    go({ filters });
  }
  sliders.forEach((slider, i) =>
    slider.addEventListener("input", () => {
      const at = sliders.map((one) => Number(one.value));
      if (at[0] > at[1]) at[i] = at[1 - i];
      const rounded = (share) => Number(axis.from(share).toPrecision(3));
      set([at[0] > 0 ? rounded(at[0] / STEPS) : null, at[1] < STEPS ? rounded(at[1] / STEPS) : null]);
    }),
  );
  fields.forEach((field, i) =>
    field.addEventListener("change", () => {
      const value = Number(field.value.replace("−", "-").replaceAll(",", ""));
      const next = [...limits()];
      next[i] = field.value.trim() === "" || Number.isNaN(value) ? null : value;
      set(next);
    }),
  );
  node.append(clear, picture, el("div.sliders", {}, ...sliders), el("div.fields", {}, fields[0], el("span.quiet", {}, "to"),
    fields[1]));
  let drawn = "";
  return {
    node,
    update() {
      const [low, high] = limits();
      const [from, to] = [low === null ? 0 : axis.to(low), high === null ? 1 : axis.to(high)];
      sliders[0].value = Math.round(clamp(from, 0, 1) * STEPS);
      sliders[1].value = Math.round(clamp(to, 0, 1) * STEPS);
      [low, high].forEach((value, i) => {
        const [least, most] = rangeOf(column);
        sliders[i].setAttribute("aria-valuetext", shown(value ?? [least, most][i], column.digits));
        if (document.activeElement !== fields[i]) fields[i].value = value === null ? "" : String(Number(value.toPrecision(
          4)));
        fields[i].placeholder = shown([least, most][i], column.digits);
      });
      node.classList.toggle("active", low !== null || high !== null);
      clear.hidden = low === null && high === null;
      if (drawn !== `${from}/${to}`) {
        drawn = `${from}/${to}`;
        replaceIn(picture, bars(counts, `Histogram of ${title}`, { from, to, logarithmic }));
      }
    },
  };
}
