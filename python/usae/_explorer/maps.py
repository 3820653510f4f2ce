"""The second pass over an explorer's images: where in an image a concept fires, in every model."""

from __future__ import annotations

import numpy as np

from usae._explorer.search import Search
from usae.analysis.image_codes import ImageCodes, Pool
from usae.analysis.image_samples import Negatives
from usae.analysis.spatial import firing_maps

LEVELS = 15
"""Levels of a heat map above 0, which 4 bits hold: LEVELS times the code's share of the concept's largest in that model."""

NONE = 0xFFFF
"""Stands for no pair in lists of pairs."""

PER_TOKEN = 8
"""Concepts of a token that are kept for an image whose patches can be looked at."""


class Pairs:
    """Concepts and images that the explorer shows together, each pair once, sorted by concept and then by image.

    Attributes
    ----------
    concepts, images : ndarray of int64, [pairs]
    starts : ndarray of int64, [m + 1]
        The first pair of each concept.
    lists : dict of str to ndarray of uint16, [m, M, n]
        By "top", "bands" and "apart", the pairs of a concept, counted from its first; `NONE` where there is none.
    own : ndarray of bool, [M, pairs]
        Whether the image is among those that fire the concept most in the model.
    """

    def __init__(self, search: Search, n_images: int):
        n_concepts = search.histogram.shape[1]
        chosen = {
            "top": _stacked([ranked.images for ranked in search.top], n_concepts),
            "bands": _stacked([_beside([one.images for one in bands], n_concepts) for bands in search.bands], n_concepts),
            "apart": _stacked([ranked.images for ranked in search.apart], n_concepts),
        }
        flat = np.concatenate([images.reshape(n_concepts, -1) for images in chosen.values()], 1)
        keys = np.where(flat >= 0, np.arange(n_concepts)[:, None] * n_images + flat, -1)
        known = np.unique(keys[keys >= 0])
        self.concepts, self.images = np.divmod(known, n_images)
        self.starts = np.searchsorted(self.concepts, np.arange(n_concepts + 1))
        found = np.searchsorted(known, keys) - self.starts[:-1, None]
        numbered = np.where(keys >= 0, found, NONE).astype(np.uint16)
        self.lists, self.own, done = {}, np.zeros((len(search.top), len(known)), bool), 0
        for name, images in chosen.items():
            width = images.shape[1] * images.shape[2]
            self.lists[name] = numbered[:, done : done + width].reshape(images.shape)
            done += width
        for model, local in enumerate(self.lists["top"].transpose(1, 0, 2)):
            there = local != NONE
            self.own[model, (self.starts[:-1, None] + local)[there]] = True

    def __len__(self) -> int:
        return len(self.concepts)


def _beside(images: list[np.ndarray], n_concepts: int) -> np.ndarray:
    return np.concatenate([np.empty((n_concepts, 0), np.int64), *images], 1)


def _stacked(images: list[np.ndarray], n_concepts: int) -> np.ndarray:
    return np.stack(images, 1) if images else np.empty((n_concepts, 0, 0), np.int64)


