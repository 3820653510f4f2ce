"""The order in which training sees the rows of a store."""

import numpy as np
import pytest

from usae._data import shuffled_blocks
from usae._data.activations import as_aligned


def rows_in_order(n_rows, seed, position, count, batch_size=1):
    """Row numbers that training on a store of `n_rows` rows would see."""
    acts = as_aligned({"a": _numbered(n_rows)}, "acts")
    batches = shuffled_blocks.shuffled_batches(acts, seed, batch_size, position)
    found = []
    while sum(map(len, found)) < count:
        batch, rows = next(batches)
        found.append(batch["a"].array[slice(None) if rows is None else rows, 0].astype(int))
    batches.close()
    return np.concatenate(found)[:count]


def _numbered(n_rows):
    return np.arange(n_rows, dtype=np.float32)[:, None]


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17, 63, 64, 65, 127, 128, 130, 300, 1000])
def test_every_row_comes_once_in_each_epoch_and_each_epoch_has_its_own_order(small_blocks, n_rows):
    order = rows_in_order(n_rows, seed=3, position=0, count=3 * n_rows, batch_size=min(n_rows, 7)).reshape(3, n_rows)
    assert (np.sort(order, 1) == np.arange(n_rows)).all()
    if n_rows > 10:
        assert len({tuple(epoch) for epoch in order}) == 3
        other = rows_in_order(n_rows, seed=4, position=0, count=n_rows)
        assert tuple(other) != tuple(order[0])


@pytest.mark.parametrize("n_rows", [5, 64, 129, 200])
def test_any_position_can_be_sought_and_batches_cut_the_same_sequence(small_blocks, n_rows):
    whole = rows_in_order(n_rows, seed=1, position=0, count=4 * n_rows)
    for position in (0, 1, n_rows - 1, n_rows, n_rows + 3, 2 * n_rows + n_rows // 2):
        for batch_size in (1, 3, 100):
            got = rows_in_order(n_rows, 1, position, n_rows, batch_size)
            np.testing.assert_array_equal(got, whole[position : position + n_rows])


def test_rows_of_a_batch_come_from_many_blocks(small_blocks):
    order = rows_in_order(1600, seed=0, position=0, count=64)  # one group
    blocks, counts = np.unique(order // 16, return_counts=True)
    assert len(blocks) == 4 and (counts == 16).all() and np.ptp(blocks) > 20
    assert len(np.unique(order[:16] // 16)) == 4


def test_a_sample_is_all_of_a_small_store_and_runs_from_all_over_a_large_one(small_blocks):
    small = as_aligned({"a": _numbered(64)}, "acts")
    np.testing.assert_array_equal(shuffled_blocks.sample(small, 0)["a"].array, _numbered(64))
    large = as_aligned({"a": _numbered(1000)}, "acts")
    rows = shuffled_blocks.sample(large, 0)["a"].array[:, 0].astype(int)
    assert len(set(rows)) == 64 and rows[0] < 300 and rows[-1] > 700
    np.testing.assert_array_equal(rows.reshape(16, 4) - rows[::4, None], np.tile(np.arange(4), (16, 1)))
    assert (rows != shuffled_blocks.sample(large, 1)["a"].array[:, 0]).any()
