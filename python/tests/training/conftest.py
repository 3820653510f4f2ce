"""Activations in the forms that `fit` reads."""

import numpy as np
import pytest

import usae
from usae._data import shuffled_blocks


@pytest.fixture
def few_rows_a_block(monkeypatch):
    """So that a small store has several groups, which is what moves the place in the data."""
    monkeypatch.setattr(shuffled_blocks, "BLOCK_ROWS", 32)
    monkeypatch.setattr(shuffled_blocks, "GROUP_BLOCKS", 4)


@pytest.fixture
def data(request, acts, tmp_path, few_rows_a_block):
    """The same activations in the forms that `fit` reads, and which of its methods takes them."""
    if request.param == "array":
        return "fit", acts
    if request.param == "memory map":
        for name, x in acts.items():
            np.save(tmp_path / f"{name}.npy", x)
        return "fit", {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in acts}
    if request.param == "store":
        with usae.ActivationStore.create(tmp_path / "acts", dtype="float32") as store:
            for start in range(0, 600, 100):
                store.append({name: x[start : start + 100] for name, x in acts.items()})
        return "fit", usae.ActivationStore(tmp_path / "acts")
    return "fit_stream", [{name: x[start : start + 70] for name, x in acts.items()} for start in range(0, 600, 70)]
