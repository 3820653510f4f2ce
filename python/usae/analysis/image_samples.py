"""Images that show more of a concept than its strongest ones: from weak to strong, without it, and where models disagree.

`usae.top_examples` and the explorer draw such samples here, in a pass over the codes of all images. Memory grows with concepts
and not with images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usae._base.ranking import keep_largest
from usae.analysis.image_codes import ImageCodes

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


class Samples:
    """What a pass over images finds beside the strongest, for M models and m concepts.

    Attributes
    ----------
    bands : list of list of Ranked, [M][bands], rows [m]
        Images drawn at random from those whose largest code is in a band of (0, largest code]; the lowest band is first.
    apart : list of Ranked, [M], rows [m]
        Images on which the model's code, as a share of its largest, exceeds that of the other models most.
    tokens : ndarray of int32, [n, slots]
        Concepts of evenly spaced tokens, m where there are fewer.
    """

    def __init__(self, scale: np.ndarray, n_tokens: int, *, bands: int, of_band: int = 1, apart: int, seed: int):
        """`scale` is the largest code that is known beforehand, [M, m]. `n_tokens` is that of all images."""
        n_models, self._n_concepts = scale.shape
        self._scale = np.where(scale > 0, scale, 1).astype(np.float32)
        self._seed = seed
        self._step = max(1, -(-n_tokens // SAMPLED_TOKENS))
        self.bands = [[Ranked(self._n_concepts, of_band) for _ in range(bands)] for _ in range(n_models)]
        self.apart = [Ranked(self._n_concepts, apart) for _ in range(n_models if n_models > 1 else 0)]
        self._tokens: list[np.ndarray] = []

    @property
    def tokens(self) -> np.ndarray:
        return np.concatenate(self._tokens)

    def add(self, codes: ImageCodes) -> np.ndarray:
        """Take the codes of some images. Returns their concepts' largest codes, [M, images, m]."""
        peaks, _ = codes.peaks
        relative = peaks / self._scale[:, None]
        drawn = self._draws(codes.numbers) if self.bands[0] else np.empty(0)
        for model in range(len(peaks)):
            self._add_bands(model, relative[model], drawn, codes.numbers)
            if self.apart:
                others = (relative.sum(0) - relative[model]) / (len(peaks) - 1)
                self.apart[model].add(np.where(peaks[model] > 0, relative[model] - others, 0), codes.numbers)
        places = codes.concepts.shape[2]
        rows = np.arange(codes.numbers[0] * places, (codes.numbers[-1] + 1) * places)
        taken = codes.concepts.reshape(len(peaks), len(rows), -1)[:, rows % self._step == 0]
        self._tokens.append(taken.reshape(-1, taken.shape[-1]))
        return peaks

    def _draws(self, numbers: np.ndarray) -> np.ndarray:
        """Random numbers in (0, 1) for images and concepts, which depend on the seed and the image alone."""
        return np.stack(
            [1 - np.random.default_rng([self._seed, int(image)]).random(self._n_concepts, np.float32) for image in numbers]
        )

    def _add_bands(self, model: int, relative: np.ndarray, drawn: np.ndarray, numbers: np.ndarray) -> None:
        bands = self.bands[model]
        if not bands:
            return
        band = np.minimum(np.ceil(relative * len(bands)), len(bands))
        for place, ranked in enumerate(bands, 1):
            ranked.add(np.where(band == place, drawn, 0), numbers)


def probes(strongest: np.ndarray, near: Sequence[np.ndarray]) -> np.ndarray:
    """Return, for each concept, the strongest image of each of its neighbours in each model, [m, n]; -1 for none.

    `strongest` are those images, [m, M], and `near` the neighbours of each kind, [m, n each].
    """
    found = [np.where(concepts[:, :, None] >= 0, strongest[np.maximum(concepts, 0)], -1) for concepts in near]
    return each_once(np.stack(found, 2).reshape(len(strongest), -1))  # a neighbour of each kind in turn


def each_once(images: np.ndarray) -> np.ndarray:
    """Replace an image that stands in a row a second time by -1, [m, n]."""
    order = np.argsort(images, axis=1, kind="stable")
    ordered = np.take_along_axis(images, order, 1)
    again = np.zeros(images.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return np.where(again, -1, images)


class Negatives:
    """Which of some images fire a concept in no model. `probes` are the images by concept, [m, n], -1 for none."""

    def __init__(self, probes: np.ndarray):
        self.probes, self._fires = probes, np.zeros(probes.shape, bool)

    def add(self, codes: ImageCodes) -> None:
        """Take the codes of some images, in their order."""
        numbers, n_concepts = codes.numbers, len(self.probes)
        fires = np.zeros((len(numbers), n_concepts + 1), bool)
        fires[np.arange(len(numbers))[:, None, None], codes.concepts] = True
        rows, columns = np.nonzero((self.probes >= numbers[0]) & (self.probes <= numbers[-1]))
        place = np.searchsorted(numbers, self.probes[rows, columns])
        known = numbers[place] == self.probes[rows, columns]
        self._fires[rows[known], columns[known]] = fires[place[known], rows[known]]

    def found(self, n: int) -> np.ndarray:
        """Return up to `n` images of each concept in which it fires in no model, int64 [m, n], -1 where there are fewer."""
        usable = (self.probes >= 0) & ~self._fires
        order = np.argsort(~usable, axis=1, kind="stable")[:, :n]
        images = np.where(np.take_along_axis(usable, order, 1), np.take_along_axis(self.probes, order, 1), -1)
        return np.pad(images, ((0, 0), (0, n - images.shape[1])), constant_values=-1)
