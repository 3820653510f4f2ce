"""What a demonstration writes of a trained autoencoder: figures, images that networks want to see, and a report."""

from __future__ import annotations

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

import usae
from usae.demo import figures, side_by_side
from usae.demo.concepts import Example, examples, photograph_shares, universal_concepts
from usae.demo.photographs import Crops
from usae.torch import Model


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


@dataclasses.dataclass(frozen=True)
class Seen:
    """Held-out crops of photographs, and what every network makes of them.

    `titles` are the names of all photographs, and `grid` the side of the token grid. Activations are [n_crops, tokens, width].
    """

    crops: Crops
    titles: Sequence[str]
    activations: Mapping[str, np.ndarray]
    grid: int


EXAMPLES = 5
OVERVIEW_EXAMPLES = 4
OVERVIEW_CONCEPTS = 12


Pages = list[tuple[int, str, dict[str, list[Example]]]]
"""For each concept to show: its number, the photographs on which it fires, and examples by network."""


def advance(bar: tqdm) -> Callable[[int, int], object]:
    return lambda done, _: bar.update(done - bar.n)


def write(
    folder: Path,
    sae: usae.UniversalSAE,
    evaluation: usae.Evaluation,
    seen: Seen,
    size: Size,
    load_models: Callable[..., Mapping[str, Model]],
    *,
    views: int,
    title: str,
    seed: int,
    controls: usae.Controls | None = None,
) -> dict[str, Any]:
    """Save the autoencoder, draw everything, and return the report, of which `finish` makes a file.

    `load_models` is called as ``load_models(threads=n)``, `views` are the crops in a step of maximization, and `title` is that
    of the page of all concepts. `controls` are shown there beside the autoencoder's numbers. Default: None.
    """
    sae.save(folder / "model")
    crops, grid = seen.crops, seen.grid
    codes = {name: sae.encode(values.reshape(-1, values.shape[-1]), name) for name, values in seen.activations.items()}
    pages = _pages(evaluation, codes, crops, seen.titles, size.shown_concepts, grid)
    _draw(folder, evaluation, sae.history_, pages, crops)
    first = [concept for concept, _, _ in pages[: size.maximized_concepts]]
    options: dict[str, Any] = {"steps": size.ascent_steps, "views": views, "dataset": evaluation, "seed": seed}
    maximized = side_by_side.maximized(sae, first, load_models, **options)
    _draw_maximized(folder, sae, maximized, seen.activations, crops, grid)
    _explore(folder, sae, seen.activations, crops, evaluation, maximized, controls, title)
    report = _report(sae, evaluation, codes, crops, seen.titles, pages, grid)
    report["maximization"] = [{key: x for key, x in found.to_dict().items() if key != "history"} for found in maximized]
    return report


def finish(folder: Path, evaluation: usae.Evaluation, report: dict[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Write the report with the seconds that parts took, tell what there is, and return the report."""
    report["seconds"] = dict(seconds)
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    _tell(folder, evaluation, report)
    return report


def _pages(
    evaluation: usae.Evaluation,
    codes: Mapping[str, usae.Codes],
    crops: Crops,
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


def _where(codes: Mapping[str, usae.Codes], crops: Crops, concept: int, titles: Sequence[str], grid: int) -> str:
    """Return the names of the two photographs on which a concept fires most over all networks, with their shares."""
    shares = _shares(codes, crops, concept, grid)
    return ", ".join(f"{titles[i]} {share:.0%}" for i, share in list(shares.items())[:2])


def _shares(codes: Mapping[str, usae.Codes], crops: Crops, concept: int, grid: int) -> dict[int, float]:
    """Return each photograph's share of a concept's codes, averaged over the networks, largest first."""
    by_network = [photograph_shares(code, crops, concept, grid) for code in codes.values()]
    pictures = {i for shares in by_network for i in shares}
    mean = {i: sum(shares.get(i, 0.0) for shares in by_network) / len(by_network) for i in pictures}
    return dict(sorted(mean.items(), key=lambda item: (-item[1], item[0])))


def _draw(folder: Path, evaluation: usae.Evaluation, history: Sequence[Mapping[str, Any]], pages: Pages, crops: Crops) -> None:
    drawn(folder / "cross_reconstruction.png", lambda path: figures.cross_reconstruction(evaluation, path))
    drawn(folder / "training.png", lambda path: figures.training_curves(history, path))
    for stale in (folder / "concepts").glob("concept-*.png"):
        stale.unlink()
    for rank, (concept, title, shown) in enumerate(pages, start=1):
        page = functools.partial(figures.concept_page, concept, title, shown, crops, columns=EXAMPLES)
        file = folder / "concepts" / f"concept-{rank:02}-{concept:04}.png"
        drawn(file, functools.partial(_at, page))
    if pages:
        overview = functools.partial(figures.overview, pages[:OVERVIEW_CONCEPTS], crops, columns=OVERVIEW_EXAMPLES)
        drawn(folder / "concepts.png", functools.partial(_at, overview))


def _at(draw: Callable[..., object], path: Path) -> object:
    return draw(path=path)


def drawn(path: Path, draw: Callable[[Path], object]) -> None:
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
    crops: Crops,
    grid: int,
) -> None:
    path = folder / "maximization.png"
    path.unlink(missing_ok=True)
    if maximized:
        top = usae.top_examples(sae, activations, EXAMPLES, grid=(grid, grid), one_per_image=True)
        drawn(path, lambda path: usae.plot.maximization(maximized, top, crops.images, n=4).savefig(path, dpi=figures.DPI))


def _explore(
    folder: Path,
    sae: usae.UniversalSAE,
    activations: Mapping[str, np.ndarray],
    crops: Crops,
    evaluation: usae.Evaluation,
    maximized: Sequence[usae.Maximization],
    controls: usae.Controls | None,
    title: str,
) -> None:
    """Write the page that shows every concept."""
    options: dict[str, Any] = {"one_file": True, "evaluation": evaluation, "maximizations": maximized, "coordinates": "tsne"}
    options |= {"title": title, "controls": controls, "progress": False}
    drawn(folder / "explorer.html", lambda path: usae.explorer(sae, activations, crops.images, path, **options))


def _report(
    sae: usae.UniversalSAE,
    evaluation: usae.Evaluation,
    codes: Mapping[str, usae.Codes],
    crops: Crops,
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
