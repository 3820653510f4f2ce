"""The buffer that mixes the rows of a stream."""

import numpy as np
import pytest

from support.refusals import refuses
from support.streams import cut
from usae._data.shuffle_buffer import ShuffleBuffer


def numbered(n):
    return {"a": np.arange(n, dtype=np.float32)[:, None], "b": -np.arange(n, dtype=np.float32)[:, None]}


def drawn(batches, capacity, batch_size, steps, seed=0):
    buffer = ShuffleBuffer(batches, capacity)
    rows = [batch["a"].array[:, 0].astype(int) for batch, _ in buffer.draw(seed, batch_size, steps)]
    return buffer, np.array(rows).reshape(steps, batch_size)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("capacity", [20, 64, 1000])
def test_every_row_is_drawn_once_whatever_the_size_of_batches_and_buffer(size, capacity):
    buffer, rows = drawn(iter(cut(numbered(200), size)), capacity, batch_size=20, steps=10)
    assert sorted(rows.ravel()) == list(range(200)) and buffer.tokens_read == 200 and buffer.epochs == 1
    with refuses("batches", "200 rows, enough for 10"):
        drawn(iter(cut(numbered(200), size)), capacity, batch_size=20, steps=11)


def test_how_rows_are_cut_into_batches_does_not_matter_and_the_seed_does():
    results = [drawn(iter(cut(numbered(500), size)), 100, 10, 50)[1] for size in (1, 33, 500)]
    assert all((result == results[0]).all() for result in results)
    assert (drawn(iter(cut(numbered(500), 33)), 100, 10, 50, seed=1)[1] != results[0]).any()


def test_rows_of_models_stay_together():
    for batch, rows in ShuffleBuffer(cut(numbered(90), 7), 40).draw(0, 16, 50):
        assert rows is None and (batch["a"].array == -batch["b"].array).all()


def test_rows_are_mixed_with_all_of_the_buffer():
    _, rows = drawn(iter(cut(numbered(10_000), 10)), 1000, 50, 150)
    assert rows[0].max() > 900 and rows[0].min() < 100 and len(np.unique(rows[0] // 100)) > 7
    # A row that is drawn with probability 1/20 stays for 20 batches on average, in which 1,000 rows come.
    ages = 1000 + 50 * np.arange(150)[:, None] - rows
    assert 500 < np.median(ages[50:]) < 1000


def test_a_list_is_gone_through_again_and_again_and_its_whole_is_the_buffer():
    buffer, rows = drawn(cut(numbered(100), 30), 1000, 10, 35)
    assert buffer.epochs == 5 and buffer.tokens_read == 100 + 34 * 10
    counts = np.bincount(rows.ravel(), minlength=100)
    assert counts.sum() == 350 and counts.min() >= 1 and counts.max() <= 5
    assert buffer.sample["a"].n_tokens == 100


def test_only_what_is_needed_is_taken_from_the_batches():
    taken = []
    batches = (taken.append(number) or batch for number, batch in enumerate(cut(numbered(1000), 10)))
    buffer = ShuffleBuffer(batches, 100)
    assert taken == list(range(10))
    for _ in buffer.draw(0, 20, 6):
        pass
    assert taken == list(range(20))
