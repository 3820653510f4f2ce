// Pictures, and heat maps on them.

const STYLES = [
  ["spotlight", "Spotlight", "Dark where the concept does not fire"],
  ["overlay", "Overlay", "Colours on the picture"],
  ["contour", "Contour", "A line around the upper half"],
  ["heat", "Heat map", "Colours alone"],
  ["plain", "Picture", "The picture alone"],
];
const SCALES = {
  viridis: ["440154", "481a6c", "472f7d", "414487", "39568c", "31688e", "2a788e", "23888e", "1f988b", "22a884", "35b779",
    "54c568", "7ad151", "a5db36", "d2e21b", "fde725"
  ],
  cividis: ["00204d", "00296f", "15396d", "2f476b", "41546c", "515f6d", "60696e", "6e7371", "7c7e74", "8a8878", "9a9476",
    "aaa073", "bcad6c", "d0bc62", "e4cb52", "ffe945"
  ],
};

const look = { style: "spotlight", scale: "viridis", smooth: false, strength: 0.8 };
const images = new Cache(800);
const bitmap = document.createElement("canvas");
const bitmapContext = bitmap.getContext("2d", { willReadFrequently: true });
let bitmapPixels = null;

const hasPictures = () => data.header.size !== null;
const hasMaps = () => data.header.grid !== null;

/** Width by height of a picture of the pool. */
function proportions() {
  const [height, width] = data.header.size ?? data.header.grid ?? [1, 1];
  return width / height;
}

const packOf = (image) => Math.floor(data.arrays.slots[image] / data.header.perFile.images);
const placeInPack = (image) => data.arrays.slots[image] % data.header.perFile.images;

/** The number of an image among the activations: images of the pool are those of every `imageStep`. */
const numberOf = (image) => image * data.header.imageStep;
const imageWords = (image) => `image ${numberOf(image)}`;

/** The place in the pool of the image of a number; null if it is not in the pool. */
function imageOf(number) {
  const image = number / data.header.imageStep;
  return Number.isInteger(image) && image >= 0 && image < data.header.nImages ? image : null;
}

async function nameOf(image) {
  const pack = await need("images", packOf(image));
  return pack.names?.[placeInPack(image)] ?? imageWords(image);
}

/** A picture, decoded; null if there is none, or if it is damaged. */
function pictureOf(image) {
  let found = images.get(image);
  if (found === undefined) {
    const pack = needNow("images", packOf(image));
    found = pack ? decodedPicture(pack, image) : need("images", packOf(image)).then((ready) => decodedPicture(ready, image));
    found = found.catch(() => null);
    const entry = found;
    found.then((picture) => (entry.now = picture));
    images.set(image, found);
  }
  return found;
}

/** The same if it is decoded already, else undefined. */
const pictureNow = (image) => images.get(image)?.now;

async function decodedPicture(pack, image) {
  const text = pack.pictures?.[placeInPack(image)];
  if (!text) return null;
  try { // an <img> would be kept by the browser too
    return await createImageBitmap(new Blob([bytesOf(text)], { type: "image/webp" }));
  } catch {
    tellOfPicture("images", packOf(image));
    return null;
  }
}

function tellOfPicture(kind, number) {
  notice(`data/${fileOf(kind, number)} is damaged (a picture in it cannot be read). Copy it again.`);
}

/** Draws a picture with a heat map into a part of a canvas. */
function paint(context, [x, y, width, height], picture, levels, style = look.style) {
  context.clearRect(x, y, width, height);
  if (picture && (style !== "heat" || !levels)) {
    context.imageSmoothingEnabled = true;
    context.drawImage(picture, x, y, width, height);
  } else if (!levels) {
    context.fillStyle = "#8884";
    context.fillRect(x, y, width, height);
  }
  if (!levels) return;
  const drawn = picture ? style : style === "plain" ? "plain" : "heat";
  if (drawn === "contour") contour(context, [x, y, width, height], levels);
  else if (drawn !== "plain") {
    tint(levels, drawn);
    context.imageSmoothingEnabled = look.smooth;
    context.drawImage(bitmap, x, y, width, height);
  }
}

