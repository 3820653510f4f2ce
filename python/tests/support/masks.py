"""Activations with a mask, and the same without the rows that do not count."""

import numpy as np

import usae
from support.autoencoders import RECIPE

WIDTHS = {"a": 24, "b": 32}


def images(n, seed, tokens=20):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, tokens, 8)) * (rng.random((n, tokens, 8)) < 0.3)
    return {name: (common @ rng.standard_normal((8, width))).astype(np.float32) for name, width in WIDTHS.items()}


def masked(acts, seed=9, share=0.3):
    """A mask, the activations with NaN in every row that does not count, and those of the rows that count alone."""
    mask = np.random.default_rng(seed).random(next(iter(acts.values())).shape[:2]) >= share
    with_nan = {name: np.where(mask[..., None], x, np.nan).astype(x.dtype) for name, x in acts.items()}
    return mask, with_nan, {name: x[mask] for name, x in acts.items()}


def new(**changes):
    return usae.UniversalSAE(64, 4, **{"recipe": RECIPE.replace(batch_size=64), "seed": 1} | changes)
