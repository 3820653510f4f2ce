// Numbers of concepts: which concepts a state selects, and in what order.

const columns = new Map(); // by key: title, models, help, digits, values

function readColumns() {
  const m = data.header.nConcepts;
  data.header.columns.forEach((described, i) => {
    columns.set(described.key, { ...described, values: data.arrays.columns.subarray(i * m, (i + 1) * m) });
  });
}

const modelName = (model) => data.header.models[model].name;

/** The full name of a column: what it is, and of which models. */
function titleOf(column) {
  return column.models.length ? `${column.title}, ${column.models.map(modelName).join(" and ")}` : column.title;
}

const valueOf = (key, concept) => columns.get(key)?.values[concept];

/** Smallest and largest value of a column; null if it has none. */
function rangeOf(column) {
  if (column.range === undefined) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of column.values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    column.range = low <= high ? [low, high] : null;
  }
  return column.range;
}

/** Where a value stands on a slider from 0 to 1: evenly, or by its logarithm where values differ by orders. */
function axisOf(column) {
  const range = rangeOf(column);
  if (!range || range[0] === range[1]) return null;
  const [low, high] = range;
  if (column.logarithmic === undefined) {
    const sorted = Float32Array.from(column.values.filter((value) => value > 0)).sort();
    const middle = sorted[sorted.length >> 1];
    column.logarithmic = low >= 0 && sorted.length > 2 && high / middle > 20;
    column.least = sorted[0];
  }
  if (!column.logarithmic) {
    return { to: (value) => (value - low) / (high - low), from: (share) => low + share * (high - low) };
  }
  const [first, last] = [Math.log(column.least), Math.log(high)];
  const gap = 0.04; // zeros stand before the smallest number
  return {
    to: (value) => (value <= 0 ? 0 : clamp(gap + ((1 - gap) * (Math.log(value) - first)) / (last - first), 0, 1)),
    from: (share) => (share < gap ? 0 : share >= 1 ? high : Math.exp(first + ((share - gap) / (1 - gap)) * (last - first))),
  };
}

/** How many concepts are in each of `n` parts of a column's axis. */
function histogramOf(column, n = 32) {
  if (column.histogram === undefined) {
    const axis = axisOf(column);
    column.histogram = new Array(n).fill(0);
    if (axis) {
      for (const value of column.values) {
        if (!Number.isNaN(value)) column.histogram[Math.min(n - 1, Math.floor(axis.to(value) * n))]++;
      }
    }
  }
  return column.histogram;
}

/** The columns of each model, as they are shown in one table. */
function columnsByModel() {
  const groups = new Map();
  for (const column of columns.values()) {
    if (column.models.length !== 1) continue;
    const stem = column.key.slice(0, column.key.lastIndexOf(":"));
    if (!groups.has(stem)) groups.set(stem, []);
    groups.get(stem).push(column);
  }
  return groups;
}

// --- Selection and order -----------------------------------------------------------------------------------------------

const selected = { key: null, order: new Uint32Array(0) };

/** Numbers of the concepts that a state selects, in its order. */
function orderOf(state) {
  const { sort, up, q, set, alive, dead, only, filters } = state;
  const key = JSON.stringify([sort, up, q, set, alive, dead, only, filters, labels.version]);
  if (selected.key !== key) {
    selected.key = key;
    selected.order = sorted(chosen(state), state);
  }
  return selected.order;
}

function chosen(state) {
  const m = data.header.nConcepts;
  const tests = [];
  for (const [key, [low, high]] of Object.entries(state.filters)) {
    const values = columns.get(key)?.values;
    if (values) tests.push((c) => values[c] >= (low ?? -Infinity) && values[c] <= (high ?? Infinity)); // NaN is in no range
  }
  for (const model of state.alive) {
    const values = columns.get(`firing:${model}`)?.values;
    if (values) tests.push((c) => values[c] > 0);
  }
  for (const model of state.dead) {
    const values = columns.get(`firing:${model}`)?.values;
    if (values) tests.push((c) => !(values[c] > 0));
  }
  if (state.set === "starred") tests.push((c) => labels.starred(c));
  if (state.set === "labelled") tests.push((c) => labels.texts(c).length > 0);
  if (state.set === "unlabelled") tests.push((c) => labels.texts(c).length === 0);
  if (state.q) {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    tests.push((c) => words.every((word) => labels.searched(c).includes(word)));
  }
  const found = new Uint32Array(m);
  let n = 0;
  const candidates = state.only && [...new Set(state.only)];
  for (let i = 0; i < (candidates ? candidates.length : m); i++) {
    const c = candidates ? candidates[i] : i;
    if (c < m && tests.every((test) => test(c))) found[n++] = c;
  }
  return found.slice(0, n);
}

function sorted(concepts, state) {
  if (state.only && !state.sort) return concepts;
  if (state.sort === "id") return state.up ? concepts : concepts.reverse();
  if (state.sort === "label") {
    const text = (c) => labels.text(c) || "\uffff";
    const compared = [...concepts].sort((a, b) => text(a).localeCompare(text(b)) || a - b);
    return Uint32Array.from(state.up ? compared : compared.reverse());
  }
  const values = columns.get(state.sort ?? defaultSort())?.values;
  if (!values) return concepts;
  const sign = state.up ? 1 : -1;
  return concepts.sort((a, b) => {
    const [one, other] = [values[a], values[b]];
    if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other) || a - b; // none is last
    return sign * (one - other) || a - b;
  });
}

/** The energy of the first model: what matters comes first. */
const defaultSort = () => (columns.has("energy:0") ? "energy:0" : columns.keys().next().value);
