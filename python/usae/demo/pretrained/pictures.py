"""Photographs for the pretrained networks, and crops of them. Whole photographs are held out.

They are those of `usae.demo.pretrained.shipped`, those of `usae.demo.photographs`, and the portrait of Grace Hopper that
matplotlib brings.
"""

from __future__ import annotations

import importlib.resources

import numpy as np

from usae.demo import photographs
from usae.demo.photographs import Crops, Photograph, Split
from usae.demo.pretrained import shipped

SIDE = 320
"""Side of every crop after resizing, in pixels."""

SHARES = (0.4, 1.0)
"""Smallest and largest side of a crop, as a share of the shorter side of its photograph."""

HELD_OUT = frozenset(
    {"cat", "gravel", "hopper", "moon", "pagoda", "text"}
    | {entry.name for entry in shipped.catalogue() if entry.split == "held out"}
)
"""Photographs that are not trained on. Something like each of them is among the others: fur, towers, fish, and so on."""


def load() -> list[Photograph]:
    """Read every photograph, always in the same order.

    Raises
    ------
    ImportError
        If scikit-image, scikit-learn or matplotlib is not installed, or its version no longer has one of the files.
    """
    sources = {entry.name: f"{entry.package}: {entry.file}" for entry in shipped.catalogue()}
    found = [Photograph(name, image, sources[name], "bottom", 0.3) for name, image in shipped.images().items()]
    return [*found, *photographs.load(), _hopper()]


def crops(pictures: list[Photograph], split: Split, n: int, seed: int) -> Crops:
    """Cut `n` random square crops from the photographs of one split, about as many from each.

    Half of the training crops are mirrored.

    Parameters
    ----------
    pictures : list of Photograph
        The photographs.
    split : {"train", "held_out"}
        Whether to cut from those named in `HELD_OUT` or from the others.
    n : int
        Number of crops.
    seed : int
        Seed of the crops.

    Returns
    -------
    Crops
        Images, uint8 [n, 320, 320, 3], the numbers of their photographs, and their boxes.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split: expected 'train' or 'held_out', got {split!r}")
    if n < 0:
        raise ValueError(f"n: expected 0 or more crops, got {n}")
    chosen = [i for i, picture in enumerate(pictures) if (picture.name in HELD_OUT) == (split == "held_out")]
    if not chosen:
        raise ValueError("pictures: expected at least one of the split, got none; pass pictures.load()")
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(np.resize(chosen, n)).astype(np.int64)
    boxes = np.empty((n, 4), np.int64)
    images = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i, number in enumerate(numbers):
        boxes[i] = _box(pictures[number].image.shape, generator)
        images[i] = _cut(pictures[number].image, boxes[i])
        if split == "train" and generator.random() < 0.5:
            images[i] = images[i, :, ::-1]
    return Crops(images, numbers, boxes)


def _box(shape: tuple[int, ...], generator: np.random.Generator) -> tuple[int, int, int, int]:
    height, width = shape[:2]
    side = round(min(height, width) * np.exp(generator.uniform(*np.log(SHARES))))
    top, left = (int(generator.integers(0, length - side, endpoint=True)) for length in (height, width))
    return top, left, top + side, left + side


def _cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    from PIL import Image  # scikit-image depends on it

    top, left, bottom, right = box
    crop = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _hopper() -> Photograph:
    from PIL import Image

    file = "mpl-data/sample_data/grace_hopper.jpg"
    remedy = "the photograph of Grace Hopper comes from matplotlib: pip install 'usae[demo]'"
    try:
        path = importlib.resources.files("matplotlib").joinpath(file)
    except ImportError as error:
        raise ImportError(f"matplotlib is not installed; {remedy}") from error
    if not path.is_file():
        raise ImportError(f"this version of matplotlib has no {file}; {remedy}")
    with path.open("rb") as stream:
        image = np.array(Image.open(stream).convert("RGB"))
    return Photograph("hopper", image, f"matplotlib/{file}", "bottom", 0.3)
