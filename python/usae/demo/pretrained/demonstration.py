"""`usae demo --networks pretrained`: concepts that pretrained networks share, and pictures of them."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

import usae
from usae._base import checks
from usae.demo import demonstration as small_networks
from usae.demo.concepts import examples, universal_concepts
from usae.demo.photographs import Crops, Photograph
from usae.demo.pretrained import networks, pictures
from usae.demo.pretrained.catalogue import NETWORKS


@dataclasses.dataclass(frozen=True)
class Size:
    """Numbers that decide how long the demonstration takes."""

    training_crops: int
    held_out_crops: int
    n_concepts: int
    k: int
    steps: int
    shown_concepts: int


FULL = Size(training_crops=600, held_out_crops=240, n_concepts=2048, k=16, steps=300, shown_concepts=24)
SMALL = Size(training_crops=24, held_out_crops=12, n_concepts=128, k=8, steps=20, shown_concepts=3)

CONTROLS = ("images", "linear", "initial", "shuffled")
"""The controls that take about as long as the training."""

EXAMPLES = 4


def run(output: str | os.PathLike[str] = "demo-output", *, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train on the pretrained networks' activations and write the model, a report and pictures.

    Every number and every picture is of photographs of which the autoencoder saw no part. Arguments and files are those of
    `usae.demo.run`, but no images are made for the concepts.
    """
    seed = checks.integer(seed, "seed", 0, 2**62 - 1)
    size = SMALL if checks.boolean(small, "small") else FULL
    folder = Path(output)
    (folder / "concepts").mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    found, models = pictures.load(), networks.load_models()
    crops, acts = {}, {}
    for split, n, offset in (("train", size.training_crops, 0), ("held_out", size.held_out_crops, 1)):
        crops[split] = pictures.crops(found, split, n, seed=2 * seed + offset)  # type: ignore[arg-type]
        with tqdm(total=n, desc=f"networks, {split.replace('_', '-')} crops", unit="crop") as bar:
            acts[split] = networks.activations(models, crops[split].images, progress=small_networks._advance(bar))
    extracted = time.perf_counter()
    sae = usae.UniversalSAE(size.n_concepts, size.k, seed=seed)
    sae.fit(acts["train"], steps=size.steps, validation=acts["held_out"])
    trained = time.perf_counter()

    evaluation = sae.evaluate(acts["held_out"])
    controls = usae.controls(sae, acts["held_out"], train=acts["train"], include=CONTROLS, progress=False)
    sae.save(folder / "model")
    pages = _pages(sae, evaluation, acts["held_out"], crops["held_out"], found, size.shown_concepts)
    small_networks._draw(folder, evaluation, sae.history_, pages, crops["held_out"])
    report = _report(sae, evaluation, pages)
    report["seconds"] = {
        "networks": extracted - started,
        "training": trained - extracted,
        "whole": time.perf_counter() - started,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"\n{evaluation.summary()}\n\n{controls.summary()}\n")
    print(
        f"{report['universal']} of {size.n_concepts} concepts are universal. {report['seconds']['whole']:.0f} s; see {folder}"
    )
    return report


def _pages(
    sae: usae.UniversalSAE,
    evaluation: usae.Evaluation,
    acts: dict[str, np.ndarray],
    crops: Crops,
    found: list[Photograph],
    n: int,
) -> small_networks.Pages:
    """Return the universal concepts with the largest energy, with the crops that fire them most."""
    codes = {name: sae.encode(values.reshape(-1, values.shape[-1]), name) for name, values in acts.items()}
    show = functools.partial(examples, crops=crops, n=EXAMPLES, grid=networks.GRID)
    pages = []
    for concept in universal_concepts(evaluation, n):
        shown = {name: show(code, concept=concept) for name, code in codes.items()}
        strongest = [found[crops.photograph[example.crop]].name for each in shown.values() for example in each]
        names = sorted(set(strongest), key=lambda name: (-strongest.count(name), name))
        pages.append((concept, ", ".join(names[:2]), shown))
    return pages


def _report(sae: usae.UniversalSAE, evaluation: usae.Evaluation, pages: small_networks.Pages) -> dict[str, Any]:
    off = ~np.eye(len(evaluation.model_names), dtype=bool)
    return {
        "usae": usae.__version__,
        "networks": {name: dataclasses.asdict(NETWORKS[name]) for name in evaluation.model_names},
        "recipe": sae.recipe_.to_dict(),
        "n_concepts": sae.n_concepts,
        "k": sae.k,
        "models": dict(sae.n_features_in_),
        "held_out_tokens": evaluation.n_tokens,
        "held_out_photographs": list(pictures.HELD_OUT),
        "r2": evaluation.r2.tolist(),
        "r2_same_model": float(np.diag(evaluation.r2).mean()),
        "r2_other_model": float(evaluation.r2[off].mean()),
        "dead_everywhere": int(evaluation.dead_everywhere.sum()),
        "universal": int(evaluation.universal().sum()),
        "mean_cofire_proportion": evaluation.mean_cofire_proportion().tolist(),
        "concepts": [
            {
                "concept": concept,
                "photographs": title,
                "firing_entropy": float(evaluation.firing_entropy[concept]),
                "cofire_proportion": evaluation.cofire_proportion[:, concept].tolist(),
            }
            for concept, title, _ in pages
        ],
    }
