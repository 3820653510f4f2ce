"""Measures what rows that are not aligned between models are worth: python benchmarks/weakly_paired.py [--quick].

Of the rows of three models a share is aligned, drawn at random. The rest is left out, or trained on as rows of one model alone:
each part in proportion to its rows, or the aligned rows in half of the steps. Two data sets: the demonstration's three networks
(3,840 rows, m = 512, k = 16), and 128 known concepts that three models share with 24 private ones of each (20,000 rows,
m = 384, k = 8). See docs/weakly_paired.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report  # noqa: E402

SHARES = (1.0, 0.1, 0.01, 0.001)
HALF = "aligned rows in half of the steps"
RESTS = ("left out", "in proportion", HALF)
RECIPES = {"default": usae.recipes.default, "agreeing": usae.recipes.agreeing}
HEADING = ["share aligned", "rows", "the rest", "R2 same", "R2 other", "agreement", "universal", "seconds"]


def weakly_paired(acts: Mapping[str, np.ndarray], share: float, rest: str, seed: int) -> Any:
    """Return activations of which this share of rows is aligned, at least one row."""
    rows = {name: x.reshape(-1, x.shape[-1]) for name, x in acts.items()}
    n_rows = len(next(iter(rows.values())))
    order, n_paired = np.random.default_rng(seed).permutation(n_rows), max(1, round(share * n_rows))
    paired = {name: x[np.sort(order[:n_paired])] for name, x in rows.items()}
    if rest == "left out" or n_paired == n_rows:
        return paired
    # Each model's own order, so that nothing can learn from equal positions.
    alone = [
        {name: x[np.random.default_rng([seed, number]).permutation(order[n_paired:])]}
        for number, (name, x) in enumerate(rows.items())
    ]
    shares = [0.5] + [0.5 / len(alone)] * len(alone) if rest == HALF else None
    return usae.WeaklyPaired(paired, *alone, shares=shares)


def cases() -> list[tuple[float, str]]:
    return [(share, rest) for share in SHARES for rest in (RESTS if share < 1 else RESTS[:1])]


def train(acts: Any, sizes: tuple[int, int], recipe: str, seed: int, arguments: argparse.Namespace) -> usae.UniversalSAE:
    n_concepts, k = sizes
    sae = usae.UniversalSAE(n_concepts, k, recipe=RECIPES[recipe](), seed=seed, n_threads=arguments.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows are what is measured
        return sae.fit(acts, steps=60 if arguments.quick else arguments.steps, progress=False)


def numbers(evaluation: usae.Evaluation) -> list[float]:
    """R2 of a model's own code and of other models', and the agreement of codes, each a mean over models or pairs."""
    apart = ~np.eye(len(evaluation.r2), dtype=bool)
    agreement = evaluation.mean_agreement()
    return [float(np.diag(evaluation.r2).mean()), float(evaluation.r2[apart].mean()), float(agreement[apart].mean())]


def demonstration(seed: int, arguments: argparse.Namespace) -> tuple[Any, tuple[int, int], Any]:
    acts, held_out = usae.demo.activations()

    def measure(sae: usae.UniversalSAE) -> list[float]:
        evaluation = sae.evaluate(held_out)
        return [*numbers(evaluation), float(evaluation.universal().sum())]

    return acts, (512, 16), measure


def known(seed: int, arguments: argparse.Namespace) -> tuple[Any, tuple[int, int], Any]:
    n_tokens = 4_000 if arguments.quick else 20_000
    truth = usae.synthetic.universal({"a": 32, "b": 48, "c": 64}, n_shared=128, n_private=24, n_tokens=n_tokens, seed=seed)
    held_out = truth.sample(2_000 if arguments.quick else 10_000)

    def measure(sae: usae.UniversalSAE) -> list[float]:
        score = usae.synthetic.score(sae, truth, held_out)
        return [*numbers(sae.evaluate(held_out.acts)), float(score.universally_recovered)]

    return truth.acts, (384, 8), measure


WORLDS = {
    "demonstration": (demonstration, "universal concepts, of 512"),
    "known concepts": (known, "share of the shared concepts that is universally recovered"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tokens and steps, to check that it works")
    parser.add_argument("--threads", type=int, default=2, help="threads of training")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each training")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0 on")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="data sets, separated by commas")
    parser.add_argument("--recipe", choices=RECIPES, default="default")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    report = Report("weakly_paired", "Rows that are not aligned", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/weakly_paired.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {"usae": {"version": usae.__version__}, "numpy": {"version": np.__version__}}
    report.data["results"] = []
    report.words(
        f"Held-out rows; {arguments.steps:,} steps of 2,048 tokens, recipe {arguments.recipe!r}, means over {arguments.seeds} "
        "seeds. Same: a model's own code; other: the codes of the other models."
    )
    for world in arguments.worlds.split(","):
        make, universal = WORLDS[world]
        rows = []
        for share, rest in cases():
            found = []
            for seed in range(arguments.seeds):
                acts, sizes, measure = make(seed, arguments)
                given, start = weakly_paired(acts, share, rest, seed), time.perf_counter()
                sae = train(given, sizes, arguments.recipe, seed, arguments)
                seconds = time.perf_counter() - start
                found.append([*measure(sae), seconds])
                report.data["results"].append(
                    {"world": world, "share": share, "rest": rest, "seed": seed}
                    | dict(zip(("same", "other", "agreement", "universal", "seconds"), found[-1], strict=True))
                )
                print(world, share, rest, seed, np.round(found[-1], 3).tolist(), file=sys.stderr, flush=True)
            n_rows = max(1, round(share * next(iter(acts.values())).size / next(iter(acts.values())).shape[-1]))
            rows.append([f"{share:g}", n_rows, rest if share < 1 else "", *np.mean(found, axis=0).tolist()])
        report.words(f"**{world}**. Universal: {universal}.")
        report.rows(HEADING, rows)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
