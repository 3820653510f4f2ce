"""Which part of weakly paired activations each step takes.

It is a pure function of the seed, the step and the sizes of the parts, so that a run can resume at any step: as with a pack of
cards, of which each part has some, that is shuffled again whenever it has been dealt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usae import _usae

CARDS = 1000
"""Cards of a pack with given shares, which are rounded to so many."""

CHUNK = 65_536
"""Cards that are dealt at once."""


def cards_of(batches: Sequence[int], shares: Sequence[float] | None) -> list[int]:
    """Return how many cards of a pack each part has, at least one.

    Parameters
    ----------
    batches : sequence of int
        Batches that the rows of each part make.
    shares : sequence of float or None
        Shares of the steps, which add up to 1. None: those of the batches.
    """
    return list(batches) if shares is None else [max(1, round(CARDS * share)) for share in shares]


class PartOrder:
    """The endless sequence of parts: in each round of the pack, each part comes as often as it has cards.

    Parameters
    ----------
    seed : int
    cards : sequence of int
        Cards of each part.
    """

    def __init__(self, seed: int, cards: Sequence[int]):
        self._seed = seed
        self._ends = np.cumsum(cards)
        self._cards = np.asarray(cards, np.int64)
        self._first, self._dealt = 0, np.empty(0, np.int64)

    @property
    def round(self) -> int:
        """Steps of a round."""
        return int(self._ends[-1])

    def parts(self, first: int, count: int) -> np.ndarray:
        """Return the parts of `count` steps from number `first` on, counted from 0."""
        cards = np.empty(count, np.int64)
        _usae.shuffled_rows(self._seed, self.round, first, cards)
        return np.searchsorted(self._ends, cards, side="right")

    def part(self, step: int) -> int:
        """Return the part of a step."""
        if not self._first <= step < self._first + len(self._dealt):
            self._first, self._dealt = step, self.parts(step, min(CHUNK, self.round))
        return int(self._dealt[step - self._first])

    def done(self, steps: int) -> list[int]:
        """Return how many of the first `steps` steps took each part."""
        rounds, rest = divmod(steps, self.round)
        counts = rounds * self._cards
        for start in range(0, rest, CHUNK):
            some = self.parts(rounds * self.round + start, min(CHUNK, rest - start))
            counts = counts + np.bincount(some, minlength=len(counts))
        return counts.tolist()
