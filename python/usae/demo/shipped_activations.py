"""Activations in the package, so that a first program needs neither PyTorch nor photographs.

``activations.npz`` holds activations of the three networks of `usae.demo.networks` on crops of the photographs of
`usae.demo.photographs`. It holds no photographs. ``tools/make_demo_activations.py`` writes it, with `crops` and `compute`.
"""

from __future__ import annotations

import importlib.resources

import numpy as np

FILE = "activations.npz"
"""Name of the file in this folder. It has arrays "train.masked", "held_out.masked" and so on, as float16 to halve the size."""

TRAINING_CROPS, HELD_OUT_CROPS = 240, 80

GRID = 4
"""Side of the token grid. To keep the file small, it is every second row and column of the networks' common grid of 8 x 8."""

SEED = 0
"""Seed of the training crops. The held-out crops have the next seed."""


def load() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read the activations that `usae.demo.activations` returns."""
    with importlib.resources.files("usae.demo").joinpath(FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        train, held_out = (
            {key.partition(".")[2]: arrays[key].astype(np.float32) for key in arrays.files if key.startswith(f"{split}.")}
            for split in ("train", "held_out")
        )
    return train, held_out


def crops() -> tuple[np.ndarray, np.ndarray]:
    """Cut the crops that `usae.demo.crops` returns."""
    from usae.demo import photographs

    pictures = photographs.load()
    train = photographs.varied_crops(pictures, "train", TRAINING_CROPS, seed=SEED)
    held_out = photographs.varied_crops(pictures, "held_out", HELD_OUT_CROPS, seed=SEED + 1)
    return train.images, held_out.images


def compute(images: np.ndarray) -> dict[str, np.ndarray]:
    """Run the three networks over `images`, uint8 [n, 64, 64, 3]. Returns float32 [n, 16, width] for each."""
    from usae.demo import networks

    step = networks.GRID // GRID
    result = {}
    for name, tokens in networks.activations(networks.load_networks(), images).items():
        grid = tokens.reshape(len(images), networks.GRID, networks.GRID, -1)[:, ::step, ::step]
        result[name] = grid.reshape(len(images), GRID**2, -1)
    return result
