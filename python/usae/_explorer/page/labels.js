// Labels and stars: in memory, in the browser's storage where there is one, and in files that people keep.

const LONGEST_LABEL = 20000; // characters: some are two of a text's length

const isTooLong = (text) => text.length > LONGEST_LABEL && [...text].length > LONGEST_LABEL;
/** A label as it is kept: without halves of characters, and not too long. */
const asLabel = (text) => {
  const whole = text.toWellFormed?.() ?? text;
  return (isTooLong(whole) ? [...whole].slice(0, LONGEST_LABEL).join("") : whole).trim();
};

const labels = {
  version: 0, // counts changes
  mine: new Map(), // of concepts: { text, starred }
  words: new Map(), // what a search looks through, by concept
  stored: true,

  key: () => `usae-explorer:${data.header.tensors}`,

  start() {
    this.mine.clear();
    const text = attempt(() => localStorage.getItem(this.key()));
    this.stored = attempt(() => (localStorage.setItem("usae-explorer:try", "1"), localStorage.removeItem("usae-explorer:try"),
      true), false);
    if (text) attempt(() => this.add(JSON.parse(text)));
    this.changed(false);
  },

  given: (concept) => data.header.labels[concept],
  proposed: (concept) => data.header.proposals?.[concept] ?? [],
  text(concept) {
    return this.mine.get(concept)?.text || this.given(concept)?.text || "";
  },
  texts(concept) {
    return [this.mine.get(concept)?.text, this.given(concept)?.text].filter(Boolean);
  },
  starred(concept) {
    return this.mine.get(concept)?.starred ?? this.given(concept)?.starred ?? false;
  },
  searched(concept) {
    let words = this.words.get(concept);
    if (words === undefined) {
      const proposals = this.proposed(concept).map(([word]) => word);
      words = [concept, ...this.texts(concept), ...proposals].join("\n").toLowerCase();
      this.words.set(concept, words);
    }
    return words;
  },

  write(concept, text) {
    this.put(concept, { text: asLabel(text), starred: this.starred(concept) });
  },
  star(concept) {
    this.put(concept, { text: this.mine.get(concept)?.text ?? "", starred: !this.starred(concept) });
    say(`Concept ${concept} ${this.starred(concept) ? "has a star" : "has no star"}`);
  },
  put(concept, entry) {
    const given = this.given(concept);
    if (!entry.text && entry.starred === (given?.starred ?? false)) this.mine.delete(concept);
    else this.mine.set(concept, entry);
    this.words.delete(concept);
    this.changed(true);
  },
  changed(save) {
    this.version++;
    if (save) {
      const kept = attempt(() => (localStorage.setItem(this.key(), JSON.stringify(this.file())), true), false);
      if (!kept && this.mine.size && this.stored) {
        notice("The browser does not keep labels here. Export them before you close the page.");
      }
      this.stored = kept;
    }
  },

  /** What is exported: the labels that were written here, and those that came with the page. */
  file() {
    const entries = {};
    const concepts = new Set([...this.mine.keys(), ...Object.keys(data.header.labels).map(Number)]);
    for (const concept of [...concepts].sort((a, b) => a - b)) {
      entries[concept] = { text: this.text(concept), starred: this.starred(concept) };
    }
    return { format: "usae-explorer-labels", version: 1, tensors: data.header.tensors, labels: entries };
  },
  asCsv() {
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = Object.entries(this.file().labels).map(([c, one]) => `${c},${quoted(one.text)},${one.starred ? 1 : 0}\r\n`);
    return `concept,label,starred\r\n${rows.join("")}`;
  },

  /** Takes labels of a file, and tells how many. Throws where the file is none; changes nothing then. */
  add(content) {
    const { format, version, labels: entries } = content ?? {};
    const isMapping = typeof entries === "object" && entries && !Array.isArray(entries);
    if (format !== "usae-explorer-labels" || version !== 1 || !isMapping) {
      throw new Error("it has no labels of an explorer");
    }
    const found = new Map();
    for (const [key, one] of Object.entries(entries)) {
      const { text = "", starred = false } = one ?? {};
      const concept = Number(key);
      const usable = /^\d+$/.test(key) && concept < data.header.nConcepts && typeof one === "object" && one && typeof text ===
        "string" && typeof starred === "boolean" && !isTooLong(text);
      if (!usable) throw new Error(`concept ${key.slice(0, 20)} has no label that can be used`);
      if (found.has(concept)) throw new Error(`concept ${concept} is in it twice`);
      found.set(concept, { text, starred });
    }
    for (const [concept, one] of found) {
      const given = this.given(concept);
      if (one.text === (given?.text ?? "") && one.starred === (given?.starred ?? false)) this.mine.delete(concept);
      else this.mine.set(concept, one);
    }
    this.words.clear();
    return found.size;
  },

  async import(file) {
    try {
      const text = (await file.text()).replace(/^\ufeff/, "");
      const content = text.trimStart().startsWith("{") ? fromJson(text) : fromCsv(text);
      const take = () => {
        try {
          const n = this.add(content);
          this.changed(true);
          render(false);
          say(`${plural(n, "label")} imported`);
        } catch (error) {
          notice(`${file.name} cannot be imported: ${error.message}.`);
        }
      };
      if (content.tensors && content.tensors !== data.header.tensors) {
        const button = el("button", { type: "button", onclick: take }, "Import anyway");
        notice(`${file.name} has labels of another autoencoder, in which a number is another concept.`, button);
      } else take();
    } catch (error) {
      notice(`${file.name} cannot be imported: ${error.message}.`);
    }
  },
};

function fromJson(text) {
  const content = JSON.parse(text);
  const key = repeatedKey(text);
  if (key !== null) throw new Error(`${key.slice(0, 20)} is in it twice`);
  return content;
}

/** A key that an object of a valid JSON text has twice, of which JSON.parse keeps the last; null if there is none. */
function repeatedKey(text) {
  const known = [];
  for (const [token, string, colon] of text.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}]/g)) {
    if (token === "{") known.push(new Set());
    else if (token === "}") known.pop();
    else if (colon) {
      const key = JSON.parse(string);
      if (known.at(-1).has(key)) return key;
      known.at(-1).add(key);
    }
  }
  return null;
}

function fromCsv(text) {
  const rows = csvRows(text);
  if (rows[0]?.slice(0, 3).join() !== "concept,label,starred") throw new Error("it does not begin with concept,label,starred");
  const entries = Object.create(null); // so that no key has another meaning
  for (const row of rows.slice(1)) {
    if (row.length === 1 && row[0] === "") continue;
    if (row.length < 3 || !["0", "1"].includes(row[2])) throw new Error("a line is not a number, a label, and 0 or 1");
    if (Object.hasOwn(entries, row[0])) throw new Error(`concept ${row[0].slice(0, 20)} is in it twice`);
    entries[row[0]] = { text: row[1], starred: row[2] === "1" };
  }
  return { format: "usae-explorer-labels", version: 1, tensors: "", labels: entries };
}

function csvRows(text) {
  const rows = [];
  const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n?|\n|$)/y;
  let row = [];
  while (pattern.lastIndex < text.length) {
    const found = pattern.exec(text);
    if (!found) throw new Error("its quotes do not match");
    row.push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
    if (found[3] !== ",") {
      rows.push(row);
      row = [];
    }
  }
  if (row.length) rows.push([...row, ""]); // the text ends with a comma
  return rows;
}

/** Hands a text to the user as a file. */
function download(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

window.addEventListener("storage", (event) => {
  if (data.header && event.key === labels.key()) {
    labels.start();
    labels.words.clear();
    render(false);
  }
});
