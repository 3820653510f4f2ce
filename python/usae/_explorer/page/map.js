// The map of concepts: a view beside the list, not a proof of anything.

const mapView = { node: el("div.view.map"), made: false, cursor: -1, anchor: -1, box: null };

function updateMap() {
  document.title = `Map · ${data.header.title}`;
  if (!mapView.made) makeMap();
  mapView.colourBox.value = mapColour();
  drawMap();
}

const mapColour = () => state.colour ?? (columns.has("entropy") ? "entropy" : defaultSort());

function makeMap() {
  mapView.made = true;
  mapView.colourBox = selectBox("Colour by", columnOptions(), mapColour(), (key) => go({ colour: key }));
  const words = "Map of concepts. Arrow keys move to the next concept, Enter opens it. With Shift they draw a box, and Enter " +
    "lists the concepts in it.";
  mapView.canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": words });
  mapView.tip = el("div.tip", { hidden: true });
  mapView.frame = el("div.map-frame", {}, mapView.canvas, mapView.tip);
  mapView.scale = el("p.legend");
  mapView.count = el("p.quiet");
  const how = { pca: "Principal components of the dictionary rows, half by rank.", tsne: "t-SNE of the dictionary rows.",
    given: "Coordinates given by the maker." } [data.header.map];
  replaceIn(
    mapView.node,
    el("div.listbar", {}, el("h1", {}, "Map"), el("label.inline", {}, el("span.quiet", {}, "Colour by"), mapView.colourBox),
      mapView.scale, el("span.grow"), mapView.count),
    mapView.frame,
    el("p.caution", {}, el("strong", {}, "Distances on a map mislead. "),
      `${how} Two dimensions cannot keep distances of hundreds; the neighbours on a concept's page are exact. `,
      "Drag a box, or move with Shift and the arrow keys, to list the concepts in it."),
  );
  new ResizeObserver(() => drawMap()).observe(mapView.frame);
  const { canvas } = mapView;
  canvas.addEventListener("pointermove", (event) => {
    const at = [event.offsetX, event.offsetY];
    if (mapView.start) {
      mapView.box = [mapView.start, at];
      drawMap();
    } else point(nearestOnMap(at, 14));
  });
  canvas.addEventListener("pointerleave", () => point(-1));
  canvas.addEventListener("pointerdown", (event) => {
    mapView.start = [event.offsetX, event.offsetY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", (event) => {
    const [start, end] = [mapView.start, [event.offsetX, event.offsetY]];
    [mapView.start, mapView.box] = [null, null];
    if (!start) return;
    if (Math.hypot(end[0] - start[0], end[1] - start[1]) < 5) {
      const concept = nearestOnMap(end, 14);
      if (concept >= 0) go({ view: "c", concept });
    } else listBox(start, end);
  });
  canvas.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Enter" && mapView.anchor >= 0) {
      const [start, end] = mapView.box;
      forgetBox();
      listBox(start, end);
    } else if (event.key === "Enter" && mapView.cursor >= 0) go({ view: "c", concept: mapView.cursor });
    else if (event.key === "Escape" && mapView.anchor >= 0) forgetBox();
    else if (event.key in ways) moveOnMap(ways[event.key], event.shiftKey);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

/** Moves to the next concept in a direction; with a box, to one that stands between it and where the box began. */
function moveOnMap(way, boxed) {
  if (boxed && mapView.anchor < 0) mapView.anchor = mapView.cursor;
  if (!boxed && mapView.anchor >= 0) forgetBox();
  const next = nextOnMap(way);
  if (mapView.anchor >= 0) mapView.box = [onMap(mapView.anchor), onMap(next)];
  point(next, true);
}

function forgetBox() {
  [mapView.anchor, mapView.box] = [-1, null];
  drawMap();
}

/** Where a concept stands on the canvas, in pixels of the page. */
function onMap(concept) {
  const { places } = data.arrays;
  const [width, height] = [mapView.canvas.clientWidth, mapView.canvas.clientHeight];
  return [16 + places[2 * concept] * (width - 32), 16 + places[2 * concept + 1] * (height - 32)];
}

function drawMap() {
  const { canvas, frame } = mapView;
  if (!mapView.made || !frame.clientWidth) return;
  const scale = Math.min(2, window.devicePixelRatio || 1);
  const [width, height] = [frame.clientWidth, frame.clientHeight];
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const column = columns.get(mapColour());
  const axis = axisOf(column);
  const order = orderOf(state);
  const inside = new Uint8Array(data.header.nConcepts);
  for (const concept of order) inside[concept] = 1;
  const colours = SCALES[look.scale].map((one) => `#${one}`);
  const radius = clamp(90 / Math.sqrt(data.header.nConcepts), 1.6, 5);
  context.strokeStyle = "#888"; // ends of the scale are as dark or as light as the ground
  context.lineWidth = radius / 4;
  for (const pass of [0, 1]) {
    for (let concept = 0; concept < inside.length; concept++) {
      if (inside[concept] !== pass) continue;
      const [x, y] = onMap(concept);
      const value = column.values[concept];
      const known = axis && !Number.isNaN(value);
      context.globalAlpha = pass ? 0.85 : 0.18;
      context.fillStyle = pass && known ? colours[clamp(Math.floor(axis.to(value) * 16), 0, 15)] : "#888";
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
      if (pass) context.stroke();
    }
  }
  context.globalAlpha = 1;
  const ink = getComputedStyle(canvas).color;
  if (mapView.cursor >= 0) {
    const [x, y] = onMap(mapView.cursor);
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, radius + 4, 0, 7);
    context.stroke();
  }
  if (mapView.box) {
    const [
      [x, y],
      [right, bottom]
    ] = mapView.box;
    context.strokeStyle = ink;
    context.setLineDash([4, 3]);
    context.strokeRect(x, y, right - x, bottom - y);
    context.setLineDash([]);
  }
  const range = rangeOf(column);
  const strip = el("span.scale", { "aria-hidden": "true",
    style: { background: `linear-gradient(90deg, ${colours.join(",")})` } });
  replaceIn(mapView.scale, el("span", {}, shown(range?.[0], column.digits)), strip, el("span", {}, shown(range?.[1], column
    .digits)));
  mapView.count.textContent = `${order.length.toLocaleString("en")} of ${plural(data.header.nConcepts, "concept")} selected`;
}

