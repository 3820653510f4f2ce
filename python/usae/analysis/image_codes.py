"""Codes of images, some images at a time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import numpy as np

from usae._core.autoencoder import Autoencoder
from usae._data.activations import Activations
from usae.analysis.images import Images

TOKENS_AT_ONCE = 16_384
"""Tokens of a model that are encoded together: with k = 32 their codes take 4 MB."""

LARGEST_CODES = 2**24
"""Most largest codes of concepts that are held at once: one for each image, model and concept, 6 bytes each."""


@dataclasses.dataclass(frozen=True)
class ImageCodes:
    """Codes of some images from every model. An unused slot holds value 0 and the concept m, one more than there are.

    `numbers` are the images' places in the pool, `values` and `concepts` [M, images, tokens, slots]; `n_concepts` is m.
    """

    numbers: np.ndarray
    values: np.ndarray
    concepts: np.ndarray
    n_concepts: int

    @functools.cached_property
    def peaks(self) -> tuple[np.ndarray, np.ndarray]:
        """Each concept's largest code in each image, float32 [M, images, m], and its place in the grid."""
        n_models, n_images, n_places, _ = self.values.shape
        largest = np.zeros((n_models, n_images, self.n_concepts + 1), np.float32)
        place = np.zeros((n_models, n_images, self.n_concepts + 1), np.uint16 if n_places <= 2**16 else np.uint32)
        model, image = np.arange(n_models)[:, None, None], np.arange(n_images)[None, :, None]
        for p in range(n_places):  # the concepts of one token differ, so no place is written to twice
            at = model, image, self.concepts[:, :, p]
            larger = self.values[:, :, p] > largest[at]
            chosen = np.broadcast_to(model, larger.shape)[larger], np.broadcast_to(image, larger.shape)[larger], at[2][larger]
            largest[chosen], place[chosen] = self.values[:, :, p][larger], p
        return largest[:, :, :-1], place[:, :, :-1]


class Pool:
    """Images whose codes are looked at: all images of the activations, or evenly spaced ones if there are too many.

    Attributes
    ----------
    images : ndarray of int64, [n]
        Numbers of the images in the activations: every `step`-th.
    grid : (int, int) or None
        Rows and columns of tokens; None if they are not known.
    places : int
        Number of tokens of an image.
    """

    def __init__(self, autoencoder: Autoencoder, acts: Mapping[str, Activations], of: Images, most: int | None = None):
        self._autoencoder, self._acts = autoencoder, acts
        self.places, self.grid = of.tokens, of.grid
        self.n_all = next(iter(acts.values())).n_rows // self.places
        self.step = 1 if most is None else -(-self.n_all // most)
        self.images = np.arange(self.n_all)[:: self.step]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def at_once(self) -> int:
        """Number of images that are encoded together."""
        largest = LARGEST_CODES // (len(self._acts) * self._autoencoder.n_concepts)
        return max(1, min(TOKENS_AT_ONCE // self.places, largest))

    def chunks(self, numbers: np.ndarray | None = None) -> Iterator[ImageCodes]:
        """Yield the codes of some images of the pool in order, by their places in it; all by default."""
        chosen = np.arange(len(self)) if numbers is None else numbers
        for start in range(0, len(chosen), self.at_once):
            yield self._encoded(chosen[start : start + self.at_once])

    def _encoded(self, numbers: np.ndarray) -> ImageCodes:
        slots, images, m = self._autoencoder.core.slots, self.images[numbers], self._autoencoder.n_concepts
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
        concepts[concepts < 0] = m
        by_image = (len(self._acts), len(images), self.places, slots)
        return ImageCodes(numbers, values.reshape(by_image), concepts.reshape(by_image), m)
