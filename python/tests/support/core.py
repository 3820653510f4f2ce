"""A core of the C extension, without the package around it."""

import numpy as np

from usae import _usae

# Numbers of numpy, and both ways to say "none", beside plain values.
RECIPE = _usae.recipe_preset(_usae.PRESET_DEFAULT) | {
    "initialization": "tied",
    "statistics_tokens": 0,
    "k_max": None,
    "aux_k": 0,
    "dead_tokens": 1000,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "total_steps": np.int64(0),
    "weight_decay": np.float32(0),
    "clip_norm": 0,
    "prefixes": (0.25, np.float32(1)),
    "merge_cosine": 0.0,
    "prefix_loss": "mean",
}

N_CONCEPTS, K, WIDTHS = 32, 4, {"vit": 8, "dino": 6}


def new_core(**changes):
    arguments = {"n_concepts": N_CONCEPTS, "k": K, "seed": 2**64 - 1, "n_threads": 2, "recipe": RECIPE}
    return _usae.Core(**{**arguments, **changes})


def activations(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def encode(core, x, n=None):
    n = int(np.prod(x.shape[:-1])) if n is None else n
    values, indices = np.empty((n, K), np.float32), np.empty((n, K), np.int32)
    core.encode(0, x, values, indices)
    return values, indices
