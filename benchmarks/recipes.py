"""Compares recipes: python benchmarks/recipes.py [--worlds demo,synthetic] [--quick].

It trains every recipe of study/variants.py on every data set of study/worlds.py, with three seeds: with equal numbers of
tokens, and again with equal time if a step takes more or less time than the default's. What is in the results is not run again,
so a study that was stopped continues where it was. docs/recipes.md discusses the results.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report, replace_file  # noqa: E402
from study import cells, figures  # noqa: E402
from study.variants import VARIANTS  # noqa: E402
from study.worlds import WORLDS, World  # noqa: E402

CONTROLLED = ("default", "matryoshka", "published", "plain")
"""Recipes that are also trained on shuffled pairs."""

SAME_COST = (0.75, 1.33)
"""Range of a step's time, divided by that of the default's, in which a recipe is not run again with equal time."""

WIDE_COLUMNS = ("R2 same", "R2 other", "cofire", "cofire, tokens permuted", "entropy >= .9", "dead", "stability")
KNOWN_COLUMNS = ("universal", "dictionary", "code", "private", "duplicates", "AUROC")


def measure(world: World, name: str, steps: int, seeds: int, threads: int) -> dict[str, Any]:
    """Return the figures of each seed, and the processor time of training, which does not depend on other processes."""
    runs, found, seconds = [], [], []
    for seed in range(seeds):
        start = time.process_time()
        runs.append(VARIANTS[name].train(world, seed, steps, threads))
        seconds.append(time.process_time() - start)
        found.append(figures.figures(runs[-1], world))
    record = {"recipe": name, "steps": steps, "seconds": seconds, "seeds": found}
    if seeds > 1:
        record["stability"] = figures.stability(runs)
    return record


class Study:
    """Records by data set, recipe and budget, in a file that is replaced after each record."""

    def __init__(self, path: Path, arguments: argparse.Namespace):
        self.path, self.arguments = path, arguments
        self.records: dict[str, dict[str, Any]] = json.loads(path.read_text())["records"] if path.exists() else {}

    def run(self, world_name: str) -> None:
        pending = [key for key in self._keys(world_name) if key not in self.records]
        if not pending:
            return
        world = WORLDS[world_name](self.arguments.quick)
        for key in pending:
            _, name, budget = key.split("/")
            if budget == "tokens":
                self._keep(key, measure(world, name, world.steps, self.arguments.seeds, self.arguments.threads))
            elif budget == "seconds":
                steps = self._steps_of_equal_time(world_name, name, world.steps)
                if steps is not None:
                    self._keep(key, measure(world, name, steps, self.arguments.seeds, self.arguments.threads))
            else:
                sae = VARIANTS[name].train(world, 0, world.steps, self.arguments.threads)
                self._keep(key, figures.nulls(sae, world))

    def _keys(self, world: str) -> list[str]:
        names = [name for name in VARIANTS if name in self.arguments.recipes]
        keys = [f"{world}/{name}/tokens" for name in names]
        keys += [f"{world}/{name}/nulls" for name in names if name in CONTROLLED]
        return keys + [f"{world}/{name}/seconds" for name in names if name != "default"]

    def _steps_of_equal_time(self, world: str, name: str, steps: int) -> int | None:
        own, default = (float(np.median(self.records[f"{world}/{which}/tokens"]["seconds"])) for which in (name, "default"))
        if SAME_COST[0] <= own / default <= SAME_COST[1]:
            return None
        return max(2, round(steps * default / own))

    def _keep(self, key: str, record: dict[str, Any]) -> None:
        self.records[key] = record
        replace_file(self.path, json.dumps({"records": self.records}, indent=1) + "\n")
        print(time.strftime("%H:%M:%S"), key, _line(record), file=sys.stderr, flush=True)


def _line(record: dict[str, Any]) -> str:
    means = {name: cells.mean(record, name) for name in (*WIDE_COLUMNS, *KNOWN_COLUMNS)}
    return " ".join(f"{name} {value:.3f}" for name, value in means.items() if value is not None)


def tell(study: Study, report: Report) -> None:
    """Add a table for each data set and budget, and one of the nulls, to the report."""
    for world in WORLDS:
        records = {tuple(key.split("/")[1:]): r for key, r in study.records.items() if key.split("/")[0] == world}
        known = any("universal" in seed for r in records.values() for seed in r.get("seeds", []))
        columns = WIDE_COLUMNS + (KNOWN_COLUMNS if known else ())
        for budget in ("tokens", "seconds"):
            rows = [
                [name, records[name, budget]["steps"], float(np.median(records[name, budget]["seconds"]))]
                + [cells.cell(records[name, budget], column) for column in columns]
                for name in VARIANTS
                if (name, budget) in records
            ]
            if rows:
                report.words(f"**{world}**, equal {budget}: {WORLDS[world].__doc__}")
                report.rows(["", "steps", "CPU seconds", *columns], rows)
        rows = []
        for name in VARIANTS:
            for null, found in records.get((name, "nulls"), {}).items():
                if isinstance(found, dict):
                    rows.append([f"{name}, {null}", *(f"{found[column]:.3f}" for column in found)])
        if rows:
            report.words(f"**{world}**: the same trained on shuffled pairs, and before training, both on real pairs.")
            report.rows(["", *WIDE_COLUMNS[:3], "entropy >= .9", "dead"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="demo,layers,synthetic,narrow", help=f"some of {','.join(WORLDS)}")
    parser.add_argument("--recipes", help="names of study/variants.py, separated by semicolons; all of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of training")
    parser.add_argument("--quick", action="store_true", help="few tokens and steps, to check that it works")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    worlds = arguments.worlds.split(",")
    arguments.recipes = list(VARIANTS) if arguments.recipes is None else arguments.recipes.split(";")
    for kind, chosen, known in (("worlds", worlds, WORLDS), ("recipes", arguments.recipes, VARIANTS)):
        for name in chosen:
            if name not in known:
                parser.error(f"--{kind}: unknown {name!r}; there are {'; '.join(known)}")
    warnings.filterwarnings("ignore", "the plan is over")

    table = "recipes-quick" if arguments.quick else "recipes"
    study = Study(arguments.output / f"{table}-records.json", arguments)
    for world in worlds:
        study.run(world)
    report = Report("recipes", "Recipes", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/recipes.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {"usae": {"version": usae.__version__}, "numpy": {"version": np.__version__}}
    tell(study, report)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
