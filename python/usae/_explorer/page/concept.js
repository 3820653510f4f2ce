// The page of one concept.

const TILE = 112;
const conceptView = { node: el("div.view.concept"), drawn: null };

const SHOWS = [
  ["own", "Own examples", "The images that fire the concept most in each model"],
  ["same", "Same images", "Each model's heat map of the same images"],
  ["bands", "Bands", "Images drawn at random, from weak to strong: the strongest alone mislead"],
  ["apart", "Disagreement", "Images on which models differ, and images of its neighbours on which it does not fire"],
  ["made", "Made images", "Images that were optimised to fire the concept"],
];

function showsOf(concept) {
  return SHOWS.filter(([key]) => (key !== "made" || data.header.made.includes(concept)) && (key !== "bands" || data.header
    .bands));
}

async function updateConcept() {
  const { concept } = state;
  const root = conceptView.node;
  const order = orderOf(state);
  const place = order.indexOf(concept);
  document.title = `${conceptName(concept)} · ${data.header.title}`;
  const step = (by, text, key) => {
    const target = place < 0 ? undefined : order[place + by];
    return el("button", { type: "button", disabled: target === undefined, title: `${text} (${key})`, onclick: () =>
    go({ concept: target }) }, by < 0 ? "←" : "→", el("span.visually-hidden", {}, text));
  };
  const back = el("button.plain", { type: "button", id: "back", onclick: () => goBack() }, "← All concepts");
  const where = place < 0 ? "not in the selection" :
    `${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  const shows = showsOf(concept);
  const show = shows.some(([key]) => key === state.show) ? state.show : data.header.models.length > 1 ? "same" : "own";
  const head = el(
    "header.concept-head", {},
    el("div.crumbs", {}, back, el("span.grow", {}), el("span.quiet", {}, where), step(-1, "Previous concept", "k"), step(1,
      "Next concept", "j")),
    el("div.heading", {}, starButton(concept), el("h1", { tabindex: "-1", id: "title" }, conceptName(concept)), el(
      "span.number-tag", {}, `№ ${concept}`), copyButton()),
    labelForm(concept),
  );
  const body = el("div.concept-body", {}, el("p.waiting", {}, "Reading the concept …"));
  const keep = conceptView.drawn === concept ? root.scrollTop : 0;
  const refocus = focusKeeper(root);
  replaceIn(root, head, body);
  conceptView.drawn = concept;
  let found;
  try {
    found = await conceptOf(concept);
  } catch {
    if (state.concept === concept) replaceIn(body, emptyState("This concept cannot be shown",
      "Its data file is missing or damaged. The message above says which."));
    return;
  }
  if (state.view !== "c" || state.concept !== concept || !body.isConnected) return;
  const models = visibleModels();
  replaceIn(
    body,
    el(
      "section.pictures", { "aria-label": "Images" },
      el("div.switches", {}, segmented("Images to show", shows, show, (key) => go({ show: key })), lookTools()),
      el("p.hint", {}, shows.find(([key]) => key === show)[2], "."),
      SECTIONS[show](found, models),
      legend(),
    ),
    el("section.side", { "aria-label": "Numbers" }, summaryTable(concept, models), histograms(found, models), pairMatrix(
      concept, models), effectBlock(concept, models), neighbourList("Alike by dictionary", "cosine", found.alike),
      neighbourList("Fire together", "IoU", found.together), otherNumbers(concept)),
  );
  root.scrollTop = keep;
  refocus();
}

/** Remembers what has the focus. The function that it returns gives that to the same thing when it was made again. */
function focusKeeper(root) {
  const held = root.contains(document.activeElement) ? document.activeElement : null;
  const value = held?.dataset.value;
  const selector = held?.id ? `#${CSS.escape(held.id)}` : value ? `[data-value="${CSS.escape(value)}"]` : held?.dataset.star ?
    ".heading .star" : null;
  return () => {
    if (selector && document.activeElement === document.body) root.querySelector(selector)?.focus({ preventScroll: true });
  };
}