class Maps:
    """What the second pass finds, for M models.

    Attributes
    ----------
    maps : ndarray of uint8, [pairs, M, bytes]
        Heat maps of 4 bits a token, row after row, the left one in the upper bits. No bytes without a grid.
    peaks : ndarray of float32, [pairs, M]
        Largest code of the concept in the image.
    places : ndarray of uint16, [pairs, M]
        Where that is in the grid.
    coherence, area : ndarray of float64, [M, m]
        Moran's I of the heat maps of the concept's strongest images, and the share of these images in which it fires.
    patch_concepts, patch_values : ndarray, [gallery, M, tokens, 8]
        Strongest concepts of each token of the gallery's images, -1 where there are fewer, and their codes.
    """

    def __init__(self, pool: Pool, pairs: Pairs, scale: np.ndarray, gallery: np.ndarray, probes: np.ndarray):
        """`scale` are largest codes, [M, m]; `gallery` places of images; `probes` images by concept, [m, n], -1 for none."""
        n_models, n_concepts = scale.shape
        self._pairs, self._scale, self._grid = pairs, scale, pool.grid
        shape = (len(pairs), n_models)
        self.maps = np.zeros((*shape, -(-pool.places // 2) if pool.grid else 0), np.uint8)
        self.peaks, self.places = np.zeros(shape, np.float32), np.zeros(shape, np.uint16)
        self._sums = np.zeros((2, n_models, n_concepts))
        self._counts = np.zeros((2, n_models, n_concepts), np.int64)
        self._by_image = np.argsort(pairs.images, kind="stable")
        self._gallery = {int(image): place for place, image in enumerate(gallery)}
        slots = min(PER_TOKEN, n_concepts)
        self.patch_concepts = np.full((len(gallery), n_models, pool.places, slots), -1, np.int32)
        self.patch_values = np.zeros(self.patch_concepts.shape, np.float32)
        self._negatives = Negatives(probes)
        wanted = np.zeros(len(pool), bool)
        wanted[pairs.images], wanted[gallery], wanted[probes[probes >= 0]] = True, True, True
        self._wanted = np.flatnonzero(wanted)

    @property
    def wanted(self) -> np.ndarray:
        """Places of the images that are needed."""
        return self._wanted

    @property
    def coherence(self) -> np.ndarray:
        return _mean(self._sums[0], self._counts[0])

    @property
    def area(self) -> np.ndarray:
        return _mean(self._sums[1], self._counts[1])

    def disagreement(self) -> np.ndarray:
        """How far models differ on each other's strongest images, float64 [m]; NaN for a concept that fires nowhere.

        It is the mean, over the models' own examples, of the code as a share of the largest, less the mean share of the other
        models in the same image: 0 if they fire alike, 1 if the others do not fire on any of the examples.
        """
        n_models, n_concepts = self._scale.shape
        concepts = self._pairs.concepts
        share = self.peaks / np.where(self._scale > 0, self._scale, 1).T[concepts]
        sums, counts = np.zeros((n_models, n_concepts)), np.zeros((n_models, n_concepts), np.int64)
        for model in range(n_models):
            own = self._pairs.own[model]
            others = (share[own].sum(1) - share[own, model]) / max(1, n_models - 1)
            sums[model] = np.bincount(concepts[own], share[own, model] - others, n_concepts)
            counts[model] = np.bincount(concepts[own], minlength=n_concepts)
        of_models, alive = _mean(sums, counts), counts > 0
        return _mean(np.where(alive, of_models, 0).sum(0), alive.sum(0))

    def silent(self, n: int) -> np.ndarray:
        """Return up to `n` probes of each concept on which it fires in no model, int64 [m, n], -1 where there are fewer."""
        return self._negatives.found(n)

    def add(self, codes: ImageCodes) -> None:
        ordered = self._pairs.images[self._by_image]
        first, last = np.searchsorted(ordered, codes.numbers[0]), np.searchsorted(ordered, codes.numbers[-1], side="right")
        chosen = self._by_image[first:last]
        image = np.searchsorted(codes.numbers, self._pairs.images[chosen])
        concept = self._pairs.concepts[chosen]
        n_models, n_images, n_places, _ = codes.values.shape
        slot = np.full((n_images, self._scale.shape[1] + 1), -1, np.int32)
        slot[image, concept] = np.arange(len(chosen))
        of_image = np.arange(n_images)[:, None, None]
        for model in range(n_models):
            concepts, values = codes.concepts[model], codes.values[model]
            pair = slot[of_image, concepts]
            shown = pair >= 0
            dense = np.zeros((len(chosen), n_places), np.float32)
            dense[pair[shown], np.nonzero(shown)[1]] = values[shown]
            self._take(model, chosen, concept, dense)
            if self._grid is not None:
                own = np.zeros(slot.shape, bool)
                own[image, concept] = self._pairs.own[model, chosen]
                self._measure(model, np.where(own[of_image, concepts], values, 0), concepts)
        self._take_patches(codes)
        self._negatives.add(codes)

    def _take(self, model: int, chosen: np.ndarray, concept: np.ndarray, dense: np.ndarray) -> None:
        self.peaks[chosen, model] = dense.max(1, initial=0)
        self.places[chosen, model] = dense.argmax(1) if dense.shape[1] else 0
        if self._grid is None:
            return
        scale = np.where(self._scale[model] > 0, self._scale[model], 1)[concept]
        level = np.clip(np.ceil(dense / scale[:, None] * LEVELS), 0, LEVELS).astype(np.uint8)
        if level.shape[1] % 2:
            level = np.pad(level, ((0, 0), (0, 1)))
        self.maps[chosen, model] = level[:, ::2] << 4 | level[:, 1::2]

    def _measure(self, model: int, values: np.ndarray, concepts: np.ndarray) -> None:
        """Add the measures of the model's own examples: `values` of other images and concepts are 0."""
        maps = firing_maps(values, concepts, self._scale.shape[1], self._grid)
        for kind, numbers in enumerate((maps.coherence, maps.area)):
            known = ~np.isnan(numbers)
            np.add.at(self._sums[kind, model], maps.concepts[known], numbers[known])
            np.add.at(self._counts[kind, model], maps.concepts[known], 1)

    def _take_patches(self, codes: ImageCodes) -> None:
        for place, number in enumerate(codes.numbers):
            row = self._gallery.get(int(number))
            if row is not None:
                slots = min(self.patch_concepts.shape[-1], codes.concepts.shape[-1])
                strongest, values = codes.concepts[:, place, :, :slots], codes.values[:, place, :, :slots]
                self.patch_concepts[row, ..., :slots] = np.where(values > 0, strongest, -1)
                self.patch_values[row, ..., :slots] = values


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return sums / counts
