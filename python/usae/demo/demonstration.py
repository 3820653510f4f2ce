"""`usae demo`: training on the activations of three small networks for photographs, and pictures of the concepts they share."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm.auto import tqdm

import usae
from usae._base import checks
from usae.demo import figures, networks, photographs, side_by_side
from usae.demo.concepts import Example, examples, photograph_shares, universal_concepts


@dataclasses.dataclass(frozen=True)
class Size:
    """Numbers that decide how long the demonstration takes."""

    training_crops: int
    held_out_crops: int
    n_concepts: int
    k: int
    steps: int
    shown_concepts: int
    maximized_concepts: int
    ascent_steps: int


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

FLAT = 8.0
"""A crop is featureless if the standard deviation of every colour channel is below this, for colours from 0 to 255."""

FLAT_SHARE = 0.1
"""Share of featureless crops that are kept."""

EXAMPLES = 5
OVERVIEW_EXAMPLES = 4
OVERVIEW_CONCEPTS = 12


T = TypeVar("T")
PerSplit = dict[photographs.Split, T]
Pages = list[tuple[int, str, dict[str, list[Example]]]]
"""For each concept to show: its number, the photographs on which it fires, and examples by network."""


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
    codes = {name: sae.encode(_rows(values), name) for name, values in activations["held_out"].items()}

    titles = [photograph.name for photograph in photographs.load()]
    pages = _pages(evaluation, codes, crops["held_out"], titles, size.shown_concepts, networks.GRID)
    sae.save(folder / "model")
    _draw(folder, evaluation, sae.history_, pages, crops["held_out"])
    first = [concept for concept, _, _ in pages[: size.maximized_concepts]]
    options: dict[str, Any] = {"steps": size.ascent_steps, "views": VIEWS, "dataset": evaluation, "seed": seed}
    maximized = side_by_side.maximized(sae, first, networks.load_models, **options)
    _draw_maximized(folder, sae, maximized, activations["held_out"], crops["held_out"], networks.GRID)
    title = "Concepts of three small networks"
    _explore(folder, sae, activations["held_out"], crops["held_out"], evaluation, maximized, title)
    report = _report(sae, evaluation, codes, crops["held_out"], titles, pages, networks.GRID)
    report["maximization"] = [{key: x for key, x in found.to_dict().items() if key != "history"} for found in maximized]
    report["seconds"] = {"training": trained - started, "whole": time.perf_counter() - started}
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    _tell(folder, evaluation, report)
    return report


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
        crops[split] = _varied_crops(pictures, split, n, seed=2 * seed + offset)
        with tqdm(total=n, desc=f"networks, {split.replace('_', '-')} crops", unit="crop") as bar:
            activations[split] = networks.activations(nets, crops[split].images, progress=_advance(bar))
    return crops, activations


def _advance(bar: tqdm) -> Callable[[int, int], object]:
    return lambda done, _: bar.update(done - bar.n)


def _varied_crops(pictures: list[photographs.Photograph], split: photographs.Split, n: int, seed: int) -> photographs.Crops:
    """Return crops of which few are featureless.

    Out-of-focus background and the moon's plains fill half of some photographs. If their crops were all kept, the concepts with
    the largest energy would all represent featureless crops.
    """
    drawn = photographs.crops(pictures, split, 2 * n, seed)
    contrast = drawn.images.reshape(2 * n, -1, 3).std(axis=1).max(axis=1)
    keep = (contrast >= FLAT) | (np.random.default_rng(seed).random(2 * n) < FLAT_SHARE)
    chosen = np.flatnonzero(keep)[:n]
    return photographs.Crops(drawn.images[chosen], drawn.photograph[chosen], drawn.boxes[chosen])


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _pages(
    evaluation: usae.Evaluation,
    codes: Mapping[str, usae.Codes],
    crops: photographs.Crops,
    titles: Sequence[str],
    n: int,
    grid: int,
) -> Pages:
    """Return the concepts to show. Crops have grid * grid tokens."""
    pages = []
    for concept in universal_concepts(evaluation, n):
        shown = {name: examples(code, crops, concept, EXAMPLES, grid) for name, code in codes.items()}
        pages.append((concept, _where(codes, crops, concept, titles, grid), shown))
    return pages


def _where(codes: Mapping[str, usae.Codes], crops: photographs.Crops, concept: int, titles: Sequence[str], grid: int) -> str:
    """Return the names of the two photographs on which a concept fires most over all networks, with their shares."""
    shares = _shares(codes, crops, concept, grid)
    return ", ".join(f"{titles[i]} {share:.0%}" for i, share in list(shares.items())[:2])


def _shares(codes: Mapping[str, usae.Codes], crops: photographs.Crops, concept: int, grid: int) -> dict[int, float]:
    """Return each photograph's share of a concept's codes, averaged over the networks, largest first."""
    by_network = [photograph_shares(code, crops, concept, grid) for code in codes.values()]
    pictures = {i for shares in by_network for i in shares}
    mean = {i: sum(shares.get(i, 0.0) for shares in by_network) / len(by_network) for i in pictures}
    return dict(sorted(mean.items(), key=lambda item: (-item[1], item[0])))


def _draw(
    folder: Path, evaluation: usae.Evaluation, history: Sequence[Mapping[str, Any]], pages: Pages, crops: photographs.Crops
) -> None:
    _drawn(folder / "cross_reconstruction.png", lambda path: figures.cross_reconstruction(evaluation, path))
    _drawn(folder / "training.png", lambda path: figures.training_curves(history, path))
    for stale in (folder / "concepts").glob("concept-*.png"):
        stale.unlink()
    for rank, (concept, title, shown) in enumerate(pages, start=1):
        page = functools.partial(figures.concept_page, concept, title, shown, crops, columns=EXAMPLES)
        file = folder / "concepts" / f"concept-{rank:02}-{concept:04}.png"
        _drawn(file, functools.partial(_at, page))
    if pages:
        overview = functools.partial(figures.overview, pages[:OVERVIEW_CONCEPTS], crops, columns=OVERVIEW_EXAMPLES)
        _drawn(folder / "concepts.png", functools.partial(_at, overview))


def _at(draw: Callable[..., object], path: Path) -> object:
    return draw(path=path)


def _drawn(path: Path, draw: Callable[[Path], object]) -> None:
    """Draw a figure. If that fails, warn: it must not cost the numbers and the other figures."""
    try:
        draw(path)
    except Exception as error:  # matplotlib raises many kinds
        warnings.warn(f"{path} is not drawn: {type(error).__name__}: {error}", stacklevel=2)


def _draw_maximized(
    folder: Path,
    sae: usae.UniversalSAE,
    maximized: Sequence[usae.Maximization],
    activations: Mapping[str, np.ndarray],
    crops: photographs.Crops,
    grid: int,
) -> None:
    path = folder / "maximization.png"
    path.unlink(missing_ok=True)
    if maximized:
        top = usae.top_examples(sae, activations, EXAMPLES, grid=(grid, grid), one_per_image=True)
        _drawn(path, lambda path: usae.plot.maximization(maximized, top, crops.images, n=4).savefig(path, dpi=figures.DPI))


def _explore(
    folder: Path,
    sae: usae.UniversalSAE,
    activations: Mapping[str, np.ndarray],
    crops: photographs.Crops,
    evaluation: usae.Evaluation,
    maximized: Sequence[usae.Maximization],
    title: str,
) -> None:
    """Write the page that shows every concept."""
    options: dict[str, Any] = {"one_file": True, "evaluation": evaluation, "maximizations": maximized, "coordinates": "tsne"}
    options |= {"title": title, "progress": False}
    _drawn(folder / "explorer.html", lambda path: usae.explorer(sae, activations, crops.images, path, **options))


def _report(
    sae: usae.UniversalSAE,
    evaluation: usae.Evaluation,
    codes: Mapping[str, usae.Codes],
    crops: photographs.Crops,
    titles: Sequence[str],
    pages: Pages,
    grid: int,
) -> dict[str, Any]:
    off = ~np.eye(len(evaluation.model_names), dtype=bool)
    return {
        "usae": usae.__version__,
        "recipe": sae.recipe_.to_dict(),
        "n_concepts": sae.n_concepts,
        "k": sae.k,
        "models": dict(sae.n_features_in_),
        "held_out_tokens": evaluation.n_tokens,
        "r2": evaluation.r2.tolist(),
        "r2_same_model": float(np.diag(evaluation.r2).mean()),
        "r2_other_model": float(evaluation.r2[off].mean()),
        "l0": evaluation.l0.tolist(),
        "dead": evaluation.dead.sum(1).tolist(),
        "dead_everywhere": int(evaluation.dead_everywhere.sum()),
        "universal": int(evaluation.universal().sum()),
        "mean_cofire_proportion": evaluation.mean_cofire_proportion().tolist(),
        "concepts": [
            {
                "concept": concept,
                "firing_entropy": float(evaluation.firing_entropy[concept]),
                "energy": evaluation.energy[:, concept].tolist(),
                "firing_counts": evaluation.firing_counts[:, concept].tolist(),
                "cofire_proportion": evaluation.cofire_proportion[:, concept].tolist(),
                "photographs": {titles[i]: share for i, share in _shares(codes, crops, concept, grid).items()},
            }
            for concept, _, _ in pages
        ],
    }


def _tell(folder: Path, evaluation: usae.Evaluation, report: dict[str, Any]) -> None:
    """Print the summary and the paths of the results."""
    print()
    print(evaluation.summary())
    print("\nThe most energetic universal concepts, and the photographs they fire on:")
    for entry in report["concepts"]:
        where = ", ".join(f"{name} {share:.0%}" for name, share in list(entry["photographs"].items())[:3])
        together = min(entry["cofire_proportion"])
        print(f"  {entry['concept']:5}  entropy {entry['firing_entropy']:.2f}  co-firing {together:.0%}  {where}")
    own = [found["whole"]["share"][i][i] for found in report["maximization"] for i in range(len(found["whole"]["share"]))]
    if own:
        print(f"\nImages made for {len(report['maximization'])} of them: {np.mean(np.array(own) > 0):.0%} fire their concept")
    print(f"\n{report['seconds']['whole']:.0f} s. Written to {folder}:")
    for name in (
        "concepts.png",
        "explorer.html",
        "maximization.png",
        "concepts/",
        "cross_reconstruction.png",
        "training.png",
        "report.json",
        "model/",
    ):
        if (folder / name).exists():
            print(f"  {folder / name}")
