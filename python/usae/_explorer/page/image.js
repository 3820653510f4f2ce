// All images to choose from, and the page of one image with its concepts.

const CHOICE = 104;
const MOST_DOTS = 5;
const imagesView = { node: el("div.view.images"), made: false };
const imageView = { node: el("div.view.image"), image: null, hovered: null };

// --- Choosing an image -------------------------------------------------------------------------------------------------

function updateImages() {
  document.title = `Images · ${data.header.title}`;
  if (imagesView.made) return drawImages();
  imagesView.made = true;
  const field = el("input", { type: "text", inputmode: "numeric", "aria-label": "Number of an image",
    placeholder: "Number of an image" });
  const step = data.header.imageStep;
  const stepWords = step > 1 ? `, in steps of ${step}` : "";
  const refuse = (words) => {
    field.setCustomValidity(words);
    field.reportValidity();
    say(words);
  };
  field.addEventListener("input", () => field.setCustomValidity(""));
  field.addEventListener("change", () => {
    const image = /^\s*\d+\s*$/.test(field.value) ? imageOf(Number(field.value)) : null;
    if (image !== null) go({ view: "image", image, patch: null, concept: null });
    else if (field.value.trim()) refuse(`There are images 0 to ${numberOf(data.header.nImages - 1)}${stepWords}.`);
  });
  const gallery = data.header.gallery.length;
  imagesView.grid = el("div.choices");
  imagesView.scroller = el("div.scroller", { tabindex: "0", role: "region", "aria-label": "Images" }, imagesView.grid);
  imagesView.tiles = new Map();
  imagesView.scroller.addEventListener("scroll", () => requestAnimationFrame(drawImages), { passive: true });
  new ResizeObserver(() => drawImages()).observe(imagesView.scroller);
  const { nImages, nAllImages } = data.header;
  const of = nImages < nAllImages ? ` of ${nAllImages.toLocaleString("en")}, evenly spaced` : "";
  const patches = hasMaps() ? `Single patches of ${gallery.toLocaleString("en")} can be looked at; they have a mark.` : "";
  const words = `${plural(nImages, "image")}${of}. ${patches}`;
  replaceIn(imagesView.node, el("div.listbar", {}, el("h1", {}, "Images"), field, el("p.quiet", {}, words)), imagesView
    .scroller);
  drawImages();
}

function drawImages() {
  const { scroller, grid, tiles } = imagesView;
  const width = scroller.clientWidth - 24;
  if (width <= 0) return;
  const across = Math.max(1, Math.floor((width + 8) / (CHOICE + 8)));
  const height = Math.round(CHOICE / proportions()) + 26;
  grid.style.height = `${Math.ceil(data.header.nImages / across) * height}px`;
  const first = Math.max(0, Math.floor(scroller.scrollTop / height) - 1) * across;
  const last = Math.min(data.header.nImages, (Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + 1) * across);
  for (const [image, node] of tiles) {
    if (image < first || image >= last) {
      node.remove();
      tiles.delete(image);
    }
  }
  for (let image = first; image < last; image++) {
    let node = tiles.get(image);
    if (!node) {
      const marked = data.header.gallery.includes(image) && hasMaps();
      const number = numberOf(image);
      node = imageLink(image, null, pictureCanvas(image, null, CHOICE, `Image ${number}`, "plain"), el("span.value", {}, String(
        number), marked ? el("small", { title: "Its patches can be looked at" }, "patches") : null));
      tiles.set(image, node);
      grid.append(node);
    }
    node.style.transform = `translate(${(image % across) * (CHOICE + 8)}px, ${Math.floor(image / across) * height}px)`;
  }
}

/** Moves the focus to another image, and shows it. */
function moveInImages(step) {
  const { scroller, grid, tiles } = imagesView;
  const now = [...tiles].find(([, node]) => node === document.activeElement)?.[0];
  const across = Math.max(1, Math.floor((scroller.clientWidth - 16) / (CHOICE + 8)));
  const height = Math.round(CHOICE / proportions()) + 26;
  const first = Math.ceil(scroller.scrollTop / height) * across;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across } [step];
  const image = clamp(now === undefined ? first : now + by, 0, data.header.nImages - 1);
  const top = Math.floor(image / across) * height;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  else if (top + height + grid.offsetTop > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + height + grid
    .offsetTop - scroller.clientHeight;
  drawImages();
  tiles.get(image)?.focus({ preventScroll: true });
}

