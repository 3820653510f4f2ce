"""Results of `usae.maximize` that were not maximized."""

import numpy as np

import usae
from usae.maximization.result import Firing, Maximization


def found(concept=3, names=("a", "b"), started=(True, True), side=24):
    rng = np.random.default_rng(concept)
    m = len(names)
    images = rng.random((m, 3, side, side), np.float32)
    images[~np.array(started)] = np.nan
    firing = Firing(*(np.full((m, m), value) for value in (0.5, 2.0, 1.5, 0.1)))
    return Maximization(
        concept=concept,
        model_names=tuple(names),
        joint=False,
        images=images,
        attribution=rng.random((m, side, side), np.float32),
        history=np.zeros((m, 4)),
        started=np.array(started),
        whole=firing,
        parts=firing,
        before=firing,
        dataset_peak=np.array([4.0] * m),
        dataset_r2=np.full(m, 0.9),
        r2=np.array([0.7] * m),
        stability=np.full(m, np.nan),
    )


def top_examples(names=("a", "b"), n_concepts=5, n=4, grid=(2, 3), n_images=6):
    tokens = np.arange(len(names) * n_concepts * n).reshape(len(names), n_concepts, n) % (n_images * grid[0] * grid[1])
    tokens[0, 3, 2:] = -1
    return usae.TopExamples(tuple(names), n_images * grid[0] * grid[1], grid, tokens, np.ones(tokens.shape, np.float32))
