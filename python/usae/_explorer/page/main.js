// The views, and the change from one to another.

const TABS = [
  ["list", "Concepts"],
  ["map", "Map"],
  ["images", "Images"],
  ["overview", "Overview"]
];
const viewNodes = {};
let drawnView = null;

function start() {
  readColumns();
  const kept = attempt(() => JSON.parse(localStorage.getItem("usae-explorer:look")));
  for (const key of Object.keys(look))
    if (kept && typeof kept[key] === typeof look[key]) look[key] = kept[key];
  if (!SCALES[look.scale]) look.scale = "viridis";
  if (!STYLES.some(([key]) => key === look.style)) look.style = "spotlight";
  labels.start();
  byId("waiting")?.remove();
  for (const [key, text] of TABS) {
    byId("tabs").append(el("a", { href: `#${key}`, "data-view": key, onclick: (event) => followed(event, { view: key }) },
      text));
  }
  byId("tools").append(
    el("button.icon", { type: "button", id: "theme", onclick: toggleTheme,
    title: "Light or dark (t)", "aria-label": "Light or dark" }, "◐"),
    el("button.icon", { type: "button", id: "show-help", onclick: showHelp, title: "Keys (?)", "aria-label": "Keys" }, "?"),
  );
  byId("skip").addEventListener("click", (event) => (event.preventDefault(), focusView()));
  makeHelp();
  Object.assign(viewNodes, { list: makeList(), c: conceptView.node, image: imageView.node, images: imagesView.node, map: mapView
      .node, overview: overviewView.node });
  for (const node of Object.values(viewNodes)) node.hidden = true;
  byId("main").append(...Object.values(viewNodes));
  const theme = attempt(() => localStorage.getItem("usae-explorer:theme"));
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  goWhereTheAddressSays();
}

/** Shows the state. `moved`: another view, or another concept or image. */
function render(moved) {
  for (const [key, node] of Object.entries(viewNodes)) node.hidden = key !== state.view;
  const tab = { c: "list", image: "images" } [state.view] ?? state.view;
  for (const link of byId("tabs").children) {
    if (link.dataset.view === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const update = { list: updateList, c: updateConcept, image: updateImage, images: updateImages, map: updateMap,
    overview: updateOverview } [state.view];
  if (state.view === "list") document.title = data.header.title;
  const done = update();
  if (moved && drawnView !== null) {
    if (state.view === "list") {
      const place = list.order.indexOf(state.concept);
      if (place >= 0) {
        list.active = place;
        showActiveRow();
        list.rows.find((row) => row.index === place)?.node.focus({ preventScroll: true });
      } else byId("main").focus({ preventScroll: true });
    } else if (state.view !== "c" && state.view !== "image") byId("main").focus({ preventScroll: true });
    else {
      viewNodes[state.view].scrollTop = 0;
      Promise.resolve(done).then(() => byId("title")?.focus({ preventScroll: true }));
    }
    say(document.title);
  }
  drawnView = state.view;
}

function toggleTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia(
    "(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  attempt(() => localStorage.setItem("usae-explorer:theme", document.documentElement.dataset.theme));
  if (state.view === "map") drawMap();
}