function copyButton() {
  const button = el("button.plain", { type: "button", title: "Copy the address of this page" }, "Copy link");
  button.addEventListener("click", async () => {
    const done = await attempt(() => navigator.clipboard.writeText(location.href).then(() => true, () => false), false);
    button.textContent = done ? "Copied" : "Copy the address bar";
    say(button.textContent);
  });
  return button;
}

function labelForm(concept) {
  const mine = labels.mine.get(concept)?.text ?? "";
  const given = labels.given(concept)?.text;
  const input = el("input", { type: "text", id: "label", dir: "auto", maxlength: 2 * LONGEST_LABEL, value: mine,
      placeholder: given ? "Your own label" : "What is it?", "aria-label": `Label of concept ${concept}`,
    autocomplete: "off" });
  input.addEventListener("change", () => {
    labels.write(concept, input.value);
    byId("title").textContent = conceptName(concept);
    say(`Label of concept ${concept} kept`);
  });
  const proposals = labels.proposed(concept).map(([word, score]) =>
    el("button.chip", { type: "button", title: `Proposed by embeddings, cosine ${shown(score)}`, onclick: () => (labels.write(
        concept, word), updateConcept()) }, word, " ", el("small", {}, shown(score))),
  );
  return el(
    "div.label-form", {},
    el("label.inline", { for: "label" }, "Label"),
    input,
    given ? el("span.given", { dir: "auto" }, "Given: ", given) : null,
    proposals.length ? el("span.quiet", {}, "Proposals") : null,
    ...proposals,
  );
}

// --- Images ------------------------------------------------------------------------------------------------------------

/** A picture of a pair with one model's heat map, a number under it, and a link to the page of the image. */
function tile(found, pair, model, width = TILE) {
  const peak = pair.peaks[model];
  const words =
    `Concept ${found.concept} in ${modelName(model)}, ${imageWords(pair.image)}: ${peak > 0 ? shown(peak) : "does not fire"}`;
  const levels = pair.maps[model];
  const canvas = pictureCanvas(pair.image, levels, width, words);
  return imageLink(pair.image, found.concept, canvas, el("span.value", {}, peak > 0 ? shown(peak) : "–"));
}

function columnsOfModels(models, contents) {
  return el("div.columns", { style: { "--n": models.length } }, ...models.map((model, i) => el(
  "div.column", { style: { "--hue": hueOf(model) } }, el("h2", {}, modelTag(model)), contents[i])));
}

