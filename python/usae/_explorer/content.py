"""The data files of an explorer, from what its passes over the images have found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from usae._explorer import packing
from usae._explorer.maps import NONE, Maps, Pairs
from usae._explorer.pictures import Pictures
from usae._explorer.search import Search
from usae.analysis.image_codes import Pool

FORMAT = "usae-explorer"
VERSION = 1
CONCEPTS_IN_FILE = 64
IMAGES_IN_FILE = 350
PATCHES_IN_FILE = 32
SHOWN_IN_LIST = 4
"""Examples of each model in a row of the list."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that goes into data files. `scale` are the largest codes [M, m] of the explorer's images."""

    header: dict[str, Any]
    columns: np.ndarray
    places: np.ndarray
    scale: np.ndarray
    pool: Pool
    search: Search
    pairs: Pairs
    maps: Maps
    silent: np.ndarray
    neighbours: Sequence[tuple[np.ndarray, np.ndarray]]
    gallery: np.ndarray
    pictures: Pictures | None
    size: tuple[int, int]
    crop: bool
    made: Sequence[tuple[int, dict[str, Any]]]


def scripts(found: Findings) -> Iterator[tuple[str, str]]:
    """Yield the names and contents of data files. Pictures are read on the way, and memory does not grow with their number."""
    layout, data = packing.packed(_index_arrays(found))
    header = found.header | {
        "format": FORMAT,
        "version": VERSION,
        "perFile": {"concepts": CONCEPTS_IN_FILE, "images": IMAGES_IN_FILE, "patches": PATCHES_IN_FILE},
        "gallery": found.gallery.tolist(),
        "made": [concept for concept, _ in found.made],
    }
    build = packing.digest(packing.quoted(header).encode(), data.encode())[:16]
    yield "index.js", packing.script("index", 0, build, {"header": header, "layout": layout, "data": data})
    yield "strip.js", _script("strip", 0, build, _strip_arrays(found))
    order = _image_order(found)
    for number, start in enumerate(range(0, len(order), IMAGES_IN_FILE)):
        yield f"images-{number:04}.js", _images(found, number, order[start : start + IMAGES_IN_FILE], build)
    if found.pictures is not None:
        found.pictures.tell()
    for number, start in enumerate(range(0, found.scale.shape[1], CONCEPTS_IN_FILE)):
        arrays = _concept_arrays(found, slice(start, min(start + CONCEPTS_IN_FILE, found.scale.shape[1])))
        yield f"concepts-{number:04}.js", _script("concepts", number, build, arrays)
    for number, start in enumerate(range(0, len(found.gallery), PATCHES_IN_FILE)):
        chosen = slice(start, start + PATCHES_IN_FILE)
        concepts, values = found.maps.patch_concepts[chosen], found.maps.patch_values[chosen]
        arrays = {"concepts": packing.unsigned(concepts), "values": _relative(values, concepts, found.scale)}
        yield f"patches-{number:04}.js", _script("patches", number, build, arrays)
    if found.made:
        yield "made-0000.js", packing.script("made", 0, build, {"images": {str(concept): one for concept, one in found.made}})


def _script(kind: str, number: int, build: str, arrays: dict[str, np.ndarray]) -> str:
    layout, data = packing.packed(arrays)
    return packing.script(kind, number, build, {"layout": layout, "data": data})


def _index_arrays(found: Findings) -> dict[str, np.ndarray]:
    shown = np.stack([ranked.images[:, :SHOWN_IN_LIST] for ranked in found.search.top], 1)
    return {
        "columns": packing.shortened(found.columns),
        "scale": packing.shortened(found.scale.T),
        "shown": packing.unsigned(shown),
        "places": packing.shortened(found.places),
        "slots": packing.unsigned(np.argsort(_image_order(found))),
    }


def _image_order(found: Findings) -> np.ndarray:
    """The order of images in files: as the list shows them first, so that its first rows need one file."""
    keys = [column["key"] for column in found.header["columns"]]
    concepts = np.argsort(-np.nan_to_num(found.columns[keys.index("energy:0")]), kind="stable")
    shown = np.stack([ranked.images[concepts, :SHOWN_IN_LIST] for ranked in found.search.top], 1).ravel()
    images, first = np.unique(shown[shown >= 0], return_index=True)
    rest = np.setdiff1d(np.arange(len(found.pool)), images)
    return np.concatenate([images[np.argsort(first)], rest])


def _strip_arrays(found: Findings) -> dict[str, np.ndarray]:
    """Heat maps of the images in rows of the list, each in the model whose example it is."""
    local = found.pairs.lists["top"][:, :, :SHOWN_IN_LIST]
    there = local != NONE
    pair = np.where(there, found.pairs.starts[:-1, None, None] + local, 0)
    model = np.arange(local.shape[1])[:, None]
    if not len(found.pairs):
        return {"maps": np.zeros((*local.shape, found.maps.maps.shape[-1]), np.uint8)}
    maps = found.maps.maps[pair, model]
    maps[~there] = 0
    return {"maps": maps}


def _concept_arrays(found: Findings, concepts: slice) -> dict[str, np.ndarray]:
    pairs, maps = found.pairs, found.maps
    of = slice(pairs.starts[concepts.start], pairs.starts[concepts.stop])
    arrays = {
        "starts": (pairs.starts[concepts.start : concepts.stop + 1] - pairs.starts[concepts.start]).astype(np.uint32),
        "images": packing.unsigned(pairs.images[of]),
        "peaks": packing.shortened(maps.peaks[of]),
        "spots": maps.places[of],
        "maps": maps.maps[of],
        "histogram": found.search.histogram[:, concepts].transpose(1, 0, 2).astype(np.uint32),
        "silent": packing.unsigned(found.silent[concepts]),
    }
    arrays |= {name: lists[concepts] for name, lists in pairs.lists.items()}
    for name, (numbers, scores) in zip(("alike", "together"), found.neighbours, strict=True):
        arrays |= {name: packing.unsigned(numbers[concepts]), f"{name}Score": packing.shortened(scores[concepts])}
    return arrays


def _images(found: Findings, number: int, images: np.ndarray, build: str) -> str:
    concepts, values = found.search.image_concepts[images], found.search.image_values[images]
    layout, data = packing.packed({"concepts": packing.unsigned(concepts), "values": _relative(values, concepts, found.scale)})
    content: dict[str, Any] = {"layout": layout, "data": data, "numbers": found.pool.images[images].tolist()}
    if found.pictures is not None:
        numbers = found.pool.images[images]
        content["pictures"] = [packing.text_of(one) for one in found.pictures.encoded(numbers, found.size, found.crop)]
        content["names"] = [found.pictures.name(int(i)) for i in numbers]
    return packing.script("images", number, build, content)


def _relative(values: np.ndarray, concepts: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return codes [images, M, ...] as shares of the largest in the model, in 255 steps."""
    model = np.arange(len(scale)).reshape(1, -1, *[1] * (values.ndim - 2))
    largest = scale[model, np.maximum(concepts, 0)]
    share = values / np.where(largest > 0, largest, 1)
    return np.where(concepts < 0, 0, np.clip(np.rint(share * 255), 1, 255)).astype(np.uint8)
