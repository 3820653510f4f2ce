"""``usae evaluate``: evaluation of a saved autoencoder on activations in files."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae._base.json import plain
from usae.analysis import universality
from usae.cli import activations
from usae.cli.figures import drawn
from usae.cli.options import Parser, add_model, add_threads, load_model, make_folder, print_json, use_threads

FIGURES = ("cross_reconstruction", "firing_entropy", "cofire_proportion", "energy_cofires")
"""Functions of `usae.plot` that draw figures. The files have the same names."""

DERIVED = (
    "firing_entropy", "cofire_proportion", "cofire_iou", "cofire_p_value", "pair_cofire_iou", "correlation", "energy",
)  # fmt: skip
"""Properties of `usae.Evaluation` that are written in addition to its attributes."""


def add_to(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "evaluate",
        help="evaluate a saved autoencoder: R2 between models, and statistics of its concepts",
        description="Evaluates a saved autoencoder, preferably on activations that it was not trained on. "
        "docs/method.md defines every number.",
    )
    add_model(parser)
    activations.add_to(parser)
    parser.option(
        "--threshold",
        type=float,
        default=0.0,
        metavar="CODE",
        help="a concept fires if its code is larger than this; published numbers use 0.1",
    )
    parser.option(
        "--partners",
        default=False,
        help="whether to look for the concept of every other model that fires most alike, and the rank of the same index",
    )
    parser.option(
        "--output", metavar="FOLDER", help="folder for evaluation.npz, evaluation.json and figures; default: none are written"
    )
    add_threads(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    use_threads(options)
    sae = load_model(options)
    folder = None if options.output is None else Path(options.output)
    if folder is not None:
        make_folder(folder, "--output")  # before the evaluation, which may take long
    acts = activations.load_masked(options.acts, "--acts", options.mask, "--mask")
    evaluation = sae.evaluate(acts, threshold=options.threshold, partners=options.partners)
    if not options.json:
        print(evaluation.summary(), flush=True)  # first, so that nothing that fails later costs the numbers
    written: list[str] = []
    try:
        if folder is not None:
            written += _write_numbers(evaluation, folder)
            written += _draw(evaluation, folder)
    finally:
        if options.json:
            print_json(_report(evaluation) | {"files": written})
    if written and not options.json:
        print(f"\nWritten to {options.output}: {', '.join(Path(file).name for file in written)}")


def _write_numbers(evaluation: usae.Evaluation, folder: Path) -> list[str]:
    """Write arrays and numbers, and return the names of the files."""
    files = [folder / "evaluation.npz", folder / "evaluation.json"]
    names = [*(field.name for field in dataclasses.fields(evaluation) if field.name != "partners"), *DERIVED]
    arrays: dict[str, Any] = {name: np.asarray(getattr(evaluation, name)) for name in names}
    if evaluation.partners is not None:
        arrays |= {f"partner_{name}": getattr(evaluation.partners, name) for name in ("rank", "index", "correlation")}
    if len(evaluation.model_names) > 1:  # one model shares nothing
        arrays["universal"] = universality.mask(evaluation)[0]
    np.savez_compressed(files[0], **arrays)  # without allow_pickle=, which NumPy before 2.2 would save as an array
    files[1].write_text(json.dumps(plain(_report(evaluation)), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return [str(file) for file in files]


def _draw(evaluation: usae.Evaluation, folder: Path) -> list[str]:
    """Write the figures, and return the names of the files."""
    files = []
    for name in FIGURES:
        if name == "firing_entropy" and len(evaluation.model_names) < 2:
            continue  # firing entropy needs two models
        file = folder / f"{name}.png"
        if drawn(file, functools.partial(_figure, name, evaluation)):
            files.append(str(file))
    return files


def _figure(name: str, evaluation: usae.Evaluation) -> Any:
    from matplotlib.figure import Figure  # a figure that can only be saved, so that no backend for windows is needed

    return getattr(usae.plot, name)(evaluation, ax=Figure(layout="constrained").subplots()).figure


def _report(evaluation: usae.Evaluation) -> dict[str, Any]:
    """Return the numbers of the summary. Those of single concepts are in evaluation.npz."""
    universal, too_rare = None, None  # one model shares nothing
    if len(evaluation.model_names) > 1:
        universal, too_rare = (int(mask.sum()) for mask in universality.mask(evaluation))
    partners: dict[str, Any] = {}
    if (found := evaluation.partners) is not None:
        shares = {"partner_share": found.share(), "partner_share_weighted": found.share(weighted=True)}
        partners = shares | {"mppc": found.mppc, "wmppc": found.wmppc}
    return partners | {
        "model_names": evaluation.model_names,
        "n_tokens": evaluation.n_tokens,
        "n_left_out": evaluation.n_left_out,
        "threshold": evaluation.threshold,
        "r2": evaluation.r2,
        "r2_standardized": evaluation.r2_standardized,
        "r2_scalar_mean": evaluation.r2_scalar_mean,
        "mse": evaluation.mse,
        "l0": evaluation.l0,
        "n_concepts": len(evaluation.cofire_counts),
        "concepts_alive": (~evaluation.dead).sum(1),
        "concepts_dead_everywhere": int(evaluation.dead_everywhere.sum()),
        "concepts_in_all_models_at_once": int((evaluation.cofire_counts > 0).sum()),
        "concepts_universal": universal,
        "concepts_too_rare_to_tell": too_rare,
        "mean_cofire_proportion": evaluation.mean_cofire_proportion(),
        "mean_agreement": evaluation.mean_agreement(),
        "energy_cofire_correlation": evaluation.energy_cofire_correlation,
        "energy_cofire_slope": evaluation.energy_cofire_slope,
    }
