"""The data sets on which recipes are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

import usae
from usae.demo import networks, photographs

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class World:
    """Activations to train on and to evaluate, and the size of the autoencoder."""

    train: Arrays
    held_out: Arrays
    n_concepts: int
    k: int
    steps: int
    truth: usae.synthetic.Universal | None = None
    tokens: object = None  # held-out tokens of `truth`


def demo(quick: bool) -> World:
    """The demonstration's three networks, which have different architectures and objectives, on one grid."""
    train, held_out = (_crops(split, n) for split, n in _crop_counts(quick))
    nets = networks.load_networks()
    arrays = [_rows(networks.activations(nets, images)) for images in (train, held_out)]
    return World(*arrays, n_concepts=512, k=12, steps=40 if quick else 1000)


def layers(quick: bool) -> World:
    """Three depths of one network: the patches of the masked autoencoder, its first block, and its second block."""
    network = networks.load_networks()["masked"]
    arrays = [_depths(network, _crops(split, n)) for split, n in _crop_counts(quick)]
    return World(*arrays, n_concepts=512, k=12, steps=40 if quick else 1000)


def synthetic(quick: bool) -> World:
    """384 shared concepts and 64 private ones of each model, with widths that are large enough for them."""
    truth = usae.synthetic.universal({"a": 96, "b": 128, "c": 160}, n_tokens=4_000 if quick else 100_000)
    return _known(truth, 1024, 8, 40 if quick else 1500)


def narrow(quick: bool) -> World:
    """The same concepts in models so narrow that their directions are far from orthogonal."""
    truth = usae.synthetic.universal({"a": 64, "b": 96, "c": 128}, n_tokens=4_000 if quick else 100_000)
    return _known(truth, 1024, 8, 40 if quick else 1500)


def hard(quick: bool) -> World:
    """1,024 shared concepts and 256 private ones of each model, in correlated groups, with noise of 30 %."""
    truth = usae.synthetic.universal(
        {"a": 192, "b": 256, "c": 320},
        n_tokens=4_000 if quick else 100_000,
        n_shared=1024,
        n_private=256,
        correlation=0.5,
        noise=0.3,
    )
    return _known(truth, 2560, 16, 40 if quick else 2000)


WORLDS: dict[str, Callable[[bool], World]] = {
    "demo": demo,
    "layers": layers,
    "synthetic": synthetic,
    "narrow": narrow,
    "hard": hard,
}


def _known(truth: usae.synthetic.Universal, n_concepts: int, k: int, steps: int) -> World:
    tokens = truth.sample(min(20_000, len(truth.tokens)))
    return World(truth.acts, tokens.acts, n_concepts, k, steps, truth, tokens)


def _crop_counts(quick: bool) -> tuple[tuple[photographs.Split, int], ...]:
    return (("train", 100 if quick else 3000), ("held_out", 50 if quick else 1000))


def _crops(split: photographs.Split, n: int) -> np.ndarray:
    return photographs.crops(photographs.load(), split, n, seed=0 if split == "train" else 1).images


def _rows(activations: Arrays) -> Arrays:
    return {name: x.reshape(-1, x.shape[-1]) for name, x in activations.items()}


def _depths(network: torch.nn.Module, images: np.ndarray, batch: int = 256) -> Arrays:
    seen: dict[str, list[np.ndarray]] = {"patches": [], "block 1": [], "block 2": []}
    depths = (network.encoder[0], network.encoder[1], network.encoder_norm)  # activations are the inputs of these
    hooks = [
        depth.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0][:, 1:].flatten(0, 1).numpy()))
        for name, depth in zip(seen, depths, strict=True)
    ]
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            network.tokens(networks.to_tensor(images[start : start + batch]))
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(parts) for name, parts in seen.items()}
