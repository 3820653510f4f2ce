"""Sums of effects over images, and the effects in some images, drawn evenly, whose order is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from usae.torch._effect_passes import Change, Passes


class Drawn:
    """Which images are kept, at most `most`: each of those seen so far is among them with the same probability."""

    def __init__(self, most: int, seed: int):
        self.most = most
        self._rng = np.random.default_rng(seed)
        self._n_seen = 0

    @property
    def n_kept(self) -> int:
        """Number of images that are kept."""
        return min(self._n_seen, self.most)

    def slots(self, n: int) -> np.ndarray:
        """Return where the next `n` images are kept, int64 [n], or -1. A later image may take the place of an earlier one."""
        numbers = np.arange(self._n_seen, self._n_seen + n)
        drawn = np.array([self._rng.integers(0, number + 1) for number in numbers])  # the same numbers whatever the batches
        self._n_seen += n
        slots = np.where(numbers < self.most, numbers, drawn)
        return np.where(slots < self.most, slots, -1)


class Effects:
    """Sums over images of one network's effects, and its effects in the images that are kept.

    Parameters
    ----------
    n_concepts, n_ablated : int
        Number of concepts, and of those that are ablated.
    most : int
        Most images that are kept.
    has_first_order : bool
        Whether changes are computed to first order.
    """

    def __init__(self, n_concepts: int, n_ablated: int, most: int, has_first_order: bool):
        self.images_active = np.zeros(n_concepts, np.int64)
        self._code, self._active_tokens = np.zeros((2, n_concepts))
        self._n_tokens = 0
        self._first_order = np.zeros((2, n_concepts))
        self._exact = np.zeros((2, n_ablated))
        self._n_exact = np.zeros(n_ablated, np.int64)
        self._classes: np.ndarray | None = None
        self._most, self._has_first_order = most, has_first_order
        self._kept_first_order = np.zeros((0, n_concepts), np.float32)
        self._kept_sizes = np.zeros((0, n_ablated), np.float32)
        self._kept_codes = np.zeros((0, n_ablated), np.float32)

    def add(self, passes: Passes, concepts: Tensor, batch_size: int, slots: np.ndarray) -> None:
        """Run the passes of a batch and add what comes of them. `slots` are from `Drawn.slots`."""
        values = passes.codes.values
        code = passes.sums(values)
        self.images_active += _array((code > 0).sum(0)).astype(np.int64)
        self._code += _array(code.double().sum(0))
        self._active_tokens += _array(passes.sums((values > 0).to(values.dtype)).double().sum(0))
        self._n_tokens += values.shape[0] * values.shape[1]
        self._grow(slots)
        if self._has_first_order:
            estimate = passes.first_order()
            self._first_order += np.stack([_array(each.double().sum(0)) for each in (estimate, estimate.abs())])
            _keep(self._kept_first_order, slots, _array(estimate.abs()))
        sizes = np.zeros((len(slots), len(concepts)), np.float32)
        for change in passes.ablated(concepts, batch_size):
            self._add_change(change)
            sizes[_array(change.images), _array(change.places)] = _array(change.size)
        _keep(self._kept_sizes, slots, sizes)
        _keep(self._kept_codes, slots, _array(code[:, concepts]))

    def _add_change(self, change: Change) -> None:
        places = _array(change.places)
        for sums, values in zip(self._exact, (change.score, change.size), strict=True):
            np.add.at(sums, places, _array(values).astype(np.float64))
        np.add.at(self._n_exact, places, 1)
        if change.logits is not None:
            if self._classes is None:
                self._classes = np.zeros((len(self._n_exact), change.logits.shape[1]))
            np.add.at(self._classes, places, _array(change.logits).astype(np.float64))

    def _grow(self, slots: np.ndarray) -> None:
        """Enlarge the arrays of the images that are kept."""
        needed = min(self._most, int(slots.max(initial=-1)) + 1)
        for name in ("_kept_first_order", "_kept_sizes", "_kept_codes"):
            kept = getattr(self, name)
            if needed > len(kept):
                size = min(self._most, max(needed, 2 * len(kept)))
                setattr(self, name, np.concatenate([kept, np.zeros((size - len(kept), kept.shape[1]), kept.dtype)]))

    @property
    def mean_code(self) -> np.ndarray:
        """Mean code of a token, float64 [n_concepts]."""
        return self._code / self._n_tokens

    @property
    def firing_rate(self) -> np.ndarray:
        """Share of tokens in which a concept is active, float64 [n_concepts]."""
        return self._active_tokens / self._n_tokens

    @property
    def first_order(self) -> np.ndarray:
        """Mean change to first order, and mean of its absolute value, float64 [2, n_concepts]."""
        with np.errstate(invalid="ignore"):
            return self._first_order / self.images_active

    @property
    def exact(self) -> np.ndarray:
        """Mean change of the score and mean size, float64 [2, n_ablated]."""
        with np.errstate(invalid="ignore"):
            return self._exact / self._n_exact

    @property
    def classes(self) -> np.ndarray | None:
        """Mean change of each logit, float64 [n_ablated, classes], or None without logits."""
        with np.errstate(invalid="ignore"):
            return None if self._classes is None else self._classes / self._n_exact[:, None]

    def kept(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of the first `n` kept images absolute changes to first order, sizes, and sums of codes."""
        return self._kept_first_order[:n], self._kept_sizes[:n], self._kept_codes[:n]


def _keep(kept: np.ndarray, slots: np.ndarray, values: np.ndarray) -> None:
    for slot, row in zip(slots, values, strict=True):
        if slot >= 0:
            kept[slot] = row


def _array(x: Tensor) -> np.ndarray:
    found: np.ndarray = x.detach().cpu().numpy()
    return found
