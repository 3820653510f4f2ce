"""The concept explorer at full size, in a browser: 6,144 concepts, 3 models, 8 examples, 10,000 made-up images.

    python benchmarks/explorer.py [--small] [--output FOLDER] [--demo FILE]

It needs Chromium, chromedriver and Selenium, as the tests do. Activations are made up into files that are mapped into memory,
and images as they are read, so that what is measured is the explorer. It prints the table of docs/explorer.md, with what is
demanded beside what was found: of a folder, of one file, and of the page that `usae demo` wrote. The memory for building is
what belongs to the process alone (RssAnon), at its largest, beyond what it was before. It is measured at a fourth of the images
too: it must not grow with their number.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
import threading
import time

import numpy as np
from own_process import in_own_process

import usae
from usae._explorer import files

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python" / "tests"))
from support.browser import Page, driver_or_skip  # noqa: E402

MODELS, WIDTH, GRID = ("dinov2", "siglip", "vit"), 48, (16, 16)


class Photographs:
    """Smooth noise that compresses as photographs do, a picture for each number."""

    def __init__(self, n, side=112):
        self.n, self.side = n, side

    def __len__(self):
        return self.n

    def __getitem__(self, number):
        from PIL import Image

        rng = np.random.default_rng(number)
        layers = np.zeros((self.side, self.side, 3))
        for cells, weight in ((4, 110), (14, 60), (56, 28)):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            layers += (np.asarray(noise.resize((self.side, self.side), Image.Resampling.BICUBIC)) / 255 - 0.5) * weight * 1.6
        return np.clip(layers + 128, 0, 255).astype(np.uint8)


def make_up(folder, n_images, seed=0):
    """Write float16 activations [images, tokens, width]: smooth maps of shared directions, some of them of one model alone."""
    rng = np.random.default_rng(seed)
    directions = {name: rng.standard_normal((400, WIDTH)).astype(np.float32) for name in MODELS}
    shape = (n_images, 256, WIDTH)
    acts = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape) for name in MODELS}
    rows, columns = np.mgrid[0:16, 0:16]
    for image in range(n_images):
        chosen = rng.choice(400, 6, replace=False)
        centres = rng.random((2, 6, 1, 1)) * 16
        maps = 3 * np.exp(-((rows - centres[0]) ** 2 + (columns - centres[1]) ** 2) / 18).reshape(6, 256)
        for place, name in enumerate(MODELS):
            there = (chosen % 5 != place) | (chosen % 5 > 2)
            noise = rng.standard_normal((256, WIDTH), np.float32) * 0.25
            acts[name][image] = (maps * there[:, None]).T.astype(np.float32) @ directions[name][chosen] + noise


def read(folder, n_images):
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r")[:n_images] for name in MODELS}


def build(folder, n_images, output):
    """Seconds and memory that an explorer of so many images takes, in a process of its own."""
    sae, acts = usae.load(folder / "sae"), read(folder, n_images)
    with peak_memory() as found:
        start, used = time.perf_counter(), time.process_time()
        usae.explorer(sae, acts, Photographs(n_images), output, grid=GRID, progress=False)
        found["building, s"], found["processors, s"] = time.perf_counter() - start, time.process_time() - used
    return found


@contextlib.contextmanager
def peak_memory():
    """Measure this process's own memory, in MB beyond what it is now. It is looked at every 20 ms."""

    def own():
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) / 1024

    def look():
        while not done.wait(0.02):
            found["building, MB"] = max(found["building, MB"], own() - before)

    before, done, found = own(), threading.Event(), {"building, MB": 0.0}
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def measured(page, n_concepts=None):
    """What one explorer does in a browser, by name. Without a number of concepts, it is asked for that."""
    driver = driver_or_skip("chromium", 1500, 900)
    browser, found = Page(driver), {}
    try:
        browser.open(page, "#list")
        browser.until("return document.querySelectorAll('.row').length > 4", seconds=60)
        found["first rows, ms"] = browser.js(ROWS_SHOWN)
        found["first contentful paint, ms"] = browser.js(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
        browser.until("return document.readyState === 'complete'", seconds=60)
        driver.set_script_timeout(120)
        for name, script in ACTIONS.items():
            found[f"{name}, ms"] = max(driver.execute_async_script(TIMED.replace("ACTION", script)) for _ in range(3))
        browser.js("document.querySelector('#clear').click()")
        for speed in (1500, 12000):
            mean, late, missing = driver.execute_async_script(SCROLL, speed)
            found[f"scroll {speed} px/s, mean frame, ms"] = mean
            found[f"scroll {speed} px/s, frames above 34 ms, %"] = late
            found[f"scroll {speed} px/s, pictures missing 100 ms after"] = missing
        n_concepts = n_concepts or int(browser.text("#count").split()[-2].replace(",", ""))
        cold = []
        for share in (0.3, 0.5, 0.7, 0.9):  # of which no file was read before
            cold.append(driver.execute_async_script(CONCEPT, int(share * n_concepts)))
        found["concept page, cold, ms"] = max(cold)
        driver.execute_cdp_cmd("Performance.enable", {})
        metrics = {x["name"]: x["value"] for x in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
        found["JavaScript's memory, MB"] = metrics["JSHeapUsedSize"] / 2**20
        found["memory of the page, MB"] = renderer_memory(driver)
        console, requests = browser.logs()
        found["console errors"], found["network requests"] = len(console), len(requests)
        found["axe violations"] = 0
        for address, ready in VIEWS.items():
            browser.open(page, f"#{address}").until(f"return document.querySelector('{ready}')", seconds=60)
            found["axe violations"] += len(browser.violations())
    finally:
        driver.quit()
    return found


def one_file(folder, path):
    """The same as `usae.explorer(..., one_file=True)` makes, from the files of a folder."""
    order = ("index", "strip", "images", "concepts", "patches")
    names = sorted((folder / "data").iterdir(), key=lambda file: (order.index(file.stem.partition("-")[0]), file.name))
    files.write_file(path, "one file", ((file.name, file.read_text()) for file in names))
    return path


def renderer_memory(driver):
    """Resident memory of the largest renderer among the processes of this browser, in MB."""
    sizes = [0]
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
        except OSError:
            continue
    todo = [driver.service.process.pid]
    while todo:
        process = todo.pop()
        todo += children.get(process, [])
        try:
            if "--type=renderer" in pathlib.Path(f"/proc/{process}/cmdline").read_text():
                status = pathlib.Path(f"/proc/{process}/status").read_text()
                sizes.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
        except OSError:
            continue
    return max(sizes)


TIMED = """
const [done] = arguments;
const from = performance.now();
ACTION;
requestAnimationFrame(() => setTimeout(() => done(performance.now() - from)));  // after the next frame
"""
ROWS_SHOWN = "return performance.getEntriesByName('usae-rows')[0]?.startTime ?? performance.now()"
ACTIONS = {
    "sort": "const s = document.querySelector('#sort'); s.value = s.options[(s.selectedIndex + 3) % s.options.length].value;"
    " s.dispatchEvent(new Event('change'))",
    "filter": "const s = document.querySelector('.range input.lower'); s.value = 20 + Math.random() * 100;"
    " s.dispatchEvent(new Event('input'))",
    "search": "const s = document.querySelector('#search'); s.value = String(Math.trunc(Math.random() * 90));"
    " s.dispatchEvent(new Event('input'))",
}
SCROLL = """
const [speed, done] = arguments;
const box = document.querySelector('.list .scroller');
box.scrollTop = 0;
const frames = [];
let last = null;
const from = performance.now();
function step(now) {
  if (last !== null) frames.push(now - last);
  last = now;
  box.scrollTop = ((now - from) / 1000) * speed;
  if (now - from < 5000) requestAnimationFrame(step);
  else setTimeout(() => {
    const blank = (canvas) => {
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let n = 0;
      for (let x = 20; x < canvas.width; x += 126) if (!pixels[4 * (20 * canvas.width + x) + 3]) n++;
      return n;
    };
    const area = box.getBoundingClientRect();
    const rows = [...document.querySelectorAll('.row')].filter((row) => {
      const r = row.getBoundingClientRect();
      return r.bottom > area.top && r.top < area.bottom;
    });
    const strips = rows.flatMap((row) => [...row.querySelectorAll('.strip')]);
    const firing = strips.filter((strip) => !strip.textContent.includes('not fire'));
    const missing = firing.reduce((sum, strip) => sum + blank(strip.querySelector('canvas')), 0);
    const mean = frames.reduce((a, b) => a + b, 0) / frames.length;
    done([mean, (100 * frames.filter((x) => x > 34).length) / frames.length, missing]);
  }, 100);
}
requestAnimationFrame(step);
"""
CONCEPT = """
const [concept, done] = arguments;
const from = performance.now();
const drawn = new Set();
const inSight = (canvas) => canvas.getBoundingClientRect().top < innerHeight;
const isDrawn = (canvas) => drawn.has(canvas) || (canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1,
  1).data[3] > 0 && drawn.add(canvas));
const ready = () => document.querySelector('.concept-body .side') &&
  [...document.querySelectorAll('.concept-body canvas.picture')].filter(inSight).every(isDrawn);
const look = () => (ready() ? done(performance.now() - from) : requestAnimationFrame(look));
document.querySelector('.concept-body')?.remove();
location.hash = `c=${concept}&show=same`;
requestAnimationFrame(look);
"""
VIEWS = {"list": ".row", "c=1": ".concept-body .side", "images": ".choices .tile", "image=1": ".active li",
         "map": ".map canvas", "overview": ".card"}  # fmt: skip
DEMANDED = {
    "building, s": 300,
    "size, MB": 50,
    "first contentful paint, ms": 1000,
    "first rows, ms": 1500,
    "sort, ms": 100,
    "filter, ms": 100,
    "search, ms": 100,
    "concept page, cold, ms": 300,
    "scroll 1500 px/s, mean frame, ms": 18,
    "scroll 1500 px/s, frames above 34 ms, %": 5,
    "scroll 1500 px/s, pictures missing 100 ms after": 0,
    "scroll 12000 px/s, mean frame, ms": 18,
    "scroll 12000 px/s, frames above 34 ms, %": 5,
    "scroll 12000 px/s, pictures missing 100 ms after": 0,
    "memory of the page, MB": 500,
    "console errors": 0,
    "network requests": 0,
    "axe violations": 0,
}
DEMO_SIZE = 4


def show(tables):
    """Print the table in Markdown, with what is demanded."""
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    print("| | demanded | " + " | ".join(tables) + " |\n|---|---:|" + "---:|" * len(tables))
    for name in names:
        demanded = f"{DEMANDED[name]:,}" if name in DEMANDED else ""
        if name == "size, MB" and "demo" in tables:
            demanded += f"; demo {DEMO_SIZE}"
        cells = [f"{table[name]:,.{0 if table[name] >= 100 or table[name] == 0 else 1}f}" if name in table else ""
                 for table in tables.values()]  # fmt: skip
        print(f"| {name} | {demanded} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="256 concepts and 300 images, to see that it works")
    parser.add_argument("--output", type=pathlib.Path, help="folder for the explorers; default: one that is removed")
    parser.add_argument("--demo", type=pathlib.Path, help="explorer.html of usae demo, for one more column")
    options = parser.parse_args()
    n_images, n_concepts = (300, 256) if options.small else (10_000, 6144)
    with tempfile.TemporaryDirectory() as temporary:
        given = pathlib.Path(temporary)
        make_up(given, n_images)
        some = {name: np.ascontiguousarray(x[:: max(1, n_images // 800)]) for name, x in read(given, n_images).items()}
        usae.UniversalSAE(n_concepts, 32).fit(some, steps=60, progress=False).save(given / "sae")
        folder = options.output or given
        part = in_own_process(build, given, n_images // 4, given / "part")
        built = in_own_process(build, given, n_images, folder / "folder")
        built = {
            "building, s": built["building, s"],
            "building, s of one core": built["processors, s"],
            f"building, MB, {n_images // 4:,} images": part["building, MB"],
            f"building, MB, {n_images:,} images": built["building, MB"],
        }
        print(built, file=sys.stderr, flush=True)
        pages = {"folder": folder / "folder" / "index.html"}
        pages["one file"] = one_file(pages["folder"].parent, folder / "one.html")
        if options.demo:
            pages["demo"] = options.demo.resolve()
        tables = {}
        for name, page in pages.items():
            size = sum(file.stat().st_size for file in page.parent.rglob("*") if file.is_file())
            size = {"size, MB": (size if name == "folder" else page.stat().st_size) / 2**20}
            tables[name] = (built if name != "demo" else {}) | size | measured(page, n_concepts if name != "demo" else None)
            print(name, tables[name], file=sys.stderr, flush=True)
    print(f"{n_concepts:,} concepts, {len(MODELS)} models, 8 examples, {n_images:,} images\n")
    show(tables)


if __name__ == "__main__":
    main()
