"""Small stores of activations."""

import numpy as np

import usae

WIDTHS = {"a": 3, "网/b": 5}
MANIFEST = "usae-store.json"


def images(n, seed, tokens=4, widths=WIDTHS, dtype=np.float32):
    values = np.random.default_rng(seed)
    return {name: values.standard_normal((n, tokens, width)).astype(dtype) for name, width in widths.items()}


def joined(*shards):
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def written(path, *shards, **options):
    with usae.ActivationStore.create(path, **options) as store:
        for shard in shards:
            store.append(shard)
    return store
