"""A bounded buffer that shuffles the tokens of a stream of batches, for `UniversalSAE.fit_stream`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._base.float_types import widened
from usae._data.activations import Activations, as_aligned, columns_of, left_out
from usae._data.columns import Columns
from usae._data.shuffled_blocks import Batch
from usae.errors import InvalidInputError


def check_repeatable(batches: object) -> None:
    """Refuse batches that cannot be iterated over again from their beginning."""
    if isinstance(batches, Iterator):
        raise InvalidInputError(
            f"batches must support iterating again with resume=True, because the batches of finished steps are read once more, "
            f"got {type(batches).__name__}; give a list or an object whose __iter__ starts again"
        )


class ShuffleBuffer:
    """A bounded number of rows of a stream. Each batch is drawn from the whole buffer and replaced by the next rows.

    The batches that are drawn depend only on the seed and the stream.

    Attributes
    ----------
    sample : dict of str to Activations
        The first rows of the stream, as many as fit into the buffer. Valid until the first batch is drawn.
    tokens_read : int
        Number of rows read so far.
    rows_left_out : int
        Number of rows that were passed over so far, because they do not count by the masks of their batches.
    epochs : int
        How often iterating over the stream was started.
    """

    def __init__(self, batches: Iterable[Mapping[str, Any]], capacity: int):
        self._rows = _Rows(batches)
        first = self._rows.first()
        self._buffer = {
            name: dataclasses.replace(x, array=np.empty((capacity, x.width), x.raw_rows(slice(0, 1)).dtype), rows=None)
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
    def rows_left_out(self) -> int:
        return self._rows.left_out

    @property
    def epochs(self) -> int:
        return self._rows.epochs

    def draw(self, seed: int, batch_size: int, steps: int) -> Iterator[Batch]:
        """Yield a batch for each step. InvalidInputError at the step for which too few rows are left."""
        places = np.empty(0, np.int64)
        for step in range(steps):
            came = self._rows.fill(self._arrays, places, again=True)
            self._close_holes(places[came:])
            if self._filled < batch_size:
                raise InvalidInputError(
                    f"batches must last for {steps} steps of {batch_size} rows, got {self.tokens_read:,} rows, enough for "
                    f"{step}; give a list or another object that supports iterating again, more batches, or fewer steps"
                )
            places = np.empty(batch_size, np.int64)
            _usae.shuffled_rows(seed, self._filled, step * self._filled, places)  # the start of pass number `step`
            yield self._part(places), None

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: x.raw_rows(slice(0, x.n_tokens)) for name, x in self._buffer.items()}

    def _part(self, rows: slice | np.ndarray) -> dict[str, Activations]:
        labels = {name: columns.labels for name, columns in self._rows.columns.items()}
        return {name: dataclasses.replace(x.part(rows), labels=labels[name]) for name, x in self._buffer.items()}

    def _close_holes(self, holes: np.ndarray) -> None:
        if len(holes):
            kept = np.setdiff1d(np.arange(self._filled), holes)
            for array in self._arrays.values():
                array[: len(kept)] = array[kept]
            self._filled = len(kept)


class _Rows:
    """Rows of batches one after the other. They repeat if the batches can be iterated over again."""

    def __init__(self, batches: Iterable[Mapping[str, Any]]):
        if isinstance(batches, Mapping) or not isinstance(batches, Iterable):
            raise InvalidInputError(
                f"batches must be an iterable of mappings from model names to arrays, got {type(batches).__name__}; fit(acts) "
                f"takes one mapping of all activations"
            )
        self.tokens_read, self.left_out, self.epochs = 0, 0, 1
        self._batches = batches
        self._iterator = iter(batches)
        self._can_repeat = self._iterator is not batches
        self._number = 0  # of batches read in this epoch
        self._some = False  # whether a row of this epoch counts
        self.columns: dict[str, Columns] = {}  # those of all batches read so far
        self._elements: dict[str, str] = {}
        self._batch: dict[str, Activations] = {}
        self._at = self._end = 0

    def first(self) -> dict[str, Activations]:
        """Return the first batch without consuming its rows."""
        if not self._next(again=False):
            if self._number:
                raise InvalidInputError(
                    f"batches must have at least one row that counts, got masks that leave out all rows of {self._number} "
                    f"batches; True is a row that counts"
                )
            raise InvalidInputError("batches must hold at least one batch, got none")
        return self._batch

    def fill(self, arrays: Mapping[str, np.ndarray], places: np.ndarray, again: bool) -> int:
        """Copy the next rows to these places of the arrays and return their number. `again`: repeat after the last batch."""
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
        """Take the next batch with a row that counts. False if there is none."""
        while self._take(again):
            if self._end:
                self._some = True
                return True
        return False

    def _take(self, again: bool) -> bool:
        """Take the next batch. False if there is none, or if no row of the last epoch counted."""
        batch = next(self._iterator, _END)
        if batch is _END and again and self._can_repeat and self._some:
            self._iterator = iter(self._batches)
            self.epochs, self._number, self._some = self.epochs + 1, 0, False
            batch = next(self._iterator, _END)
        if batch is _END:
            return False
        self._batch = self._checked(batch)
        self._at, self._end = 0, next(iter(self._batch.values())).n_tokens
        self.left_out += left_out(self._batch)
        self._number += 1
        return True

    def _checked(self, batch: object) -> dict[str, Activations]:
        given = as_aligned(batch, f"batches[{self._number}]", self.columns or None, empty=True)
        if not self.columns:
            self.columns = columns_of(given)
            self._elements = {name: _elements(x) for name, x in given.items()}
        for name, x in given.items():
            if _elements(x) != self._elements[name]:
                raise InvalidInputError(
                    f"{x.label} must have {self._elements[name]} elements, as the first batch had, got {_elements(x)}"
                )
            finite = np.isfinite(widened(x.raw_rows(slice(0, x.n_tokens)), x.bfloat16))
            if not finite.all():
                row, column = np.argwhere(~finite)[0].tolist()
                row = row if x.rows is None else int(x.rows[row])
                raise InvalidInputError(f"{x.label} must be finite, got NaN or infinity in row {row}, column {column}")
        self.columns = {name: self.columns[name].adding(x.labels) for name, x in given.items()}
        return given


def _elements(x: Activations) -> str:
    return "bfloat16" if x.bfloat16 else str(x.array.dtype)


_END: Any = object()
"""Marks the end of an iterator; no batch is this object."""
