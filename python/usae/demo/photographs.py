"""Photographs that need no download, and crops of them.

The photographs are in the wheels of scikit-image and scikit-learn. Drawings, test patterns, second views of the same scene and
a blurred clock are not used. A straight line divides each photograph into a training region and a held-out region. The networks
and the autoencoder of the demonstration are never trained on a held-out pixel, so held-out crops are unseen pixels (but of
scenes whose other part was seen).
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from importlib.abc import Traversable  # moved in Python 3.14, so not for running code

CROP_SIDE = 64
"""Side of every crop after resizing, in pixels."""

SOURCE_SIDES = (48, 160)
"""Smallest and largest side of a crop in its photograph, in pixels. The largest side is smaller in small photographs."""

Split = Literal["train", "held_out"]

FLAT = 8.0
"""A crop is featureless if the standard deviation of every colour channel is below this, for colours from 0 to 255."""

FLAT_SHARE = 0.1
"""Share of featureless crops that are kept."""


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One photograph and the part of it that is held out.

    Attributes
    ----------
    name : str
        Unique name in lower case.
    image : ndarray of uint8, [H, W, 3]
        The photograph. Grey photographs have three equal channels.
    source : str
        Package and file from which it was read, and how it was changed.
    held_out_side : {"left", "right", "top", "bottom"}
        Side of the held-out region.
    held_out_fraction : float
        The held-out region's share of the width or height.
    """

    name: str
    image: np.ndarray
    source: str
    held_out_side: str
    held_out_fraction: float

    def region(self, split: Split) -> tuple[int, int, int, int]:
        """Return the box (top, left, bottom, right) of a split in pixels, half open. The two regions cover the photograph."""
        if split not in ("train", "held_out"):
            raise ValueError(f"split: expected 'train' or 'held_out', got {split!r}")
        height, width = self.image.shape[:2]
        side_by_side = self.held_out_side in ("left", "right")
        held_out_first = self.held_out_side in ("left", "top")
        length = width if side_by_side else height
        held_out_length = round(length * self.held_out_fraction)
        border = held_out_length if held_out_first else length - held_out_length
        low, high = (0, border) if held_out_first == (split == "held_out") else (border, length)
        return (0, low, height, high) if side_by_side else (low, 0, high, width)


@dataclasses.dataclass(frozen=True)
class Crops:
    """Square crops, resized to the same size.

    Attributes
    ----------
    images : ndarray of uint8, [n, 64, 64, 3]
        The crops.
    photograph : ndarray of int64, [n]
        Number of each crop's photograph in the list from which the crops were cut.
    boxes : ndarray of int64, [n, 4]
        Boxes (top, left, bottom, right) in pixels of that photograph, half open.
    """

    images: np.ndarray
    photograph: np.ndarray
    boxes: np.ndarray


class _Entry(NamedTuple):
    """The file of a photograph and its held-out part, which shows some of the subject where possible."""

    name: str
    package: str
    file: str
    side: str
    fraction: float


_CATALOGUE = (
    _Entry("astronaut", "skimage", "data/astronaut.png", "bottom", 0.30),
    _Entry("brick", "skimage", "data/brick.png", "right", 0.30),
    _Entry("camera", "skimage", "data/camera.png", "right", 0.30),
    _Entry("cat", "skimage", "data/chelsea.png", "left", 0.33),
    _Entry("cell", "skimage", "data/cell.png", "right", 0.27),
    _Entry("coffee", "skimage", "data/coffee.png", "right", 0.33),
    _Entry("coins", "skimage", "data/coins.png", "right", 0.33),
    _Entry("faces", "skimage", "data/lfw_subset.npy", "bottom", 0.30),
    _Entry("flower", "sklearn", "datasets/images/flower.jpg", "bottom", 0.36),
    _Entry("grass", "skimage", "data/grass.png", "right", 0.30),
    _Entry("gravel", "skimage", "data/gravel.png", "right", 0.30),
    _Entry("histology", "skimage", "data/ihc.png", "right", 0.30),
    _Entry("hubble", "skimage", "data/hubble_deep_field.jpg", "right", 0.30),
    _Entry("moon", "skimage", "data/moon.png", "bottom", 0.30),
    _Entry("motorcycle", "skimage", "data/motorcycle_left.png", "right", 0.33),
    _Entry("page", "skimage", "data/page.png", "right", 0.33),
    _Entry("pagoda", "sklearn", "datasets/images/china.jpg", "left", 0.33),
    _Entry("retina", "skimage", "data/retina.jpg", "right", 0.30),
    _Entry("rocket", "skimage", "data/rocket.jpg", "right", 0.33),
    _Entry("text", "skimage", "data/text.png", "right", 0.33),
)


def load() -> list[Photograph]:
    """Read every photograph.

    Returns
    -------
    list of Photograph
        The photographs, always in the same order (by name).

    Raises
    ------
    ImportError
        If scikit-image or scikit-learn is not installed, or its installed version no longer carries one of the files.
    """
    return [_read(entry) for entry in _CATALOGUE]


