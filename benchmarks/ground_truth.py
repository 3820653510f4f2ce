"""Measures how many known concepts recipes and supervised encoders find: python benchmarks/ground_truth.py [--quick].

Two data sets have 384 concepts that three models share and 64 private concepts of each model, 100,000 tokens, m = 1024, k = 8
and 3,000 steps of 2,048 tokens; they differ by the models' widths. A harder one has 1,024 shared and 256 private concepts in
correlated groups, noise of 30 %, m = 2560, k = 16 and several numbers of steps. See README.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report  # noqa: E402
from study.variants import VARIANTS  # noqa: E402

N_TOKENS = 100_000
HARD = {"n_shared": 1024, "n_private": 256, "correlation": 0.5, "noise": 0.3}
WORLDS: dict[str, dict[str, Any]] = {
    "wide": {"widths": (96, 128, 160), "n_concepts": 1024, "k": 8, "steps": (3000,), "world": {}},
    "narrow": {"widths": (64, 96, 128), "n_concepts": 1024, "k": 8, "steps": (3000,), "world": {}},
    "hard": {"widths": (192, 256, 320), "n_concepts": 2560, "k": 16, "steps": (500, 1000, 2000, 4000), "world": HARD},
}


def row(label: str, score: usae.synthetic.Score, seconds: float) -> list:
    dictionary, code = (half[score.shared].mean() for half in (score.dictionary_recovered, score.code_recovered))
    return [
        label,
        score.universally_recovered,
        float(dictionary),
        float(code),
        float(score.firing_recovered[score.shared].mean()),
        float(score.recovered[score.private].mean()),
        float(score.recovered.mean()),
        score.duplicates,
        score.entropy_auroc,
        score.r2_diagonal,
        score.r2_off_diagonal,
        seconds,
    ]


HEADING = ["", "universally recovered", "dictionary alone", "code alone", "firing (F1)", "private recovered", "all recovered"]
HEADING += ["duplicates", "AUROC", "R2 diagonal", "R2 off it", "seconds"]


def measure(name: str, arguments: argparse.Namespace, report: Report) -> None:
    """Measure the ceiling of one data set, then each recipe with each number of steps."""
    world = WORLDS[name]
    models = dict(zip("abc", world["widths"], strict=True))
    all_steps = (60,) if arguments.quick else world["steps"]
    rows = []
    for seed in range(arguments.seeds):
        truth = usae.synthetic.universal(models, n_tokens=4_000 if arguments.quick else N_TOKENS, seed=seed, **world["world"])
        held_out = truth.sample(2_000 if arguments.quick else 20_000)

        def keep(
            label: str, found: Any, steps: int, start: float, seed: int = seed, truth: Any = truth, held_out: Any = held_out
        ):
            seconds = time.perf_counter() - start
            score = usae.synthetic.score(found, truth, held_out)
            rows.append(row(f"{label}, {steps:,} steps" + (f", seed {seed}" if arguments.seeds > 1 else ""), score, seconds))
            print(f"{name} {label} {steps} steps, seed {seed}: {score!r}", file=sys.stderr, flush=True)
            entry = {"world": name, "name": label, "steps": steps, "seed": seed, "seconds": seconds}
            figures = {key: x for key, x in score.to_dict().items() if not (isinstance(x, list) and len(x) == truth.n_true)}
            report.data["scores"].append(entry | figures)  # without the numbers of single concepts, which take megabytes
            return score

        best = None
        if arguments.ceiling:
            start = time.perf_counter()
            found = usae.synthetic.supervised(truth, world["k"], steps=all_steps[-1] // 2)
            best = keep("ceiling", found, all_steps[-1] // 2, start)
        for recipe in arguments.recipes:
            for steps in all_steps:
                start = time.perf_counter()
                sae = usae.UniversalSAE(
                    world["n_concepts"],
                    world["k"],
                    recipe=VARIANTS[recipe].recipe(steps),
                    seed=seed,
                    n_threads=arguments.threads,
                ).fit(truth.acts, steps=steps, progress=False)
                score = keep(recipe, sae, steps, start)
            if best is not None and recipe == "default" and name != "hard":
                targets(report, f"{name}, seed {seed}", score, best)
    size = "/".join(map(str, world["widths"]))
    report.words(f"**{name}**: widths {size}, m = {world['n_concepts']}, k = {world['k']}.")
    report.rows(HEADING, rows)


def targets(report: Report, words: str, mine: usae.synthetic.Score, best: usae.synthetic.Score) -> None:
    share = mine.universally_recovered / best.universally_recovered if best.universally_recovered else None
    report.target(f"universally recovered / ceiling, {words}", share, at_least=0.97)
    report.target(
        f"off-diagonal R2 / that of the ceiling's encoders, {words}", mine.r2_off_diagonal / best.r2_off_diagonal, at_least=0.9
    )
    report.target(f"AUROC of firing entropy, {words}", mine.entropy_auroc, at_least=0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tokens and steps, to check that it works")
    parser.add_argument("--threads", type=int, default=2, help="threads of training")
    parser.add_argument("--worlds", default="wide,narrow,hard")
    parser.add_argument("--recipes", default="default;published", help="names of study/variants.py, separated by semicolons")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds of data sets and trainings, from 0 on")
    parser.add_argument("--ceiling", action=argparse.BooleanOptionalAction, default=True, help="train supervised encoders too")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    arguments.recipes = [name for name in arguments.recipes.split(";") if name]
    worlds = [name for name in arguments.worlds.split(",") if name]
    for option, chosen, known in (("recipes", arguments.recipes, VARIANTS), ("worlds", worlds, WORLDS)):
        for name in chosen:
            if name not in known:
                parser.error(f"--{option}: unknown {name!r}; there are {'; '.join(known)}")

    report = Report("ground_truth", "Known concepts", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/ground_truth.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {
        "usae": {"version": usae.__version__},
        "numpy": {"version": np.__version__},
        "scipy": {"version": scipy.__version__},
    }
    report.data["scores"] = []
    report.words(
        "Concepts that three models share and private ones, 100,000 tokens, steps of 2,048; shares of the true concepts on "
        "held-out tokens, as the docstring of `usae.synthetic.Score` defines them. The ceiling is encoders trained on the true "
        "codes, with the true dictionaries."
    )
    for name in worlds:
        measure(name, arguments, report)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
