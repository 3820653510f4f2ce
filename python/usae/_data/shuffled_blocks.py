"""Rows of a store in a random order for which long blocks of consecutive rows are read.

An epoch takes blocks of consecutive rows in random order, 64 blocks at a time, and the rows of these 64 blocks in random order.
The order is a pure function of the seed and the epoch, so that reading can start at any position.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Generator, Iterator, Mapping

import numpy as np

from usae import _usae
from usae._data.activations import Activations
from usae._data.read_ahead import ReadAhead

BLOCK_ROWS = 1024
"""Consecutive rows that are read at once: 1.5 MB in float16 for a model of width 768."""

GROUP_BLOCKS = 64
"""Blocks whose rows are shuffled together. Two such groups are in memory: this one, and the next, which is being read."""

SAMPLE_BLOCK_ROWS = 64
"""Consecutive rows in a sample of a store. They are few, so that the sample comes from a thousand places of the store."""

Batch = tuple[Mapping[str, Activations], np.ndarray | None]
"""Activations and the numbers of the rows that form the batch. None: all rows."""


class BlockOrder:
    """The endless sequence of row numbers, which has every row once in each epoch."""

    def __init__(self, seed: int, n_rows: int):
        self._seed, self._n_rows = seed, n_rows
        self.n_blocks = -(-n_rows // BLOCK_ROWS)
        self.n_groups = -(-self.n_blocks // GROUP_BLOCKS)
        self._blocks_of: tuple[int, np.ndarray] = -1, np.empty(0, np.int64)

    def group(self, number: int) -> tuple[list[slice], np.ndarray]:
        """Return the slices of a group's blocks and the order of their rows. Groups are numbered on through all epochs."""
        epoch, place = divmod(number, self.n_groups)
        blocks = self._blocks(epoch)[place * GROUP_BLOCKS : (place + 1) * GROUP_BLOCKS]
        slices = [slice(int(b) * BLOCK_ROWS, min(int(b + 1) * BLOCK_ROWS, self._n_rows)) for b in blocks]
        order = np.empty(sum(rows.stop - rows.start for rows in slices), np.int64)
        _usae.shuffled_rows(self._seed, len(order), number * len(order), order)
        return slices, order

    def locate(self, position: int) -> tuple[int, int]:
        """Return the number of the group that holds a position of the sequence, and the position in that group's order."""
        epoch, rest = divmod(position, self._n_rows)
        sizes = np.minimum((self._blocks(epoch) + 1) * BLOCK_ROWS, self._n_rows) - self._blocks(epoch) * BLOCK_ROWS
        ends = np.cumsum(np.add.reduceat(sizes, np.arange(0, self.n_blocks, GROUP_BLOCKS)))
        place = int(np.searchsorted(ends, rest, side="right"))
        return epoch * self.n_groups + place, rest - (int(ends[place - 1]) if place else 0)

    def _blocks(self, epoch: int) -> np.ndarray:
        if self.n_groups == 1:  # then all rows are shuffled together, in the same order as for arrays
            return np.arange(self.n_blocks)
        if self._blocks_of[0] != epoch:
            order = np.empty(self.n_blocks, np.int64)
            _usae.shuffled_rows(self._seed, self.n_blocks, epoch * self.n_blocks, order)
            self._blocks_of = epoch, order
        return self._blocks_of[1]


def shuffled_batches(
    acts: Mapping[str, Activations], seed: int, batch_size: int, position: int = 0
) -> Generator[Batch, None, None]:
    """Yield endless batches of a store's rows from a position of the sequence on. The next group is read in the background."""
    order = BlockOrder(seed, next(iter(acts.values())).n_tokens)
    number, at = order.locate(position)
    pieces: list[dict[str, Activations]] = []
    missing = batch_size
    with ReadAhead(_groups(acts, order, number)) as groups:
        for group, rows in groups:
            while at < len(rows):
                some = rows[at : at + missing]
                at += len(some)
                if len(some) == batch_size:
                    yield group, some
                    continue
                pieces.append({name: x.part(some) for name, x in group.items()})
                missing -= len(some)
                if missing == 0:
                    yield joined(pieces), None
                    pieces, missing = [], batch_size
            at = 0


def _groups(
    acts: Mapping[str, Activations], order: BlockOrder, first: int
) -> Iterator[tuple[dict[str, Activations], np.ndarray]]:
    whole: dict[str, Activations] | None = None
    for number in itertools.count(first):
        slices, rows = order.group(number)
        group = whole or {name: x.parts(slices) for name, x in acts.items()}
        if order.n_groups == 1:
            whole = group
        yield group, rows
        del group  # so that two groups are in memory, and not three


def joined(pieces: list[dict[str, Activations]]) -> dict[str, Activations]:
    """Concatenate pieces of activations."""
    return {
        name: dataclasses.replace(x, array=np.concatenate([piece[name].array for piece in pieces]))
        for name, x in pieces[0].items()
    }


def sample(acts: Mapping[str, Activations], seed: int, total: int | None = None, least: int = 0) -> dict[str, Activations]:
    """Return as many rows of a store as a group has, in short slices that the seed draws; all rows if there are no more.

    If the rows are a part of `total`, it is the same part of the sample, and at least `least` rows. Default: None, all.
    """
    n_rows, wanted = next(iter(acts.values())).n_tokens, BLOCK_ROWS * GROUP_BLOCKS
    if total is not None and total > n_rows:
        wanted = min(wanted, -(-max(wanted * n_rows // total, least) // SAMPLE_BLOCK_ROWS) * SAMPLE_BLOCK_ROWS)
    if n_rows <= wanted:
        return {name: x.part(slice(0, n_rows)) for name, x in acts.items()}
    blocks = np.empty(wanted // SAMPLE_BLOCK_ROWS, np.int64)
    _usae.shuffled_rows(seed, n_rows // SAMPLE_BLOCK_ROWS, 0, blocks)
    slices = [slice(int(block) * SAMPLE_BLOCK_ROWS, int(block + 1) * SAMPLE_BLOCK_ROWS) for block in np.sort(blocks)]
    return {name: x.parts(slices) for name, x in acts.items()}
