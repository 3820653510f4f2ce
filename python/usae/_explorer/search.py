"""The first pass over an explorer's images: which of them are worth looking at, for each concept and model.

Memory grows with concepts and with the images of the explorer, of which there are at most as many as its argument says.
"""

from __future__ import annotations

import numpy as np

from usae._base.ranking import largest
from usae.analysis.image_codes import ImageCodes
from usae.analysis.image_samples import Ranked, Samples

HISTOGRAM_BINS = 16
OF_IMAGE = 16
"""Concepts of an image and model that are kept, the strongest first."""


class Search(Samples):
    """What the first pass finds, for M models and m concepts: `Samples`, and

    Attributes
    ----------
    top : list of Ranked, [M], rows [m]
        Images that fire a concept most, one token of each.
    histogram : ndarray of int64, [M, m, bins]
        Number of tokens by their code, in equal bins up to `scale`.
    image_concepts, image_values : ndarray, [images, M, 16]
        Each image's strongest concepts, -1 where there are fewer, and their largest codes.
    """

    def __init__(self, scale: np.ndarray, n_images: int, n_tokens: int, *, n: int, bands: int, apart: int, seed: int):
        """`scale` is the largest code that is known beforehand, [M, m]. `n_tokens` is that of all images."""
        super().__init__(scale, n_tokens, bands=bands, apart=apart, seed=seed)
        n_models, n_concepts = scale.shape
        self.top = [Ranked(n_concepts, n) for _ in range(n_models)]
        self.histogram = np.zeros((n_models, n_concepts, HISTOGRAM_BINS), np.int64)
        self.image_concepts = np.full((n_images, n_models, OF_IMAGE), -1, np.int32)
        self.image_values = np.zeros((n_images, n_models, OF_IMAGE), np.float32)

    def add(self, codes: ImageCodes) -> np.ndarray:
        peaks = super().add(codes)
        for model in range(len(peaks)):
            self.top[model].add(peaks[model], codes.numbers)
            self._add_histogram(model, codes)
            self._add_strongest(model, peaks[model], codes.numbers)
        return peaks

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
