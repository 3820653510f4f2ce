"""`usae demo`: training on the activations of three small networks for photographs, and pictures of the concepts they share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm.auto import tqdm

import usae
from usae._base import checks
from usae.demo import networks, photographs, results
from usae.demo.results import Seen, Size

FULL = Size(
    training_crops=6000,
    held_out_crops=2000,
    n_concepts=256,
    k=12,
    steps=2000,
    shown_concepts=12,
    maximized_concepts=8,
    ascent_steps=96,
)
SMALL = Size(
    training_crops=400,
    held_out_crops=200,
    n_concepts=128,
    k=8,
    steps=150,
    shown_concepts=3,
    maximized_concepts=2,
    ascent_steps=8,
)

VIEWS = 8
"""Number of crops in a step of maximization."""

T = TypeVar("T")
PerSplit = dict[photographs.Split, T]


def run(output: str | os.PathLike[str] = "demo-output", *, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on the demonstration's networks and write the model, a report and pictures.

    Every number and every picture is of held-out crops: parts of the photographs that neither the networks nor the
    autoencoder were trained on.

    Parameters
    ----------
    output : path-like
        Folder to write to. It is made if it does not exist; files of an earlier demonstration are replaced.
        Default: "demo-output".
    small : bool
        Whether to run for a few seconds only, to check that everything works. Default: False.
    seed : int
        Seed of the crops and of the autoencoder. Default: 0.

    Returns
    -------
    dict
        The contents of `report.json`.
    """
    seed = checks.integer(seed, "seed", 0, 2**62 - 1)
    size = SMALL if checks.boolean(small, "small") else FULL
    folder = Path(output)
    (folder / "concepts").mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    crops, activations = _inputs(size, seed)
    sae = usae.UniversalSAE(size.n_concepts, size.k, seed=seed)
    sae.fit(activations["train"], steps=size.steps, validation=activations["held_out"])
    trained = time.perf_counter()
    evaluation = sae.evaluate(activations["held_out"])
    titles = [photograph.name for photograph in photographs.load()]
    seen = Seen(crops["held_out"], titles, activations["held_out"], networks.GRID)
    title = "Concepts of three small networks"
    report = results.write(folder, sae, evaluation, seen, size, networks.load_models, views=VIEWS, title=title, seed=seed)
    seconds = {"training": trained - started, "whole": time.perf_counter() - started}
    return results.finish(folder, evaluation, report, seconds)


def _inputs(size: Size, seed: int) -> tuple[PerSplit[photographs.Crops], PerSplit[dict[str, np.ndarray]]]:
    """Return crops of both splits, and every network's activations of them, [n_crops, tokens, width]."""
    pictures = photographs.load()
    nets = networks.load_networks()
    crops: PerSplit[photographs.Crops] = {}
    activations: PerSplit[dict[str, np.ndarray]] = {}
    splits: tuple[tuple[photographs.Split, int, int], ...] = (
        ("train", size.training_crops, 0),
        ("held_out", size.held_out_crops, 1),
    )
    for split, n, offset in splits:
        crops[split] = photographs.varied_crops(pictures, split, n, seed=2 * seed + offset)
        with tqdm(total=n, desc=f"networks, {split.replace('_', '-')} crops", unit="crop") as bar:
            activations[split] = networks.activations(nets, crops[split].images, progress=results.advance(bar))
    return crops, activations
