"""`usae demo`: concepts that pretrained networks share, and pictures of them."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import usae
from usae._base import checks
from usae.demo import results
from usae.demo.pretrained import networks, pictures
from usae.demo.pretrained.catalogue import NETWORKS
from usae.demo.results import Seen, Size

FULL = Size(
    training_crops=864,
    held_out_crops=260,
    n_concepts=512,
    k=24,
    steps=300,
    shown_concepts=24,
    maximized_concepts=4,
    ascent_steps=64,
)
SMALL = Size(
    training_crops=24,
    held_out_crops=16,
    n_concepts=128,
    k=8,
    steps=20,
    shown_concepts=3,
    maximized_concepts=1,
    ascent_steps=1,
)

VIEWS = 4
"""Number of crops in a step of maximization."""

MAXIMIZED_SIDE = 192
"""Side of the images that networks see in maximization, in pixels. At 320 a step takes nearly three times as long."""

CONTROLS = ("images", "linear", "initial", "shuffled")
"""The controls that take about as long as the training."""


def run(output: str | os.PathLike[str] = "demo-output", *, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on the pretrained networks' activations and write the model, a report and pictures.

    Every number and every picture is of photographs of which the autoencoder saw no part. Arguments and files are those of
    `usae.demo.run`.
    """
    seed = checks.integer(seed, "seed", 0, 2**62 - 1)
    size = SMALL if checks.boolean(small, "small") else FULL
    folder = Path(output)
    (folder / "concepts").mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    found, models = pictures.load(), networks.load_models(threads=1)
    crops, acts = {}, {}
    for split, n, offset in (("train", size.training_crops, 0), ("held_out", size.held_out_crops, 1)):
        crops[split] = pictures.crops(found, split, n, seed=2 * seed + offset)  # type: ignore[arg-type]
        with tqdm(total=n, desc=f"networks, {split.replace('_', '-')} crops", unit="crop") as bar:
            acts[split] = networks.activations(models, crops[split].images, progress=results.advance(bar))
    extracted = time.perf_counter()
    sae = usae.UniversalSAE(size.n_concepts, size.k, seed=seed)
    sae.fit(acts["train"], steps=size.steps, validation=acts["held_out"])
    trained = time.perf_counter()

    evaluation = sae.evaluate(acts["held_out"])
    controls = usae.controls(sae, acts["held_out"], train=acts["train"], include=CONTROLS, progress=False)
    titles = [photograph.name for photograph in found]
    seen = Seen(crops["held_out"], titles, acts["held_out"], networks.GRID)
    load, title = functools.partial(networks.load_models, side=MAXIMIZED_SIDE), "Concepts of three pretrained networks"
    options: dict[str, Any] = {"views": VIEWS, "title": title, "seed": seed, "controls": controls}
    report = results.write(folder, sae, evaluation, seen, size, load, **options)
    report["networks"] = {name: dataclasses.asdict(NETWORKS[name]) for name in evaluation.model_names}
    report["held_out_photographs"] = sorted({titles[number] for number in seen.crops.photograph})
    report["controls"] = controls.table()
    seconds = {"networks": extracted - started, "training": trained - extracted, "whole": time.perf_counter() - started}
    results.finish(folder, evaluation, report, seconds)
    print(f"\n{controls.summary()}")
    return report
