"""The concept explorer at full size, in a browser: 6,144 concepts, 3 models, 8 examples, 10,000 made-up images.

    python benchmarks/explorer.py [--small] [--output FOLDER]

It needs Chromium, chromedriver and Selenium, as the tests do. Images and activations are made up as they are read, so that what
is measured is the explorer. It prints the table that docs/explorer.md refers to, with what is demanded beside what was found.
"""

import argparse
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

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


def made_up(n_images, seed=0):
    """float16 activations [images, tokens, width] with smooth maps of shared directions, some of them of one model alone."""
    rng = np.random.default_rng(seed)
    directions = {name: rng.standard_normal((400, WIDTH)).astype(np.float32) for name in MODELS}
    acts = {name: np.empty((n_images, 256, WIDTH), np.float16) for name in MODELS}
    rows, columns = np.mgrid[0:16, 0:16]
    for image in range(n_images):
        chosen = rng.choice(400, 6, replace=False)
        centres = rng.random((2, 6, 1, 1)) * 16
        maps = 3 * np.exp(-((rows - centres[0]) ** 2 + (columns - centres[1]) ** 2) / 18).reshape(6, 256)
        for place, name in enumerate(MODELS):
            there = (chosen % 5 != place) | (chosen % 5 > 2)
            noise = rng.standard_normal((256, WIDTH), np.float32) * 0.25
            acts[name][image] = (maps * there[:, None]).T.astype(np.float32) @ directions[name][chosen] + noise
    return acts


def measured(page, n_concepts):
    """What one explorer does in a browser, by name."""
    driver = driver_or_skip(1500, 900)
    browser, found = Page(driver), {}
    try:
        browser.open(page, "#list")
        browser.until("return document.querySelectorAll('.row').length > 4", seconds=60)
        found["first rows, ms"] = browser.js(ROWS_SHOWN)
        found["first contentful paint, ms"] = browser.js(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
        browser.until("return document.readyState === 'complete'", seconds=60)
        for name, script in ACTIONS.items():
            found[f"{name}, ms"] = max(browser.js(f"{TIMED} return timed(() => {{ {script} }})") for _ in range(3))
        browser.js("document.querySelector('#clear').click()")
        driver.set_script_timeout(120)
        for speed in (1500, 12000):
            mean, late, missing = driver.execute_async_script(SCROLL, speed)
            found[f"scroll {speed} px/s, mean frame, ms"] = mean
            found[f"scroll {speed} px/s, frames above 34 ms, %"] = late
            found[f"scroll {speed} px/s, pictures missing 100 ms after"] = missing
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


TIMED = (
    "const timed = (action) => { const from = performance.now(); action(); document.body.offsetHeight;"
    " return performance.now() - from; };"
)
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
const ready = () => document.querySelector('.concept-body .side');
const look = () => (ready() ? done(performance.now() - from) : requestAnimationFrame(look));
document.querySelector('.concept-body')?.remove();
location.hash = `c=${concept}&show=same`;
requestAnimationFrame(look);
"""
DEMANDED = {
    "first contentful paint, ms": 1000,
    "first rows, ms": 1500,
    "size, MB": 50,
    "sort, ms": 100,
    "filter, ms": 100,
    "search, ms": 100,
    "concept page, cold, ms": 300,
    "scroll 1500 px/s, mean frame, ms": 18,
    "scroll 1500 px/s, frames above 34 ms, %": 5,
    "scroll 1500 px/s, pictures missing 100 ms after": 0,
    "memory of the page, MB": 500,
    "console errors": 0,
    "network requests": 0,
    "building, s": 300,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="256 concepts and 300 images, to see that it works")
    parser.add_argument("--output", type=pathlib.Path, help="folder for the explorers; default: one that is removed")
    options = parser.parse_args()
    n_images, n_concepts = (300, 256) if options.small else (10_000, 6144)
    acts = made_up(n_images)
    some = {name: x[:: max(1, n_images // 800)] for name, x in acts.items()}
    sae = usae.UniversalSAE(n_concepts, 32).fit(some, steps=60, progress=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or pathlib.Path(temporary)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        page = usae.explorer(sae, acts, Photographs(n_images), folder / "folder", grid=GRID, progress=False)
        built = {"building, s": time.perf_counter() - start}
        built["building, MB more"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        joined = one_file(page.path.parent, folder / "one.html")
        tables = []
        for path, size in ((page.path, page.n_bytes), (joined, joined.stat().st_size)):
            tables.append(built | {"size, MB": size / 2**20} | measured(path, n_concepts))
            print(tables[-1], file=sys.stderr, flush=True)
    print(f"{n_concepts:,} concepts, {len(MODELS)} models, 8 examples, {n_images:,} images\n")
    print(f"{'':48}{'demanded':>10}{'folder':>10}{'one file':>10}")
    for name in tables[0]:
        demanded = f"{DEMANDED[name]:,}" if name in DEMANDED else ""
        print(f"{name:48}{demanded:>10}" + "".join(f"{table[name]:10,.1f}" for table in tables))


if __name__ == "__main__":
    main()