const SECTIONS = {
  own(found, models) {
    return columnsOfModels(models, models.map((model) => {
      const pairs = found.top[model].filter((i) => i >= 0).map((i) => found.pairs[i]);
      if (!pairs.length) return emptyState("It does not fire", `No image fires it in ${modelName(model)}.`);
      return el("div.tiles", {}, ...pairs.map((pair) => tile(found, pair, model)));
    }));
  },

  same(found, models) {
    const shown = new Map();
    for (const model of models) {
      found.top[model].filter((i) => i >= 0).forEach((i, rank) => shown.set(i, Math.min(shown.get(i) ?? Infinity, rank)));
    }
    const rows = [...shown].sort((a, b) => a[1] - b[1] || a[0] - b[0]).map(([i]) => found.pairs[i]);
    if (!rows.length) return emptyState("It does not fire", "No image of this explorer fires it in any of the models.");
    return sameTable(found, models, rows, "The same images as seen by every model");
  },

  bands(found, models) {
    const n = data.header.bands;
    return columnsOfModels(models, models.map((model) => {
      const scale = scaleOf(found.concept, model);
      const rows = found.bands[model].map((i, band) => [i, band]).reverse();
      if (rows.every(([i]) => i < 0)) return emptyState("It does not fire",
      `No image fires it in ${modelName(model)}.`);
      return el("div.bands", {}, ...rows.map(([i, band]) => el(
        "figure", {},
        i < 0 ? el("div.blank", { style: { height: `${Math.round(TILE / proportions())}px` } }, "none") : tile(
          found, found.pairs[i], model),
        el("figcaption", {}, `${shown((scale * band) / n)} to ${shown((scale * (band + 1)) / n)}`),
      )));
    }));
  },

  apart(found, models) {
    const parts = [];
    for (const model of models) {
      const rows = (found.apart[model] ?? []).filter((i) => i >= 0).map((i) => found.pairs[i]);
      if (!rows.length) continue;
      parts.push(el("h2", {}, "Strongest in ", modelTag(model), " beside the others"), sameTable(found, models, rows,
        `Images that fire it in ${modelName(model)} more than in the others`));
    }
    if (!parts.length) parts.push(emptyState("No disagreement", data.header.models.length > 1 ? "The concept fires nowhere." :
      "There is one model."));
    const silent = found.silent.map((image) => imageLink(image, found.concept, pictureCanvas(image, null, TILE,
      `Image ${numberOf(image)}, on which concept ${found.concept} does not fire`, "plain")));
    parts.push(el("h2", {}, "Images of its neighbours on which it does not fire"), silent.length ? el("div.tiles", {}, ...
      silent) : el("p.quiet", {}, "It fires on all images of its neighbours, or has none."));
    return el("div", {}, ...parts);
  },

  made(found, models) {
    const box = el("div", {}, el("p.waiting", {}, "Reading the images …"));
    need("made", 0).then((file) => {
      const images = file.images[found.concept];
      replaceIn(box, columnsOfModels(models, models.map((model) => {
        const one = images[model];
        if (!one) return emptyState("No image", `No optimisation started in ${modelName(model)}.`);
        return el("figure.made", {}, el("img", { src: `data:image/webp;base64,${one.picture}`,
          alt: `Image that ${modelName(model)} wants to see for concept ${found.concept}`,
          onerror: () => tellOfPicture("made", 0) }), el(
          "figcaption", {}, one.strength === null ? "" :
          `${shown(one.strength)} times the largest code of natural images`));
      })));
    }).catch(() => replaceIn(box));
    return box;
  },
};

function sameTable(found, models, rows, caption) {
  const beside = matchMedia("(max-width: 1180px)").matches ? 0 :
    parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--side")) + 32;
  const room = conceptView.node.clientWidth - 48 - beside;
  const width = clamp(Math.floor(room / (models.length + (hasPictures() ? 1 : 0.6))) - 16, 88, 176);
  const heads = models.map((model) => el("th", { scope: "col" }, modelTag(model)));
  const body = rows.map((pair) => {
    const whole = hasPictures() ? el("td", {}, imageLink(pair.image, found.concept, pictureCanvas(pair.image, null, width,
      `Image ${numberOf(pair.image)}`, "plain"), el("span.value.quiet", {}, imageWords(pair.image)))) : el("th", {
    scope: "row" }, imageWords(pair.image));
    return el("tr", {}, whole, ...models.map((model) => el("td", { class: pair.peaks[model] > 0 ? null : "silent" }, tile(
      found, pair, model, width))));
  });
  const corner = hasPictures() ? el("th", { scope: "col" }, "Picture") : el("td");
  const table = el("table.same", { style: { "--tile": `${width}px` } }, el("caption.visually-hidden", {}, caption), el("thead",
  {}, el("tr", {}, corner, ...heads)), el("tbody", {}, ...body));
  return el("div.scrolls", { tabindex: "0", role: "region", "aria-label": caption }, table);
}

const scaleOf = (concept, model) => data.arrays.scale[concept * data.header.models.length + model];

// --- Numbers -----------------------------------------------------------------------------------------------------------

function summaryTable(concept, models) {
  const rows = [...columnsByModel()].map(([, group]) =>
    el("tr", {}, el("th", { scope: "row", title: group[0].help }, group[0].title), ...models.map((model) => el("td", {},
      shown(group.find((one) => one.models[0] === model)?.values[concept], group[0].digits)))),
  );
  const heads = models.map((model) => el("th", { scope: "col" }, modelTag(model)));
  const table = el("table.plain-table", {}, el("caption", {}, "In each model"), el("thead", {}, el("tr", {}, el("td"), ...
    heads)), el("tbody", {}, ...rows));
  return el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Numbers of each model" }, table);
}