def crops(photographs: list[Photograph], split: Split, n: int, seed: int) -> Crops:
    """Cut `n` random square crops from one split.

    Sides are log-uniform between 48 and at most 160 pixels of the photograph, with the same range in both splits. Positions are
    uniform. Each crop is inside its region and is cut out before it is resized, so that the antialiasing filter does not cross
    the border either.

    Parameters
    ----------
    photographs : list of Photograph
        The photographs.
    split : {"train", "held_out"}
        The region to cut from.
    n : int
        Number of crops. Every photograph gives `n // len(photographs)` of them or one more.
    seed : int
        Seed of the crops. The same photographs, split, `n` and seed give the same crops.

    Returns
    -------
    Crops
        The crops.
    """
    if not photographs:
        raise ValueError("photographs: expected at least one, got an empty list; pass photographs.load()")
    if n < 0:
        raise ValueError(f"n: expected 0 or more crops, got {n}")
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(np.arange(n) % len(photographs))
    boxes = np.empty((n, 4), np.int64)
    images = np.empty((n, CROP_SIDE, CROP_SIDE, 3), np.uint8)
    for i, index in enumerate(chosen):
        boxes[i] = _random_box(photographs[index], split, generator)
        images[i] = _cut(photographs[index].image, boxes[i])
    return Crops(images, chosen.astype(np.int64), boxes)


def varied_crops(pictures: list[Photograph], split: Split, n: int, seed: int) -> Crops:
    """Return crops of which few are featureless.

    Out-of-focus background and the moon's plains fill half of some  If their crops were all kept, the concepts with
    the largest energy would all represent featureless crops.
    """
    drawn = crops(pictures, split, 2 * n, seed)
    contrast = drawn.images.reshape(2 * n, -1, 3).std(axis=1).max(axis=1)
    keep = (contrast >= FLAT) | (np.random.default_rng(seed).random(2 * n) < FLAT_SHARE)
    chosen = np.flatnonzero(keep)[:n]
    return Crops(drawn.images[chosen], drawn.photograph[chosen], drawn.boxes[chosen])


def _random_box(photograph: Photograph, split: Split, generator: np.random.Generator) -> tuple[int, int, int, int]:
    # The largest side fits into both regions. Otherwise the splits would differ by scale, and not only by what was trained on.
    regions = photograph.region("train"), photograph.region("held_out")
    largest = min(SOURCE_SIDES[1], *(min(bottom - top, right - left) for top, left, bottom, right in regions))
    if largest < SOURCE_SIDES[0]:
        raise ValueError(
            f"photographs: expected regions of at least {SOURCE_SIDES[0]} pixels, got {largest} in {photograph.name!r}; "
            "use a larger photograph or another held_out_fraction"
        )
    side = round(np.exp(generator.uniform(np.log(SOURCE_SIDES[0]), np.log(largest))))
    top, left, bottom, right = photograph.region(split)
    y = int(generator.integers(top, bottom - side, endpoint=True))
    x = int(generator.integers(left, right - side, endpoint=True))
    return y, x, y + side, x + side


def _cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    from PIL import Image

    top, left, bottom, right = box
    crop = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.asarray(crop.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC))


def _read(entry: _Entry) -> Photograph:
    path, source = _locate(entry), f"{entry.package}/{entry.file}"
    from PIL import Image  # scikit-image depends on it, and _locate has found scikit-image

    with path.open("rb") as file:
        if entry.name == "faces":
            # The size is doubled; otherwise a crop of 48 pixels would never show fewer than four faces.
            image = Image.fromarray(_sheet_of_faces(np.load(file))).resize((500, 500), Image.Resampling.BICUBIC)
            source += ", 100 faces on one sheet, doubled"
        else:
            image = Image.open(file).convert("RGB")
    if entry.name == "retina":
        # The size is halved; otherwise most crops would show a plain orange surface.
        image, source = image.reduce(2), source + ", halved"
    return Photograph(entry.name, np.array(image.convert("RGB")), source, entry.side, entry.fraction)


def _locate(entry: _Entry) -> Traversable:
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[entry.package]
    remedy = f"the demo's photographs come from {distribution}: pip install 'usae[demo]'"
    try:
        root = importlib.resources.files(entry.package)
    except ImportError as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == entry.package
        state = "is not installed" if is_missing else f"cannot be imported ({error})"
        raise ImportError(f"{distribution} {state}; {remedy}") from error
    path = root.joinpath(entry.file)
    if not path.is_file():
        raise ImportError(f"this version of {distribution} has no {entry.file}; {remedy}")
    return path


def _sheet_of_faces(patches: np.ndarray) -> np.ndarray:
    """Arrange the 100 faces, which are the first of `patches`, float [200, 25, 25] in 0..1, as uint8 [250, 250]."""
    sheet = patches[:100].reshape(10, 10, 25, 25).transpose(0, 2, 1, 3).reshape(250, 250)
    return np.round(np.clip(sheet, 0, 1) * 255).astype(np.uint8)