/** Writes the colours of a heat map into `bitmap`, a pixel for each token. */
function tint(levels, style) {
  const [rows, columns] = data.header.grid;
  if (bitmap.width !== columns || bitmap.height !== rows)[bitmap.width, bitmap.height] = [columns, rows];
  bitmapPixels ??= bitmapContext.createImageData(columns, rows);
  const words = new Uint32Array(bitmapPixels.data.buffer);
  const table = tableOf(style);
  for (let i = 0; i < levels.length; i++) words[i] = table[levels[i]];
  bitmapContext.putImageData(bitmapPixels, 0, 0);
}

const tables = new Map();

/** The colour of each of 16 levels, as the bytes of an image: ABGR. */
function tableOf(style) {
  const key = `${style}/${look.scale}/${look.strength}`;
  let table = tables.get(key);
  if (table) return table;
  table = new Uint32Array(16);
  for (let level = 0; level < 16; level++) {
    const colour = parseInt(SCALES[look.scale][level], 16);
    let [red, green, blue] = [colour >> 16, (colour >> 8) & 255, colour & 255];
    let alpha = 1;
    if (style === "spotlight") {
      [red, green, blue] = [0, 0, 0];
      alpha = level ? look.strength * 0.65 * (1 - level / 15) : look.strength;
    } else if (style === "overlay") alpha = level ? look.strength * (0.55 + 0.45 * (level / 15)) : look.strength * 0.35;
    table[level] = ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  tables.set(key, table);
  return table;
}

function contour(context, [x, y, width, height], levels) {
  const [rows, columns] = data.header.grid;
  const most = levels.reduce((a, b) => Math.max(a, b), 0);
  if (!most) return;
  const inside = (row, column) =>
    row >= 0 && column >= 0 && row < rows && column < columns && levels[row * columns + column] >= most / 2;
  const path = new Path2D();
  const [stepX, stepY] = [width / columns, height / rows];
  for (let row = 0; row <= rows; row++) {
    for (let column = 0; column <= columns; column++) {
      const [left, top] = [x + column * stepX, y + row * stepY];
      if (inside(row, column) !== inside(row - 1, column)) {
        path.moveTo(left, top);
        path.lineTo(left + stepX, top);
      }
      if (inside(row, column) !== inside(row, column - 1)) {
        path.moveTo(left, top);
        path.lineTo(left, top + stepY);
      }
    }
  }
  for (const [colour, thick] of [
      ["#000c", 3.5],
      ["#ffe945", 1.75]
    ]) {
    context.strokeStyle = colour;
    context.lineWidth = thick * Math.max(1, width / 110);
    context.stroke(path);
  }
}

// Drawing waits for the next frames, each with a limit, so that scrolling and typing do not wait for it.

const DRAWING = 6; // milliseconds of a frame
const drawings = new Map();
let drawingFrame = 0;

/** Draws in one of the next frames. A later drawing of the same thing replaces an earlier one. */
function drawLater(key, action) {
  drawings.set(key, action);
  drawingFrame ||= requestAnimationFrame(drawSome);
}

function drawSome() {
  const until = performance.now() + DRAWING;
  for (const [key, action] of drawings) {
    drawings.delete(key);
    action();
    if (performance.now() > until) break;
  }
  drawingFrame = drawings.size ? requestAnimationFrame(drawSome) : 0;
}

/** A canvas that shows a picture with a heat map, and draws itself again when the look changes. */
function pictureCanvas(image, levels, width, label, style) {
  const height = Math.round(width / proportions());
  const scale = Math.min(2, window.devicePixelRatio || 1);
  const canvas = el("canvas.picture", { role: "img", "aria-label": label, style: { width: `${width}px`,
      height: `${height}px` } });
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  const draw = (picture) =>
    paint(canvas.getContext("2d"), [0, 0, canvas.width, canvas.height], picture, levels, style ?? look.style);
  canvas.redraw = (other = levels) => {
    levels = other;
    drawLater(canvas, () => {
      const now = hasPictures() ? pictureNow(image) : null;
      if (now !== undefined) draw(now);
      else pictureOf(image).then(draw);
    });
  };
  canvas.redraw();
  return canvas;
}

function redrawPictures() {
  for (const canvas of document.querySelectorAll("canvas.picture")) canvas.redraw?.();
}
