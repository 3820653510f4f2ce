"""A bounded buffer in which the tokens of a stream of batches mix, for `UniversalSAE.fit_stream`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._data.activations import Activations, as_aligned
from usae._data.shuffled_blocks import Batch
from usae._data.stored_array import widened
from usae.errors import InvalidInputError


def check_repeatable(batches: object) -> None:
    """Refuse what cannot be gone through again from its beginning."""
    if isinstance(batches, Iterator):
        raise InvalidInputError(
            f"resume=True needs batches that can be gone through again, to come to the place where the run stopped, got "
            f"{type(batches).__name__}, which may have been used already; give a list, or an object whose __iter__ begins anew"
        )


class ShuffleBuffer:
    """A bounded number of rows of a stream. Batches are drawn from all of them, and their places taken by the rows that follow.

    What is drawn depends on the seed and the batches alone.

    Attributes
    ----------
    sample : dict of str to Activations
        The rows that were read first: all that fit, or all of the stream. Valid until the first batch is drawn.
    tokens_read, epochs : int
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]], capacity: int):
        self._rows = _Rows(batches)
        first = self._rows.first()
        self._buffer = {
            name: dataclasses.replace(x, array=np.empty((capacity, x.width), x.raw_rows(slice(0, 1)).dtype))
            for name, x in first.items()
        }
        self._filled = self._rows.fill(self._arrays, np.arange(capacity), again=False)

    @property
    def sample(self) -> dict[str, Activations]:
        return self._part(slice(0, self._filled))

    @property
    def tokens_read(self) -> int:
        return self._rows.tokens_read

    @property
    def epochs(self) -> int:
        return self._rows.epochs

    def draw(self, seed: int, batch_size: int, steps: int) -> Iterator[Batch]:
        """A batch for each step; InvalidInputError at the step for which no rows are left."""
        places = np.empty(0, np.int64)
        for step in range(steps):
            came = self._rows.fill(self._arrays, places, again=True)
            self._close_holes(places[came:])
            if self._filled < batch_size:
                raise InvalidInputError(
                    f"batches ended after {self.tokens_read:,} rows, enough for {step} of {steps} steps of {batch_size} rows; "
                    f"give a list or another object that can be gone through again, more batches, or fewer steps"
                )
            places = np.empty(batch_size, np.int64)
            _usae.shuffled_rows(seed, self._filled, step * self._filled, places)  # the start of pass number `step`
            yield self._part(places), None

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: x.raw_rows(slice(0, x.n_tokens)) for name, x in self._buffer.items()}

    def _part(self, rows: slice | np.ndarray) -> dict[str, Activations]:
        return {name: x.part(rows) for name, x in self._buffer.items()}

    def _close_holes(self, holes: np.ndarray) -> None:
        if len(holes):
            kept = np.setdiff1d(np.arange(self._filled), holes)
            for array in self._arrays.values():
                array[: len(kept)] = array[kept]
            self._filled = len(kept)


class _Rows:
    """Rows of batches one after the other, over and over where the batches can be gone through again."""

    def __init__(self, batches: Iterable[Mapping[str, Any]]):
        if isinstance(batches, Mapping) or not isinstance(batches, Iterable):
            raise InvalidInputError(
                f"batches must be an iterable of mappings from model names to arrays, got {type(batches).__name__}; fit(acts) "
                f"takes one mapping of all activations"
            )
        self.tokens_read, self.epochs = 0, 1
        self._batches = batches
        self._iterator = iter(batches)
        self._can_repeat = self._iterator is not batches
        self._number = 0  # of batches in this epoch
        self._widths: dict[str, int] | None = None  # those of the first batch
        self._elements: dict[str, str] = {}
        self._batch: dict[str, Activations] = {}
        self._at = self._end = 0

    def first(self) -> dict[str, Activations]:
        """The first batch, of which nothing is taken yet."""
        if not self._next(again=False):
            raise InvalidInputError("batches must hold at least one batch, got none")
        return self._batch

    def fill(self, arrays: Mapping[str, np.ndarray], places: np.ndarray, again: bool) -> int:
        """Put the next rows into these places of the arrays; how many came. `again`: begin a new epoch after the last batch."""
        done = 0
        while done < len(places) and (self._at < self._end or self._next(again)):
            n = min(len(places) - done, self._end - self._at)
            rows = slice(self._at, self._at + n)
            for name, array in arrays.items():
                array[places[done : done + n]] = self._batch[name].raw_rows(rows)
            done += n
            self._at += n
        self.tokens_read += done
        return done

    def _next(self, again: bool) -> bool:
        """Take the next batch; False where there is none."""
        batch = next(self._iterator, _END)
        if batch is _END and again and self._can_repeat:
            self._iterator = iter(self._batches)
            self.epochs, self._number = self.epochs + 1, 0
            batch = next(self._iterator, _END)
        if batch is _END:
            return False
        self._batch = self._checked(batch)
        self._at, self._end = 0, next(iter(self._batch.values())).n_tokens
        self._number += 1
        return True

    def _checked(self, batch: object) -> dict[str, Activations]:
        given = as_aligned(batch, f"batches[{self._number}]", self._widths)
        if self._widths is None:
            self._widths = {name: x.width for name, x in given.items()}
            self._elements = {name: _elements(x) for name, x in given.items()}
        for name, x in given.items():
            if _elements(x) != self._elements[name]:
                raise InvalidInputError(
                    f"{x.label} must have {self._elements[name]} elements, as the first batch had, got {_elements(x)}"
                )
            finite = np.isfinite(widened(x.raw_rows(slice(0, x.n_tokens)), x.bfloat16))
            if not finite.all():
                row, column = np.argwhere(~finite)[0].tolist()
                raise InvalidInputError(f"{x.label} must be finite, got NaN or infinity in row {row}, column {column}")
        return given


def _elements(x: Activations) -> str:
    return "bfloat16" if x.bfloat16 else str(x.array.dtype)


_END: Any = object()
"""What no batch is."""
