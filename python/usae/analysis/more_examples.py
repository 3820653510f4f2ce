"""Examples beside the strongest: from weak to strong, without the concept, and where models disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from usae._core.autoencoder import Autoencoder
from usae._data.activations import Activations
from usae.analysis import neighbours
from usae.analysis.image_codes import ImageCodes, Pool
from usae.analysis.image_samples import Negatives, Samples, each_once, probes
from usae.analysis.images import Images


class Wanted(NamedTuple):
    """How many examples are wanted: `n` of each of the `bands`, and of each concept so many others."""

    n: int
    bands: int
    disagreements: int
    negatives: int
    seed: int

    def any(self) -> bool:
        return bool(self.bands or self.disagreements or self.negatives)


class Places:
    """Images of each model and concept, [M, m, n], with the token of each in which the concept's code is largest.

    Attributes
    ----------
    tokens : ndarray of int64, [M, m, n]
        Row numbers; -1 where there is no image.
    values : ndarray of float32, [M, m, n]
        Codes there.
    """

    def __init__(self, images: np.ndarray, places: int):
        self.images, self._places = images, places
        self.tokens, self.values = np.full(images.shape, -1, np.int64), np.zeros(images.shape, np.float32)
        self._order = np.argsort(images, axis=None, kind="stable")

    def add(self, numbers: np.ndarray, peaks: np.ndarray, spots: np.ndarray) -> None:
        """Take largest codes and their places, [M, images, m], of the images with these numbers, which increase."""
        flat = self.images.ravel()
        first, last = np.searchsorted(flat, [numbers[0], numbers[-1] + 1], sorter=self._order)
        entries = self._order[first:last]
        model, concept, _ = np.unravel_index(entries, self.images.shape)
        at = model, np.searchsorted(numbers, flat[entries]), concept
        self.values.flat[entries] = peaks[at]
        self.tokens.flat[entries] = flat[entries] * self._places + spots[at]

    def strongest_first(self) -> None:
        order = np.argsort(-self.values, axis=2, kind="stable")
        self.tokens[:] = np.take_along_axis(self.tokens, order, 2)
        self.values[:] = np.take_along_axis(self.values, order, 2)


class MoreExamples(NamedTuple):
    """What was found: places by band, the weakest first; those of disagreement; and images without the concept, [m, n]."""

    bands: list[Places]
    disagreements: Places | None
    negatives: np.ndarray | None


def more_examples(
    autoencoder: Autoencoder,
    acts: Mapping[str, Activations],
    of: Images,
    units: Sequence[np.ndarray],
    tokens: np.ndarray,
    values: np.ndarray,
    wanted: Wanted,
    bar: Any,
) -> MoreExamples:
    """Draw examples in two passes over the codes of all images: one finds them, the other their places.

    `units` are dictionary rows of norm 1, [m, width] of each model, which only negatives need. `tokens` and `values` are the
    strongest tokens, [M, m, n]. Where images are not known, each row stands for one. `bar` is told of rows, each twice.
    """
    pool, m = Pool(autoencoder, acts, of), autoencoder.n_concepts
    n_rows = len(pool) * pool.places
    samples = Samples(
        values[:, :, 0], n_rows, bands=wanted.bands, of_band=wanted.n, apart=wanted.disagreements, seed=wanted.seed
    )
    for codes in pool.chunks():
        samples.add(codes)
        bar.update(len(codes.numbers) * pool.places)
    bands = [Places(np.stack([one.images for one in band]), pool.places) for band in zip(*samples.bands, strict=True)]
    apart = Places(np.stack([one.images for one in samples.apart]), pool.places) if wanted.disagreements else None
    looked_at = [*bands, *([] if apart is None else [apart])]
    negatives = None
    if wanted.negatives:
        near = [neighbours.by_dictionary(units)[0], neighbours.by_firing(samples.tokens, m)[0]]
        strongest = np.where(tokens[:, :, 0] < 0, -1, tokens[:, :, 0] // pool.places).T
        negatives = Negatives(each_once(np.concatenate([probes(strongest, near), _at_random(acts, pool, m, wanted)], 1)))
    chosen = [one.images for one in looked_at] + ([] if negatives is None else [negatives.probes])
    images = np.unique(np.concatenate([numbers.ravel() for numbers in chosen]))
    for codes in pool.chunks(images[images >= 0]):
        _look_at(codes, looked_at, negatives)
        bar.update(len(codes.numbers) * pool.places)
    bar.update((len(pool) - int((images >= 0).sum())) * pool.places)
    for band in bands:
        band.strongest_first()
    return MoreExamples(bands, apart, None if negatives is None else negatives.found(wanted.negatives))


def _look_at(codes: ImageCodes, places: Sequence[Places], negatives: Negatives | None) -> None:
    if places:
        peaks, spots = codes.peaks
        for one in places:
            one.add(codes.numbers, peaks, spots)
    if negatives is not None:
        negatives.add(codes)


def _at_random(acts: Mapping[str, Activations], pool: Pool, n_concepts: int, wanted: Wanted) -> np.ndarray:
    """Draw images for each concept, [m, n], of which a token counts: most concepts fire in few images."""
    rows = next(iter(acts.values())).rows
    images = np.arange(len(pool)) if rows is None else np.unique(rows // pool.places)
    drawn = np.random.default_rng(wanted.seed).integers(0, len(images), (n_concepts, 2 * wanted.negatives))
    return images[drawn]
