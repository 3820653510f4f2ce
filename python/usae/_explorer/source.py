"""The images that an explorer shows, and their codes, some images at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np

from usae._base.warning import warn
from usae._core.autoencoder import Autoencoder
from usae._data.activations import Activations
from usae.errors import InvalidInputError

TOKENS_AT_ONCE = 16_384
"""Tokens of a model that are encoded together: with k = 32 their codes take 4 MB."""


@dataclasses.dataclass(frozen=True)
class ImageCodes:
    """Codes of some images from every model. An unused slot holds value 0 and the concept m, one more than there are.

    `numbers` are the images' places in the pool, `values` and `concepts` [M, images, tokens, slots].
    """

    numbers: np.ndarray
    values: np.ndarray
    concepts: np.ndarray

    def peaks(self, n_concepts: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each concept's largest code in each image, float32 [M, images, m], and its place in the grid, uint16."""
        n_models, n_images, n_places, _ = self.values.shape
        largest = np.zeros((n_models, n_images, n_concepts + 1), np.float32)
        place = np.zeros((n_models, n_images, n_concepts + 1), np.uint16)
        model, image = np.arange(n_models)[:, None, None], np.arange(n_images)[None, :, None]
        for p in range(n_places):  # the concepts of one token differ, so no place is written to twice
            at = model, image, self.concepts[:, :, p]
            larger = self.values[:, :, p] > largest[at]
            chosen = np.broadcast_to(model, larger.shape)[larger], np.broadcast_to(image, larger.shape)[larger], at[2][larger]
            largest[chosen], place[chosen] = self.values[:, :, p][larger], p
        return largest[:, :, :-1], place[:, :, :-1]


class Pool:
    """The images of an explorer: all images of the activations, or evenly spaced ones if there are too many.

    Attributes
    ----------
    images : ndarray of int64, [n]
        Numbers of the images in the activations.
    grid : (int, int) or None
        Rows and columns of tokens; None if they are not known.
    places : int
        Number of tokens of an image.
    """

    def __init__(self, autoencoder: Autoencoder, acts: Mapping[str, Activations], grid: tuple[int, int] | None, most: int):
        self._autoencoder, self._acts = autoencoder, acts
        first = next(iter(acts.values()))
        self.places = _places(acts, grid)
        self.grid = grid if grid is not None else _square(self.places)
        if self.grid is None and self.places > 1:
            warn(
                f"acts have {self.places} tokens of an image, which fill no square, so there are no heat maps: "
                + (
                    "drop the class token, x[:, 1:]"
                    if _square(self.places - 1)
                    else "drop class and register tokens, or give grid=(rows, columns)"
                )
            )
        self.n_all = first.n_rows // self.places
        self.images = np.arange(self.n_all)[:: -(-self.n_all // most)]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def at_once(self) -> int:
        """Number of images that are encoded together."""
        return max(1, TOKENS_AT_ONCE // self.places)

    def chunks(self, numbers: np.ndarray | None = None) -> Iterator[ImageCodes]:
        """Yield the codes of some images of the pool in order, by their places in it; all by default."""
        chosen = np.arange(len(self)) if numbers is None else numbers
        for start in range(0, len(chosen), self.at_once):
            yield self._encoded(chosen[start : start + self.at_once])

    def _encoded(self, numbers: np.ndarray) -> ImageCodes:
        slots, images = self._autoencoder.core.slots, self.images[numbers]
        shape = (len(self._acts), len(images) * self.places, slots)
        values, concepts = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
        rows = (images[:, None] * self.places + np.arange(self.places)).ravel()
        for place, (name, x) in enumerate(self._acts.items()):
            counts = slice(None) if x.rows is None else np.flatnonzero(np.isin(rows, x.rows, assume_unique=True))
            needed = rows[counts]
            if not len(needed):
                continue
            contiguous = needed[-1] - needed[0] + 1 == len(needed)
            part = x.whole.part(slice(int(needed[0]), int(needed[-1]) + 1) if contiguous else needed)
            found = np.empty((len(needed), slots), np.float32), np.empty((len(needed), slots), np.int32)
            self._autoencoder.core.encode(self._autoencoder.index(name), part.native, *found)
            values[place, counts], concepts[place, counts] = found
        concepts[concepts < 0] = self._autoencoder.n_concepts
        by_image = (len(self._acts), len(images), self.places, slots)
        return ImageCodes(numbers, values.reshape(by_image), concepts.reshape(by_image))


def _places(acts: Mapping[str, Activations], grid: tuple[int, int] | None) -> int:
    """Number of tokens of an image, by the arrays' shapes or the grid; 1 if neither says it."""
    of_shape = {x.array.shape[1] for x in acts.values() if x.array.ndim == 3}
    if len(of_shape) > 1:
        raise InvalidInputError(f"acts must have one number of tokens of an image for all models, got {sorted(of_shape)}")
    places = of_shape.pop() if of_shape else math.prod(grid) if grid else 1
    if grid is not None and math.prod(grid) != places:
        raise InvalidInputError(
            f"grid must have the {places} tokens of an image of acts, got {grid[0]} x {grid[1]} = {math.prod(grid)}; drop "
            f"class tokens first"
        )
    for x in acts.values():
        if x.n_rows % places:
            raise InvalidInputError(
                f"grid must divide the {x.n_rows} rows of {x.label} into whole images, got {places} tokens of an image; drop "
                f"class tokens first"
            )
    return places


def _square(places: int) -> tuple[int, int] | None:
    side = math.isqrt(places)
    return (side, side) if side > 1 and side * side == places else None