function nearestOnMap([x, y], within) {
  let [best, distance] = [-1, within];
  for (let concept = 0; concept < data.header.nConcepts; concept++) {
    const [left, top] = onMap(concept);
    const away = Math.hypot(left - x, top - y);
    if (away < distance)[best, distance] = [concept, away];
  }
  return best;
}

/** The nearest concept of the selection in a direction, so that keys reach what the mouse does. */
function nextOnMap([right, down]) {
  const order = orderOf(state);
  if (mapView.cursor < 0) return order.length ? order[0] : -1;
  const [x, y] = onMap(mapView.cursor);
  let [best, cost] = [mapView.cursor, Infinity];
  for (const concept of order) {
    const [left, top] = onMap(concept);
    const ahead = (left - x) * right + (top - y) * down;
    const aside = Math.abs((left - x) * down) + Math.abs((top - y) * right);
    if (ahead > 0.5 && ahead + 2 * aside < cost)[best, cost] = [concept, ahead + 2 * aside];
  }
  return best;
}

function point(concept, spoken = false) {
  if (concept === mapView.cursor) return;
  mapView.cursor = concept;
  mapView.tip.hidden = concept < 0;
  if (concept >= 0) {
    const [x, y] = onMap(concept);
    const column = columns.get(mapColour());
    const value = `${titleOf(column)}: ${shown(column.values[concept], column.digits)}`;
    replaceIn(mapView.tip, el("strong", { dir: "auto" }, conceptName(concept)), el("span.quiet", {}, value), smallStrip(
      concept));
    const flip = x > mapView.canvas.clientWidth - 220;
    const top = clamp(y - 20, 0, mapView.canvas.clientHeight - 110);
    mapView.tip.style.transform = `translate(${x + (flip ? -14 : 14)}px, ${top}px) translateX(${flip ? "-100%" : "0"})`;
    if (spoken) say(`${conceptName(concept)}, ${value}`);
  }
  drawMap();
}

function listBox([x, y], [right, bottom]) {
  const [left, end] = [Math.min(x, right), Math.max(x, right)];
  const [top, low] = [Math.min(y, bottom), Math.max(y, bottom)];
  const found = [...orderOf(state)].filter((concept) => {
    const [across, down] = onMap(concept);
    return across >= left && across <= end && down >= top && down <= low;
  });
  drawMap();
  if (found.length) go({ view: "list", only: found.sort((a, b) => a - b) });
}
