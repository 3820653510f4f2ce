"""How many known concepts recipes find, beside what supervised encoders find: python benchmarks/ground_truth.py [--quick].

384 concepts that all of three models share and 64 private ones of each, 100,000 tokens, m = 1024, k = 8, 3,000 steps of 2,048
tokens; for two sets of widths. See README.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import scipy

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report  # noqa: E402

WIDTHS = ((96, 128, 160), (64, 96, 128))
K, N_CONCEPTS, STEPS, BATCH, N_TOKENS = 8, 1024, 3000, 2048, 100_000


def recipe(name: str, steps: int) -> usae.Recipe:
    """A recipe for a run of so many steps of 2,048 tokens."""
    if name == "default":
        return usae.recipes.default(batch_size=BATCH)
    return usae.recipes.published(total_steps=steps).replace(batch_size=BATCH)


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
        score.twins,
        score.entropy_auroc,
        score.r2_diagonal,
        score.r2_off_diagonal,
        seconds,
    ]


HEADING = ["", "universally recovered", "dictionary alone", "code alone", "firing (F1)", "private recovered", "all recovered"]
HEADING += ["twins", "AUROC", "R2 diagonal", "R2 off it", "seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tokens and steps, to see that it works")
    parser.add_argument("--threads", type=int, default=2, help="of training")
    parser.add_argument("--recipes", default="default,published")
    parser.add_argument("--seeds", type=int, default=1, help="worlds and trainings, from seed 0 on")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    names = [name for name in arguments.recipes.split(",") if name]
    for name in names:
        if name not in ("default", "published"):
            parser.error(f"--recipes: unknown {name!r}; there are default, published")
    n_tokens, steps = (4_000, 60) if arguments.quick else (N_TOKENS, STEPS)

    report = Report("ground_truth", "Known concepts", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/ground_truth.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {
        "usae": {"version": usae.__version__},
        "numpy": {"version": np.__version__},
        "scipy": {"version": scipy.__version__},
    }
    report.data["scores"] = []
    report.words(
        f"384 shared concepts and 64 private ones for each of three models, {n_tokens:,} tokens, m = {N_CONCEPTS}, k = {K}, "
        f"{steps:,} steps of {BATCH:,} tokens; shares of the true concepts on held-out tokens, as docs of "
        f"`usae.synthetic.Score` define them. The ceiling is encoders trained on the true codes, with the true dictionaries."
    )
    for widths in WIDTHS:
        models = dict(zip("abc", widths, strict=True))
        size = "/".join(map(str, widths))
        rows = []
        for seed in range(arguments.seeds):
            truth = usae.synthetic.universal(models, n_tokens=n_tokens, seed=seed)
            held_out = truth.sample(2_000 if arguments.quick else 20_000)
            scores = {}
            for name in ["ceiling", *names]:
                start = time.perf_counter()
                if name == "ceiling":
                    found = usae.synthetic.supervised(truth, K, steps=steps // 2)
                else:
                    found = usae.UniversalSAE(
                        N_CONCEPTS, K, recipe=recipe(name, steps), seed=seed, n_threads=arguments.threads
                    ).fit(truth.acts, steps=steps, progress=False)
                seconds = time.perf_counter() - start
                scores[name] = usae.synthetic.score(found, truth, held_out)
                rows.append(row(f"{name}, seed {seed}" if arguments.seeds > 1 else name, scores[name], seconds))
                print(f"{size} {name} seed {seed}: {scores[name]!r}", file=sys.stderr)
                report.data["scores"].append(
                    {"widths": widths, "name": name, "seed": seed, "seconds": seconds, **scores[name].to_dict()}
                )
            if "default" in scores:
                mine, best = scores["default"], scores["ceiling"]
                words = f"{size}, seed {seed}"
                share = mine.universally_recovered / best.universally_recovered if best.universally_recovered else None
                report.target(f"universally recovered / ceiling, {words}", share, at_least=0.97)
                report.target(
                    f"off-diagonal R2 / that of the ceiling's encoders, {words}",
                    mine.r2_off_diagonal / best.r2_off_diagonal,
                    at_least=0.9,
                )
                report.target(f"AUROC of firing entropy, {words}", mine.entropy_auroc, at_least=0.95)
        report.words(f"Widths {size}:")
        report.rows(HEADING, rows)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
