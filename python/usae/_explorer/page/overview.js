// What is known of the whole autoencoder.

const overviewView = { node: el("div.view.overview") };

function updateOverview() {
  const { header } = data;
  const { overview } = header;
  document.title = `Overview · ${header.title}`;
  const models = header.models.map((_, i) => i);
  const facts = [
    [header.nConcepts.toLocaleString("en"), "concepts"],
    [models.length, models.length === 1 ? "model" : "models"],
    [header.nImages.toLocaleString("en"), header.nImages < header.nAllImages ?
      `images, of ${header.nAllImages.toLocaleString("en")}` : "images"
    ],
    [overview.tokens.toLocaleString("en"), "tokens evaluated"],
    [overview.deadEverywhere.toLocaleString("en"), "concepts that fire in no model"],
  ];
  const universal = columns.get("universal");
  if (universal) facts.splice(1, 0, [universal.values.reduce((sum, one) => sum + (one === 1), 0).toLocaleString("en"),
    "universal concepts"
  ]);
  replaceIn(
    overviewView.node,
    el("h1", {}, header.title),
    el("div.facts", {}, ...facts.map(([number, words]) => el("div.fact", {}, el("strong", {}, String(number)), el("span", {},
      words)))),
    el(
      "div.cards", {},
      el("section.card", {}, matrix("R2: encoded in the row, decoded to the column", models, overview.r2, { corner: "" }), el(
        "p.quiet", {},
        `Of ${plural(overview.tokens, "token")}, in each model's own units. 1 is perfect; predicting the mean is 0.`)),
      agreementCard(overview, models),
      el("section.card", {}, modelNumbers(overview, models)),
      entropyCard(),
      controlsCard(overview),
      el("section.card", {}, el("h2", {}, "What the numbers cannot show"), el("ul", {}, ...overview.limits.map((line) => el(
        "li", {}, line)))),
      el("section.card", {}, el("h2", {}, "Made with"), recipeList(header, overview)),
    ),
  );
}

/** Agreement, and beside it how high it could be. */
function agreementCard(overview, models) {
  if (models.length < 2) return null;
  const words = "Mean correlation of the codes of two models at the same index, weighted by energy in the row's model. ";
  return el(
    "section.card", {},
    matrix("Agreement of codes", models, overview.agreement),
    overview.ceiling ? matrix("Its ceiling: how well the column's activations predict the row's code", models, overview
      .ceiling) : null,
    el("p.quiet", {}, words, overview.ceiling ? "Compare it with its ceiling, and with its nulls below." :
      "No ceiling came with this explorer: controls=usae.controls(..., include=('agreement', ...)) brings it."),
  );
}

/** Numbers of each model, a model a row, so that they fit whatever their number. */
function modelNumbers(overview, models) {
  const numbers = [
    ["Width", (i) => shown(data.header.models[i].width, 0)],
    ["Active in a token", (i) => shown(overview.l0[i], 1)],
    ["Concepts alive", (i) => shown(overview.alive[i], 0)],
    ["Mean co-fire proportion", (i) => shown(overview.cofire[i], 3)],
  ];
  const head = el("tr", {}, el("td"), ...numbers.map(([title]) => el("th", { scope: "col" }, title)));
  const body = models.map((i) => el("tr", {}, el("th", { scope: "row" }, modelTag(i)), ...numbers.map(([, of]) => el("td", {},
    of(i)))));
  const table = el("table.plain-table.wraps", {}, el("caption", {}, "Models"), el("thead", {}, head), el("tbody", {}, ...body));
  return el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Numbers of models" }, table);
}

function entropyCard() {
  const column = columns.get("entropy");
  if (!column) return null;
  return el(
    "section.card", {},
    el("h2", {}, "Firing entropy"),
    el("div.tall", {}, bars(histogramOf(column), "Histogram of firing entropy")),
    el("div.axis", {}, el("span", {}, shown(rangeOf(column)?.[0])), el("span", {}, shown(rangeOf(column)?.[1]))),
    el("p.quiet", {},
      "0: fires in one model alone. 1: equally often in all. Even firing is not yet agreement: look at co-firing."),
  );
}

function controlsCard(overview) {
  const title = el("h2", {}, "Beside its controls");
  if (!overview.controls) {
    return el("section.card", {}, title, el("p.quiet", {},
      "No controls came with this explorer. usae.explorer(..., controls=usae.controls(...)) shows nulls and ceilings here: ",
      "without them no number says how much is chance."));
  }
  const rows = overview.controls.map(([name, cells]) => [name, Object.fromEntries(cells)]);
  const keys = [...new Set(overview.controls.flatMap(([, cells]) => cells.map(([key]) => key)))];
  const words = (key) => key.replaceAll("_", " ").replace("r2", "R2");
  const table = el(
    "table.plain-table", {},
    el("caption.visually-hidden", {}, "Controls"),
    el("thead", {}, el("tr", {}, el("td"), ...keys.map((key) => el("th", { scope: "col" }, words(key))))),
    el("tbody", {}, ...rows.map(([name, cells]) => el("tr", {}, el("th", { scope: "row" }, name), ...keys.map((key) => el(
      "td", {}, shown(cells[key], 3)))))),
  );
  return el("section.card.wide", {}, title, el("div.scrolls", { tabindex: "0", role: "region", "aria-label": "Controls" },
    table));
}

function recipeList(header, overview) {
  const pairs = [
    ["usae", header.package],
    ["concepts, k", `${overview.nConcepts.toLocaleString("en")}, ${overview.k}`],
    ["steps", overview.steps.toLocaleString("en")],
    ["seed", overview.seed],
    ["SHA-256 of the tensors", header.tensors],
    ["this explorer", data.build],
  ];
  const recipe = Object.entries(overview.recipe).map(([key, value]) => [key, value === null ? "–" : String(value)]);
  const listed = (entries) => el("dl.pairs", {}, ...entries.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {},
  value)]));
  return el("div", {}, listed(pairs), el("details", {}, el("summary", {}, "Recipe"), listed(recipe)), el("details", {}, el(
    "summary", {}, "Summary as text"), el("pre", { tabindex: "0" }, overview.summary)));
}
