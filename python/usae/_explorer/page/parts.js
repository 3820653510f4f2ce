// Pieces that several views are made of.

const HUES = ["blue", "orange", "green", "purple", "red", "teal", "olive", "grey"];
const hueOf = (model) => `var(--model-${HUES[model % HUES.length]})`;

/** A mark and the name of a model. */
function modelTag(model, tag = "span.model") {
  return el(tag, { style: { "--hue": hueOf(model) } }, el("i.dot", { "aria-hidden": "true" }), el("span", { title: modelName(
  model) }, modelName(model)));
}

function conceptName(concept) {
  return labels.text(concept) || `Concept ${concept}`;
}

/** A link to a concept that works in a new tab too. */
function conceptLink(concept, ...children) {
  const link = el("a", { href: addressOf({ view: "c", concept }) }, ...(children.length ? children : [conceptName(concept)]));
  link.addEventListener("click", (event) => followed(event, { view: "c", concept }));
  return link;
}

function imageLink(image, concept, ...children) {
  const link = el("a.tile", { href: addressOf({ view: "image", image, patch: null }) }, ...children);
  link.addEventListener("click", (event) => followed(event, { view: "image", image, patch: null, concept }));
  return link;
}

function followed(event, changes) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(changes);
}

function starButton(concept) {
  const button = el("button.star", { type: "button", "data-star": concept, onclick: () => (labels.star(concept),
    updateStars()) });
  markStar(button, concept);
  return button;
}

function markStar(button, concept) {
  const on = labels.starred(concept);
  button.textContent = on ? "★" : "☆";
  button.setAttribute("aria-pressed", on);
  button.setAttribute("aria-label", `Star for concept ${concept}`);
}

function updateStars() {
  for (const button of document.querySelectorAll("[data-star]")) markStar(button, Number(button.dataset.star));
}

/** Buttons of which one is on. `options` are [value, text, explanation]. */
function segmented(label, options, value, choose) {
  const buttons = options.map(([key, text, words]) =>
    el("button", { type: "button", "aria-pressed": String(key === value), title: words, onclick: () => choose(
      key), "data-value": key }, text),
  );
  return el("div.segmented", { role: "group", "aria-label": label }, ...buttons);
}

function emptyState(title, text, ...actions) {
  return el("div.empty", {}, el("p.empty-title", {}, title), el("p", {}, text), ...actions);
}

function selectBox(label, options, value, choose) {
  const select = el("select", { "aria-label": label, onchange: () => choose(select.value) });
  for (const [key, text, group] of options) {
    let parent = select;
    if (group) {
      parent = [...select.children].find((one) => one.label === group) ?? el("optgroup", { label: group });
      select.append(parent);
    }
    parent.append(el("option", { value: key }, text));
  }
  select.value = value;
  return select;
}

/** All columns for a selectBox, those of models grouped. */
function columnOptions() {
  return [...columns.values()].map((column) => [column.key, titleOf(column), column.models.length ? (column.models.length > 1 ?
    "Pairs of models" : column.title) : "Concept"]);
}

/** Bars of a histogram as a picture; those in [from, to] of the axis are coloured. */
function bars(counts, label, { from = 0, to = 1, logarithmic = false, hue = null } = {}) {
  const heights = counts.map((n) => (logarithmic ? Math.log1p(n) : n));
  const most = Math.max(...heights, 1e-9);
  const width = 100 / counts.length;
  const box = svg("svg", { viewBox: "0 0 100 32", preserveAspectRatio: "none", role: "img", "aria-label": label,
    class: "bars" });
  heights.forEach((height, i) => {
    const inside = (i + 1) / counts.length > from && i / counts.length < to + 1e-9;
    const size = height ? Math.max(1, (height / most) * 32) : 0;
    const bar = svg("rect", { x: i * width + 0.3, width: width - 0.6, y: 32 - size, height: size, class: inside ? "in" :
        "out" });
    if (hue) bar.style.fill = hue;
    box.append(bar);
  });
  return box;
}

/** A table of numbers, M x M, with tints. */
function matrix(caption, heads, values, { digits = 2, low = 0, high = 1, corner = "" } = {}) {
  const table = el("table.matrix", { style: { "--models": heads.length } }, el("caption", {}, caption));
  table.append(el("thead", {}, el("tr", {}, corner ? el("th", { scope: "col" }, corner) : el("td"), ...heads.map((i) => el(
  "th", { scope: "col" }, modelTag(i))))));
  const body = el("tbody");
  heads.forEach((i, row) => {
    const cells = heads.map((_, column) => {
      const value = values[row][column];
      const share = value === null || Number.isNaN(value) ? 0 : clamp((value - low) / (high - low), 0, 1);
      return el("td", { style: { "--tint": share.toFixed(3) } }, shown(value, digits));
    });
    body.append(el("tr", {}, el("th", { scope: "row" }, modelTag(i)), ...cells));
  });
  table.append(body);
  return el("div.scrolls", { tabindex: "0", role: "region", "aria-label": caption }, table);
}

/** What the colours of heat maps mean. */
function legend() {
  if (!hasMaps()) return null;
  const words = "Share of the concept's largest code in that model";
  const strip = el("span.scale", { "aria-hidden": "true" });
  const colours = look.style === "spotlight" || look.style === "contour" ? ["#000", "#fff"] : SCALES[look.scale].map((one) =>
    `#${one}`);
  strip.style.background = `linear-gradient(90deg, ${colours.join(",")})`;
  return el("p.legend", {}, el("span", {}, "0"), strip, el("span", {}, "1"), el("span.quiet", {}, words));
}

/** Switches of how heat maps look. */
function lookTools() {
  if (!hasMaps()) return null;
  const changed = () => {
    attempt(() => localStorage.setItem("usae-explorer:look", JSON.stringify(look)));
    redrawPictures();
    redrawList();
    for (const line of document.querySelectorAll(".legend")) line.replaceWith(legend());
    for (const button of document.querySelectorAll(".looks .segmented button")) button.setAttribute("aria-pressed", String(
      button.dataset.value === look.style));
  };
  const strength = el("input", { type: "range", min: 0.2, max: 1, step: 0.05, value: look
    .strength, "aria-label": "Strength of heat maps" });
  strength.addEventListener("input", () => ((look.strength = Number(strength.value)), changed()));
  const smooth = el("input", { type: "checkbox", checked: look.smooth });
  smooth.addEventListener("change", () => ((look.smooth = smooth.checked), changed()));
  return el(
    "div.looks", {},
    segmented("Style of heat maps", STYLES, look.style, (style) => ((look.style = style), changed())),
    selectBox("Colours of heat maps", [
      ["viridis", "viridis"],
      ["cividis", "cividis"]
    ], look.scale, (scale) => ((look.scale = scale), changed())),
    el("label.inline", {}, strength, "strength"),
    el("label.inline", {}, smooth, "smooth"),
  );
}

function nextStyle() {
  const at = STYLES.findIndex(([key]) => key === look.style);
  look.style = STYLES[(at + 1) % STYLES.length][0];
  document.querySelector(`.looks button[data-value="${look.style}"]`)?.click();
  attempt(() => localStorage.setItem("usae-explorer:look", JSON.stringify(look)));
  redrawPictures();
  redrawList();
  say(`Heat maps: ${STYLES.find(([key]) => key === look.style)[1]}`);
}
