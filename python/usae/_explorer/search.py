"""The first pass over an explorer's images: which of them are worth looking at, for each concept and model.

Memory grows with concepts and with the images of the explorer, of which there are at most as many as its argument says.
"""

from __future__ import annotations

import numpy as np

from usae._base.ranking import keep_largest, largest
from usae._explorer.source import ImageCodes

HISTOGRAM_BINS = 16
OF_IMAGE = 16
"""Concepts of an image and model that are kept, the strongest first."""

SAMPLED_TOKENS = 60_000
"""Tokens of each model whose codes are kept, to count which concepts fire together."""


class Ranked:
    """The best images of each row by a score that is positive, the first image first among equals."""

    def __init__(self, rows: int, n: int):
        self.scores = np.zeros((rows, n), np.float32)
        self.images = np.full((rows, n), -1, np.int64)

    def add(self, scores: np.ndarray, numbers: np.ndarray) -> None:
        """Take the scores of some images, [images, rows]."""
        if not self.scores.shape[1]:
            return
        better = np.flatnonzero(scores.max(0) > self.scores[:, -1])
        if not len(better):
            return
        new, kept, images = scores.T[better], self.scores[better], self.images[better]
        keep_largest(kept, images, new, np.broadcast_to(numbers, new.shape))
        self.scores[better], self.images[better] = kept, np.where(kept > 0, images, -1)


class Search:
    """What the first pass finds, for M models and m concepts.

    Attributes
    ----------
    top : list of Ranked, [M], rows [m]
        Images that fire a concept most, one token of each.
    bands : list of list of Ranked, [M][bands], rows [m]
        An image drawn at random from those whose largest code is in a band of (0, largest code]; the lowest band is first.
    apart : list of Ranked, [M], rows [m]
        Images on which the model's code, as a share of its largest, exceeds that of the other models most.
    histogram : ndarray of int64, [M, m, bins]
        Number of tokens by their code, in equal bins up to `scale`.
    image_concepts, image_values : ndarray, [images, M, 16]
        Each image's strongest concepts, -1 where there are fewer, and their largest codes.
    tokens : ndarray of int32, [n, slots]
        Concepts of evenly spaced tokens, m where there are fewer.
    """

    def __init__(self, scale: np.ndarray, n_images: int, n_tokens: int, *, n: int, bands: int, apart: int, seed: int):
        """`scale` is the largest code that is known beforehand, [M, m]. `n_tokens` is that of all images."""
        n_models, self._n_concepts = scale.shape
        self._scale = np.where(scale > 0, scale, 1).astype(np.float32)
        self._seed = seed
        self._step = max(1, -(-n_tokens // SAMPLED_TOKENS))
        self.top = [Ranked(self._n_concepts, n) for _ in range(n_models)]
        self.bands = [[Ranked(self._n_concepts, 1) for _ in range(bands)] for _ in range(n_models)]
        self.apart = [Ranked(self._n_concepts, apart) for _ in range(n_models if n_models > 1 else 0)]
        self.histogram = np.zeros((n_models, self._n_concepts, HISTOGRAM_BINS), np.int64)
        self.image_concepts = np.full((n_images, n_models, OF_IMAGE), -1, np.int32)
        self.image_values = np.zeros((n_images, n_models, OF_IMAGE), np.float32)
        self._tokens: list[np.ndarray] = []

    @property
    def tokens(self) -> np.ndarray:
        return np.concatenate(self._tokens)

    def add(self, codes: ImageCodes) -> None:
        peaks, _ = codes.peaks(self._n_concepts)
        relative = peaks / self._scale[:, None]
        drawn = self._draws(codes.numbers)
        for model in range(len(peaks)):
            self.top[model].add(peaks[model], codes.numbers)
            self._add_bands(model, relative[model], drawn, codes.numbers)
            if self.apart:
                others = (relative.sum(0) - relative[model]) / (len(peaks) - 1)
                self.apart[model].add(np.where(peaks[model] > 0, relative[model] - others, 0), codes.numbers)
            self._add_histogram(model, codes)
            self._add_strongest(model, peaks[model], codes.numbers)
        places = codes.concepts.shape[2]
        rows = np.arange(codes.numbers[0] * places, (codes.numbers[-1] + 1) * places)
        taken = codes.concepts.reshape(len(peaks), len(rows), -1)[:, rows % self._step == 0]
        self._tokens.append(taken.reshape(-1, taken.shape[-1]))

    def _draws(self, numbers: np.ndarray) -> np.ndarray:
        """Random numbers in (0, 1) for images and concepts, which depend on the seed and the image alone."""
        return np.stack(
            [1 - np.random.default_rng([self._seed, int(image)]).random(self._n_concepts, np.float32) for image in numbers]
        )

    def _add_bands(self, model: int, relative: np.ndarray, drawn: np.ndarray, numbers: np.ndarray) -> None:
        bands = self.bands[model]
        band = np.minimum(np.ceil(relative * len(bands)), len(bands))
        for place, ranked in enumerate(bands, 1):
            ranked.add(np.where(band == place, drawn, 0), numbers)

    def _add_histogram(self, model: int, codes: ImageCodes) -> None:
        concepts, values = codes.concepts[model].ravel(), codes.values[model].ravel()
        fires = values > 0
        concepts, values = concepts[fires], values[fires]
        bins = np.minimum(values / self._scale[model, concepts] * HISTOGRAM_BINS, HISTOGRAM_BINS - 1).astype(np.int64)
        counted = np.bincount(concepts * HISTOGRAM_BINS + bins, minlength=self._n_concepts * HISTOGRAM_BINS)
        self.histogram[model] += counted.reshape(-1, HISTOGRAM_BINS)

    def _add_strongest(self, model: int, peaks: np.ndarray, numbers: np.ndarray) -> None:
        chosen, values = largest(peaks, OF_IMAGE)
        n = chosen.shape[1]
        self.image_concepts[numbers, model, :n] = np.where(values > 0, chosen, -1)
        self.image_values[numbers, model, :n] = values
