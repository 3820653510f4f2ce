"""Explorers of made-up activations whose codes are known, and their data files, read as the page reads them."""

import base64
import gzip
import json
import re

import numpy as np

MODELS = ("a", "b", "c")
N_CONCEPTS = 24
N_IMAGES = 40
GRID = (3, 4)


def made_up(n_images=N_IMAGES, n_concepts=N_CONCEPTS, models=MODELS, grid=GRID, seed=0):
    """float32 activations that are codes: of each token two concepts, which models mostly share; the last one never fires."""
    rng = np.random.default_rng(seed)
    places = grid[0] * grid[1]
    shared = rng.random((n_images, places, n_concepts)) ** 4
    acts = {}
    for name in models:
        own = np.where(rng.random(shared.shape) < 0.8, shared, rng.random(shared.shape) ** 4)
        own[..., -1] = -1
        acts[name] = (own * (1 + np.arange(n_concepts) / n_concepts)).astype(np.float32)
    return acts


def pictures_of(n_images=N_IMAGES, side=32, seed=0):
    """uint8 pictures, each of one colour with a brighter part."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((n_images, side, side, 3), np.uint8)
    pictures[:] = rng.integers(0, 180, (n_images, 1, 1, 3))
    pictures[:, : side // 2, side // 2 :] += 60
    return pictures


TITLE = "</title><script>document.title='hacked'</script> & more"
HOSTILE = {
    0: "</script><script>document.title='hacked'</script>",
    1: "<img src=x onerror=\"document.title='hacked'\">",
    2: "‮مرحبا right to left",
    3: "y" * 10_000,
    4: "🦊 brown fur 毛皮",
    5: "{{data}} ${x} \u2028 \\u003c",
}

ENTRY = '{"text": "x", "starred": false}'
REPEATED = (
    f'{{"format": "usae-explorer-labels", "version": 1, "tensors": "", "labels": {{"7": {ENTRY}, "7": {ENTRY}}}}}',
    f'{{"format": "usae-explorer-labels", "version": 1, "tensors": "", "labels": {{"7": {ENTRY}, "07": {ENTRY}}}}}',
    f'{{"format": "usae-explorer-labels", "version": 1, "tensors": "", "labels": {{"7": {ENTRY}, "\\u0037": {ENTRY}}}}}',
    "concept,label,starred\r\n7,x,0\r\n7,y,0\r\n",
    "concept,label,starred\r\n7,x,0\r\n8,,1\r\n007,x,0\r\n",
)
"""Files of labels that name a concept twice."""

TYPES = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "i32": np.int32, "f32": np.float32}


def read(script):
    """(kind, number, build, content) of a data file; arrays of a layout are decoded into "arrays"."""
    arguments = re.fullmatch(r"usaeExplorer\.take\((.*)\);\n", script, re.DOTALL)[1]
    kind, number, build, content = json.loads(f"[{arguments}]")
    if "layout" in content:
        raw = gzip.decompress(base64.b64decode(content["data"]))
        content["arrays"] = {
            name: np.frombuffer(raw, TYPES[of], int(np.prod(shape)), offset).reshape(shape)
            for name, (of, offset, shape) in content["layout"].items()
        }
    return kind, number, build, content


def read_folder(folder):
    """Content by (kind, number)."""
    found = {}
    for file in (folder / "data").iterdir():
        kind, number, _, content = read(file.read_text())
        found[kind, number] = content
    return found


def levels(packed, places):
    """Heat maps [..., bytes] as levels [..., places]."""
    both = np.stack([packed >> 4, packed & 15], -1).reshape(*packed.shape[:-1], 2 * packed.shape[-1])
    return both[..., :places]
