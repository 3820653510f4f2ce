// Data files are scripts that call usaeExplorer.take: a page from a folder on disk may read nothing else.

const KINDS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i32: Int32Array, f32: Float32Array };
const KEPT = { concepts: 24, patches: 4, images: 1e9, strip: 1, made: 1 };

const data = {
  header: null, // what is said of the whole; null until it is there
  arrays: null, // of the index, by name
  build: null, // files of another explorer have another one
  folder: null, // address of the data files; null where all are in this page
  raw: new Map(), // contents of files that were not decoded yet
  ready: new Cache(1e9),
  waiting: new Map(),
};
const decodedOf = Object.fromEntries(Object.keys(KEPT).map((kind) => [kind, new Cache(KEPT[kind])]));

const fileOf = (kind, number) => (kind === "strip" ? "strip.js" : `${kind}-${String(number).padStart(4, "0")}.js`);

window.usaeExplorer = {
  take(kind, number, build, content) {
    const name = `${kind}/${number}`;
    if (kind === "index") {
      if (data.build !== null) return;
      data.build = build;
      const source = document.currentScript?.src;
      data.folder = source ? source.slice(0, source.lastIndexOf("/") + 1) : null;
    }
    if (data.folder === null) document.currentScript?.remove(); // its text would take as much memory as its content
    if (kind === "index") {
      begin(content);
      return;
    }
    const waiting = data.waiting.get(name);
    data.waiting.delete(name);
    if (build !== data.build) {
      const words = `data/${fileOf(kind, number)} belongs to another explorer. Copy the whole folder again.`;
      if (waiting) waiting.reject(new Error(words));
      else notice(words);
      return;
    }
    if (waiting) waiting.resolve(content);
    else data.raw.set(name, content);
  },
};

async function begin(content) {
  try {
    const { header } = content;
    if (header.format !== "usae-explorer" || header.version !== 1) {
      throw new Error(`The data is of version ${header.version}; this page reads version 1. Export it again.`);
    }
    data.arrays = await decoded(content);
    data.header = header;
    start();
  } catch (error) {
    fail(`data/index.js cannot be used: ${error.message}. Copy the whole folder again, or export it again.`);
  }
}

/** The page has nothing to show: says why. */
function fail(text) {
  byId("waiting")?.remove();
  notice(text);
}

window.addEventListener("load", () => {
  if (data.build === null) {
    fail(
      "data/index.js is missing or damaged. It has to lie beside this page: copy the whole folder, or unpack the archive first."
      );
  }
});

/** Contents of a data file, decoded: arrays by name, and what stands beside them. */
function need(kind, number) {
  const cache = decodedOf[kind];
  let found = cache.get(number);
  if (found === undefined) {
    found = taken(kind, number).then(decoded);
    found.then((value) => (found.now = value)).catch((error) => {
      cache.delete(number);
      notice(error.message.startsWith("data/") ? error.message :
        `data/${fileOf(kind, number)} is damaged (${error.message}). Copy it again.`);
    });
    cache.set(number, found);
  }
  return found;
}

/** The same if it is there already, else undefined. */
const needNow = (kind, number) => decodedOf[kind].get(number)?.now;

function taken(kind, number) {
  const name = `${kind}/${number}`;
  const raw = data.raw.get(name);
  if (raw !== undefined) {
    if (data.folder !== null) data.raw.delete(name); // it can be read again
    return Promise.resolve(raw);
  }
  return new Promise((resolve, reject) => {
    data.waiting.set(name, { resolve, reject });
    const lost = (words) => {
      if (data.waiting.delete(name)) reject(new Error(`data/${fileOf(kind, number)} ${words}. Copy it again.`));
    };
    if (data.folder === null) {
      if (document.readyState === "complete") lost("is not in this page");
      else window.addEventListener("load", () => lost("is not in this page"));
      return;
    }
    const script = document.createElement("script");
    script.src = data.folder + fileOf(kind, number);
    script.onload = () => {
      script.remove();
      lost("is damaged");
    };
    script.onerror = () => {
      script.remove();
      lost("is missing");
    };
    document.head.append(script);
  });
}

/** Turns the text of a file into arrays. gzip's own checksum finds damage. */
async function decoded(content) {
  if (content.layout === undefined) return content;
  const bytes = bytesOf(content.data);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const arrays = { ...content };
  delete arrays.data;
  for (const [name, [kind, offset, shape]] of Object.entries(content.layout)) {
    const length = shape.reduce((product, side) => product * side, 1);
    arrays[name] = new KINDS[kind](buffer, offset, length);
    arrays[name].shape = shape;
    arrays[name].none = kind === "u16" ? 0xffff : 0xffffffff;
  }
  return arrays;
}

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** Everything about one concept that is not in the index. */
async function conceptOf(concept) {
  const per = data.header.perFile.concepts;
  const file = await need("concepts", Math.floor(concept / per));
  const at = concept % per;
  const models = data.header.models.length;
  const first = file.starts[at];
  const numbers = (name, none) => {
    const [, ...shape] = file[name].shape;
    const size = shape.reduce((product, side) => product * side, 1);
    return [...file[name].subarray(at * size, (at + 1) * size)].map((value) => (value === none ? -1 : value));
  };
  const bytes = file.maps.shape[2];
  const rows = (name) => {
    const width = file[name].shape[2];
    const flat = numbers(name, 0xffff);
    return data.header.models.map((_, model) => (width ? flat.slice(model * width, (model + 1) * width) : []));
  };
  const near = (name) => {
    const scores = numbers(`${name}Score`);
    return numbers(name, file[name].none).map((other, i) => ({ concept: other, score: scores[i] })).filter((one) => one
      .concept >= 0);
  };
  return {
    concept,
    pairs: Array.from({ length: file.starts[at + 1] - first }, (_, i) => ({
      image: file.images[first + i],
      peaks: file.peaks.subarray((first + i) * models, (first + i + 1) * models),
      maps: data.header.models.map((_, model) => levelsOf(file.maps, ((first + i) * models + model) * bytes, bytes)),
    })),
    top: rows("top"),
    bands: rows("bands"),
    apart: rows("apart"),
    histogram: data.header.models.map((_, model) => {
      const bins = file.histogram.shape[2];
      return [...file.histogram.subarray((at * models + model) * bins, (at * models + model + 1) * bins)];
    }),
    silent: numbers("silent", file.silent.none).filter((image) => image >= 0),
    alike: near("alike"),
    together: near("together"),
  };
}

/** A heat map of 4 bits a token, as levels from 0 to 15; null without a grid. */
function levelsOf(maps, offset, bytes) {
  if (!bytes) return null;
  const levels = new Uint8Array(data.header.places);
  for (let i = 0; i < levels.length; i++) {
    const byte = maps[offset + (i >> 1)];
    levels[i] = i & 1 ? byte & 15 : byte >> 4;
  }
  return levels;
}
