"""Moran's I and area of sparse codes, held to maps with a number for every token."""

import numpy as np
import pytest

from usae.analysis.spatial import firing_maps

N_CONCEPTS = 5


def dense_morans_i(x, counts):
    """Moran's I of one map [rows, columns] by its definition, over the tokens that count."""
    places = np.argwhere(counts)
    u = x[counts].mean()
    pairs = [(a, b) for a in places for b in places if abs(a - b).sum() == 1]
    squares = ((x[counts] - u) ** 2).sum()
    if not pairs or np.ptp(x[counts]) == 0:
        return np.nan
    return len(places) / len(pairs) * sum((x[tuple(a)] - u) * (x[tuple(b)] - u) for a, b in pairs) / squares


def sparse(maps):
    """Codes [images, tokens, m] of maps [images, rows, columns, m], with their slots in an order of their own."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1]).astype(np.float32)
    order = np.random.default_rng(1).permuted(np.broadcast_to(np.arange(flat.shape[-1]), flat.shape), axis=2)
    values = np.take_along_axis(flat, order, 2)
    return values, np.where(values > 0, order, flat.shape[-1])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("grid", [(4, 6), (1, 7), (5, 1), (3, 3)])
def test_maps_of_sparse_codes_have_the_measures_of_dense_ones(grid, masked):
    rng = np.random.default_rng(0)
    maps = rng.random((6, *grid, N_CONCEPTS)) * (rng.random((6, *grid, N_CONCEPTS)) < [0.1, 0.5, 0.9, 1, 0])
    maps[2, ..., 3] = 0.25  # fires everywhere, equally
    maps[3, ..., 3] = np.float32(1) + np.float32(2.0**-23) * (rng.random(grid) < 0.5)  # the same but for the last bit
    counts = rng.random((6, *grid)) < 0.8 if masked else np.ones((6, *grid), bool)
    counts[:, 0, 0] = True
    values, concepts = sparse(maps)
    found = firing_maps(values, concepts, N_CONCEPTS, grid, counts=counts.reshape(6, -1) if masked else None)
    fires = (maps > 0) & counts[..., None]
    assert list(zip(found.images, found.concepts, strict=True)) == [
        (i, c) for i in range(6) for c in range(N_CONCEPTS) if fires[i, ..., c].any()
    ]
    for image, concept, coherence, area in zip(*found, strict=True):
        expected = dense_morans_i(maps[image, ..., concept].astype(np.float32).astype(float), counts[image])
        assert coherence == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)
        assert area == fires[image, ..., concept].sum() / counts[image].sum()


def test_smooth_maps_are_told_from_scattered_ones():
    smooth, board = np.zeros((8, 8)), np.indices((8, 8)).sum(0) % 2
    smooth[:, :4] = 1
    found = firing_maps(*sparse(np.stack([smooth, board], -1)[None]), 2, (8, 8))
    assert found.coherence[0] > 0.8 and found.coherence[1] == pytest.approx(-1)


def test_a_threshold_and_no_grid():
    values, concepts = sparse(np.full((1, 2, 2, 1), 0.5))
    assert len(firing_maps(values, concepts, 1, (2, 2), threshold=0.5).images) == 0
    found = firing_maps(values, concepts, 1, None)
    assert found.area == [1] and np.isnan(found.coherence).all()