function histograms(found, models) {
  const charts = models.map((model) => {
    const most = scaleOf(found.concept, model);
    const counts = found.histogram[model];
    const total = counts.reduce((sum, n) => sum + n, 0);
    return el("figure.chart", {}, bars(counts,
      `Codes of concept ${found.concept} in ${modelName(model)}, ${plural(total, "token")}`, { logarithmic: true,
        hue: hueOf(model) }), el("figcaption", {}, modelTag(model), el("span.quiet", {}, total ?
      `0 to ${shown(most)}, ${plural(total, "token")}` : "does not fire")));
  });
  return el("div.block", {}, el("h2", {}, "Codes"), ...charts, el("p.quiet", {},
    "Number of tokens by their code; heights are logarithms."));
}

function pairMatrix(concept, models) {
  if (models.length < 2) return null;
  const of = (stem) => models.map((i) => models.map((j) => (i === j ? 1 : valueOf(`${stem}:${Math.min(i, j)}:${Math.max(i, j)}`,
    concept))));
  return el("div.block", {}, matrix("Agreement: IoU of firing", models, of("iou")), matrix("Agreement: correlation of codes",
    models, of("correlation")));
}

/** What ablating the concept does: whether the same images change in two networks, beside other concepts like it. */
function effectBlock(concept, models) {
  const { effects } = data.header;
  const measured = models.filter((model) => effects?.scores[model]);
  if (!measured.length) return null;
  const scores = measured.map((model) => el("p.quiet", {}, modelTag(model), ` ${effects.scores[model]}`));
  const of = (stem) => measured.map((i) => measured.map((j) => (i === j ? 1 : valueOf(
    `${stem}:${Math.min(i, j)}:${Math.max(i, j)}`, concept))));
  const known = (stem) => of(stem).some((row, i) => row.some((value, j) => i !== j && value !== undefined && !Number.isNaN(
    value)));
  const stem = ["effects", "estimates"].find(known);
  const words = stem === "estimates" ? "Agreement of effects, to first order" : "Agreement of effects";
  const tables = stem ? [matrix(words, measured, of(stem)), matrix("Null: other concepts like it", measured, of(
    `${stem}Null`))] : [];
  return el("div.block", {}, el("h2", {}, "When it is ablated"), ...tables, stem ? el("p.quiet", {},
    "Do the same images change? Rank correlation of sizes over ", plural(effects.images, "image"), ".") : null, ...scores);
}

function neighbourList(title, unit, near) {
  if (!near.length) return el("div.block", {}, el("h2", {}, title), el("p.quiet", {}, "None."));
  const items = near.map(({ concept, score }) => el("li", {}, conceptLink(concept, smallStrip(concept), el(
    "span.neighbour-name", {}, conceptName(concept))), el("span.quiet", { title: unit }, shown(score))));
  return el("div.block", {}, el("h2", {}, title, el("small.quiet", {}, ` ${unit}`)), el("ol.neighbours", {}, ...items));
}

/** The strongest image of a concept in the first models, without heat maps. */
function smallStrip(concept) {
  const { shape, none } = data.arrays.shown;
  const [, models, n] = shape;
  const canvases = [];
  for (const model of visibleModels().slice(0, 3)) {
    const image = data.arrays.shown[(concept * models + model) * n];
    if (image !== none) canvases.push(pictureCanvas(image, needNow("strip", 0) && hasMaps() ? stripLevels(concept, model) :
      null, 40, `Strongest image of concept ${concept} in ${modelName(model)}`));
  }
  return el("span.small-strip", {}, ...canvases);
}

function stripLevels(concept, model) {
  const { maps } = needNow("strip", 0);
  const [, models, n, bytes] = maps.shape;
  return levelsOf(maps, (concept * models + model) * n * bytes, bytes);
}

function otherNumbers(concept) {
  const rows = [...columns.values()].filter((column) => !column.models.length).map((column) => el("tr", {}, el(
  "th", { scope: "row", title: column.help }, column.title), el("td", {}, shown(column.values[concept], column.digits))));
  if (!rows.length) return null;
  return el("div.block", {}, el("table.plain-table", {}, el("caption", {}, "Of the concept"), el("tbody", {}, ...rows)));
}
