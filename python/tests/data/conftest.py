"""Stores of a few small files, and blocks so small that a small store has several groups of them."""

import pytest

from support.stores import images, joined, written
from usae._data import shuffled_blocks


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(shuffled_blocks, "BLOCK_ROWS", 16)
    monkeypatch.setattr(shuffled_blocks, "GROUP_BLOCKS", 4)
    monkeypatch.setattr(shuffled_blocks, "SAMPLE_BLOCK_ROWS", 4)


@pytest.fixture
def three(tmp_path):
    """A folder with a store of three files, and what is in it."""
    shards = [images(n, seed) for seed, n in enumerate((2, 3, 1))]
    written(tmp_path / "acts", *shards)
    return tmp_path / "acts", joined(*shards)