// --- One image ---------------------------------------------------------------------------------------------------------

async function updateImage() {
  const { image } = state;
  const root = imageView.node;
  document.title = `Image ${numberOf(image)} · ${data.header.title}`;
  let pack;
  try {
    pack = await need("images", packOf(image));
  } catch {
    return replaceIn(root, emptyState("This image cannot be shown",
      "Its data file is missing or damaged. The message above says which."));
  }
  if (state.view !== "image" || state.image !== image) return;
  const name = await nameOf(image);
  const place = data.header.gallery.indexOf(image);
  const patches = place >= 0 && hasMaps() ? await need("patches", Math.floor(place / data.header.perFile.patches)).catch(() =>
    null) : null;
  if (state.view !== "image" || state.image !== image) return;
  imageView.patches = patches ? patchReader(patches, place % data.header.perFile.patches) : null;
  const step = (by, text) => {
    const target = image + by;
    return el("button", { type: "button", disabled: target < 0 || target >= data.header.nImages, onclick: () =>
    go({ image: target, patch: null }) }, by < 0 ? "←" : "→", el("span.visually-hidden", {}, text));
  };
  const big = bigPicture(image);
  imageView.concepts = el("section.image-concepts", { "aria-label": "Concepts", "aria-live": "polite" });
  replaceIn(
    root,
    el("div.crumbs", {}, el("button.plain", { type: "button", id: "back", onclick: () => goBack() }, state.concept !==
        null ? `← ${conceptName(state.concept)}` : "← Back"), el("span.grow", {}), el(
  "a", { href: addressOf({ view: "images" }), onclick: (event) => followed(event, { view: "images" }) }, "All images"),
      step(-1, "Previous image"), step(1, "Next image")),
    el("div.image-body", {}, el("div.stage", {}, el("h1", { tabindex: "-1", id: "title", dir: "auto" }, name), big, el(
        "p.quiet", {}, imageView.patches ? "Point at a patch, or move with the arrow keys; a click keeps it." :
      hasMaps() ? "The codes of this image's single patches are not kept here; its strongest concepts are." : ""),
      lookTools()), imageView.concepts),
  );
  listConcepts(pack, image);
}

function patchReader(file, row) {
  const [, models, places, slots] = file.concepts.shape;
  return {
    /** Concepts of a patch in a model: [concept, code], the strongest first. */
    at(model, place) {
      const start = ((row * models + model) * places + place) * slots;
      const found = [];
      for (let i = start; i < start + slots; i++) {
        const concept = file.concepts[i];
        if (concept !== file.concepts.none) found.push([concept, (file.values[i] / 255) * scaleOf(concept, model)]);
      }
      return found;
    },
    map(model, concept) {
      const levels = new Uint8Array(places);
      for (let place = 0; place < places; place++) {
        const start = ((row * models + model) * places + place) * slots;
        for (let i = start; i < start + slots; i++)
          if (file.concepts[i] === concept) levels[place] = Math.ceil((file.values[i] / 255) * 15);
      }
      return levels;
    },
  };
}

