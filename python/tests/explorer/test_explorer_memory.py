"""Memory for building an explorer, which does not grow with the number of images."""

import tracemalloc

import numpy as np
import pytest

import usae
from support.explorers import MODELS, N_CONCEPTS, made_up, pictures_of

GRID = (16, 16)
FEW, MANY = 234, 4 * 234  # as many tokens are sampled of both for the neighbours by firing
KEPT = 1024
"""Bytes of an image that are kept: its 16 strongest concepts in each of three models, with their codes, are 768."""


def peak(sae, n_images, output):
    """Bytes that Python and NumPy hold at most."""
    acts = {name: x.astype(np.float16) for name, x in made_up(n_images, grid=GRID).items()}
    pictures = pictures_of(n_images)
    tracemalloc.start()
    try:
        usae.explorer(sae, acts, pictures, output, grid=GRID, one_file=True, progress=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(sae, tmp_path):
    assert sae.n_concepts == N_CONCEPTS and len(MODELS) == 3
    few, many = (peak(sae, n, tmp_path / f"{n}.html") for n in (FEW, MANY))
    assert many - few < (MANY - FEW) * KEPT, (few, many)