function bigPicture(image) {
  const width = clamp(Math.min(imageView.node.clientWidth - 48, 448), 160, 448);
  const canvas = pictureCanvas(image, null, width, `Image ${numberOf(image)}`, undefined);
  imageView.canvas = canvas;
  const box = el("div.big", { style: { width: canvas.style.width, height: canvas.style.height } }, canvas);
  if (!imageView.patches) return box;
  const [rows, columns_] = data.header.grid;
  const mark = el("div.patch", { hidden: true });
  const show = (place) => {
    mark.hidden = place === null;
    if (place === null) return;
    Object.assign(mark.style, { left: `${((place % columns_) / columns_) * 100}%`,
      top: `${(Math.floor(place / columns_) / rows) * 100}%`, width: `${100 / columns_}%`, height: `${100 / rows}%` });
  };
  const placeAt = (event) => {
    const area = box.getBoundingClientRect();
    const column = clamp(Math.floor(((event.clientX - area.left) / area.width) * columns_), 0, columns_ - 1);
    return clamp(Math.floor(((event.clientY - area.top) / area.height) * rows), 0, rows - 1) * columns_ + column;
  };
  const hover = (place) => {
    if (imageView.hovered === place) return;
    imageView.hovered = place;
    show(place ?? state.patch);
    listConcepts();
  };
  imageView.hovered = null;
  box.append(mark);
  assign(box, { tabindex: "0",
  role: "application", "aria-label": `Patches of ${imageWords(image)}: ${rows} rows, ${columns_} columns. Arrow keys move.` });
  box.addEventListener("pointermove", (event) => hover(placeAt(event)));
  box.addEventListener("pointerleave", () => hover(null));
  box.addEventListener("click", (event) => keep(placeAt(event)));
  box.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns_, ArrowDown: columns_ };
    if (event.key === "Escape" && state.patch !== null) keep(null);
    else if (event.key in steps) keep(clamp((state.patch ?? 0) + (state.patch === null ? 0 : steps[event.key]), 0, rows *
      columns_ - 1));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function keep(place) {
    state.patch = place === state.patch ? null : place;
    attempt(() => history.replaceState(null, "", addressOf()));
    show(state.patch);
    listConcepts();
  }
  if (state.patch !== null && state.patch >= rows * columns_) state.patch = null;
  show(state.patch);
  return box;
}

/** Lists the concepts of the image, or of the patch that is pointed at, by model; those of several models are marked. */
function listConcepts(pack = needNow("images", packOf(state.image)), image = state.image) {
  const place = imageView.patches ? (imageView.hovered ?? state.patch) : null;
  const models = visibleModels();
  const found = models.map((model) => (place === null ? strongestOf(pack, image, model) : imageView.patches.at(model, place)));
  const count = new Map();
  for (const list_ of found)
    for (const [concept] of list_) count.set(concept, (count.get(concept) ?? 0) + 1);
  const shared = [...count].filter(([, n]) => n === models.length && n > 1).length;
  const [, columns_] = data.header.grid ?? [0, 1];
  const title = place === null ? "Strongest concepts" :
    `Patch in row ${Math.floor(place / columns_) + 1}, column ${(place % columns_) + 1}`;
  const lists = models.map((model, i) => {
    if (!found[i].length) return emptyState("None", "No concept is active here.");
    return el("ol.active", {}, ...found[i].map(([concept, value]) => activeConcept(concept, value, model, count.get(
      concept), models.length)));
  });
  replaceIn(
    imageView.concepts,
    el("h2", {}, title),
    models.length > 1 ? el("p.quiet", {},
      `${plural(shared, "concept")} in all ${models.length} models. ${models.length > MOST_DOTS ? `1/${models.length}` :
        "●●●"} marks in how many models a concept is.`) : null,
    columnsOfModels(models, lists),
  );
}

function strongestOf(pack, image, model) {
  const at = placeInPack(image);
  const [, models, n] = pack.concepts.shape;
  const start = (at * models + model) * n;
  const found = [];
  for (let i = start; i < start + n; i++) {
    const concept = pack.concepts[i];
    if (concept !== pack.concepts.none) found.push([concept, (pack.values[i] / 255) * scaleOf(concept, model)]);
  }
  return found;
}

function activeConcept(concept, value, model, n, of) {
  const share = value / scaleOf(concept, model);
  const item = el(
    "li", { class: n === of && of > 1 ? "shared" : null, style: { "--share": share.toFixed(3) } },
    conceptLink(concept, conceptName(concept)),
    el("span.agreement", { "aria-label": of > 1 ? `in ${n} of ${of} models` : null, role: of > 1 ? "img" : null }, of < 2 ? "" :
      of > MOST_DOTS ? `${n}/${of}` : "●".repeat(n) + "○".repeat(of - n)),
    el("span.quiet", {}, shown(value)),
  );
  const showMap = async () => {
    let levels = imageView.patches?.map(model, concept) ?? null;
    if (!levels && hasMaps()) {
      const pair = (await conceptOf(concept).catch(() => null))?.pairs.find((one) => one.image === state.image);
      levels = pair?.maps[model] ?? null;
    }
    if (item.matches(":hover, :focus-within")) imageView.canvas.redraw(levels);
  };
  item.addEventListener("pointerenter", showMap);
  item.addEventListener("focusin", showMap);
  for (const end of ["pointerleave", "focusout"]) item.addEventListener(end, () => imageView.canvas.redraw(null));
  return item;
}
