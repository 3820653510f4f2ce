"""Agreement against R2: python benchmarks/frontier.py [--worlds pretrained,demo] [--quick] [--figure].

On every data set of study/worlds.py it trains the default recipe, what differs from it in one thing, its rivals and its nulls
(study/frontier_rows.py), with three seeds: with equal numbers of steps, and again with equal processor time if a step takes a
third more or less than the default's. The same with five weights of the agreement term is the frontier of R2 against agreement,
which `--figure` draws to docs/images/frontier.png from the results, without training. What is in the results is not run again,
so a study that was stopped continues where it was; what was trained when the default recipe was another one is left out.
docs/recipes.md discusses the results.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import Report, replace_file  # noqa: E402
from study import cells, figures, frontier_figure, frontier_rows  # noqa: E402
from study.frontier_rows import CEILING, CEILINGS, FRONTIER, KNOWN, RIDGE, ROWS, SHARED  # noqa: E402
from study.worlds import WORLDS, World  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SAME_COST = (0.75, 1.33)
"""Range of a step's time, divided by that of the default's, in which a recipe is not run again with equal time."""

COLUMNS = (*SHARED, "stability")
WHOLE = ("universal",)
"""Columns of numbers of concepts."""


def default_recipe() -> str:
    """Return letters that are others if the default recipe is another one."""
    return hashlib.sha256(usae.recipes.default().to_json().encode()).hexdigest()[:12]


class Study:
    """Records by data set, line and budget, in a file that is replaced after each record."""

    def __init__(self, path: Path, arguments: argparse.Namespace):
        self.path, self.arguments, self.default = path, arguments, default_recipe()
        known = json.loads(path.read_text())["records"] if path.exists() else {}
        self.records = {key: record for key, record in known.items() if record["default"] == self.default}
        if len(self.records) < len(known):
            print(f"{len(known) - len(self.records)} records of another default recipe are left out", file=sys.stderr)

    def run(self, world_name: str) -> None:
        """Make the records of a data set that are missing or have too few seeds."""
        pending = [key for key in self._keys(world_name) if self._is_pending(key)]
        if not pending:
            return
        world = WORLDS[world_name](self.arguments.quick)
        for key in pending:
            _, name, budget = key.split("/")
            if name == RIDGE:
                record = {"steps": 0, "seeds": [frontier_rows.ridge(world)]}
            elif budget == "steps":
                record = self._measured(name, world, world.steps)
            elif budget == "seconds":
                steps = self._steps_of_equal_time(world_name, name, world.steps)
                record = self._measured(name, world, steps) if steps else {"as": "equal steps"}
            else:
                run = ROWS[name].train(world, 0, world.steps, self.arguments.threads)
                assert run is not None
                record = {"steps": world.steps, "seeds": [frontier_rows.ceiling_of(run.sae, world)]}
            self._keep(key, record)

    def _keys(self, world: str) -> list[str]:
        names = [name for name in (*ROWS, RIDGE) if name in self.arguments.recipes]
        keys = [f"{world}/{name}/steps" for name in names]
        if "default" in names:
            keys += [f"{world}/{name}/seconds" for name in names if name != "default" and name in ROWS and ROWS[name].timed]
        return keys + [f"{world}/{name}/ceiling" for name in names if name in CEILINGS and not self.arguments.quick]

    def _is_pending(self, key: str) -> bool:
        record = self.records.get(key)
        if record is None or "as" in record or key.endswith((f"/{RIDGE}/steps", "/ceiling")):
            return record is None
        return len(record["seeds"]) < self.arguments.seeds

    def _measured(self, name: str, world: World, steps: int) -> dict[str, Any]:
        """Train with each seed. Stability is that of dictionary rows over seeds."""
        saes, found = [], []
        for seed in range(self.arguments.seeds):
            run = ROWS[name].train(world, seed, steps, self.arguments.threads)
            if run is None:
                return {"as": "default"}
            found.append(frontier_rows.measured(run, world, with_ceiling=seed == 0))
            saes.append(run.sae)
        record = {"steps": steps, "seeds": found}
        return record | ({"stability": figures.stability(saes)} if len(saes) > 1 else {})

    def _steps_of_equal_time(self, world: str, name: str, steps: int) -> int | None:
        """Return the steps of equal time, or None where a step takes about as long as the default's."""
        own = self.records[f"{world}/{name}/steps"]
        if "as" in own:
            return None
        times = [float(np.median(cells.values(record, "seconds"))) for record in (own, self.records[f"{world}/default/steps"])]
        ratio = times[0] / times[1]
        return None if SAME_COST[0] <= ratio <= SAME_COST[1] else max(2, round(steps / ratio))

    def _keep(self, key: str, record: dict[str, Any]) -> None:
        self.records[key] = record | {"default": self.default}
        replace_file(self.path, json.dumps({"records": self.records}, indent=1) + "\n")
        told = {name: cells.mean(record, name) for name in ("seconds", *COLUMNS, *CEILING[1:], *KNOWN)}
        line = " ".join(f"{name} {value:.3f}" for name, value in told.items() if value is not None)
        print(time.strftime("%H:%M:%S"), key, line or f"as {record.get('as')}", file=sys.stderr, flush=True)


def tell(study: Study, report: Report) -> None:
    """Add the tables of each data set to the report."""
    for world in WORLDS:
        records = {tuple(key.split("/")[1:]): record for key, record in study.records.items() if key.split("/")[0] == world}
        if not records:
            continue
        known = any("AUROC" in seed for record in records.values() for seed in record.get("seeds", []))
        columns = COLUMNS + (KNOWN if known else ())
        lines = [name for name in (*ROWS, RIDGE) if not name.startswith("agreement ")]
        _tell_table(report, f"**{world}**, equal steps: {WORLDS[world].__doc__}", records, lines, "steps", columns)
        _tell_table(report, f"**{world}**, equal seconds, where a step's differ", records, lines, "seconds", columns)
        title = f"**{world}**, the ceiling with supervised encoders, seed 0 (seconds: of computing it)"
        _tell_table(report, title, records, list(CEILINGS), "ceiling", CEILING)
        weights = {name: f"{weight:g}" for weight, name in FRONTIER.items()}
        _tell_table(
            report, f"**{world}**, by the weight of the agreement term", records, list(weights), "steps", columns, weights
        )
        noise = [
            seed["input noise"] for seed in records.get(("default", "steps"), {}).get("seeds", []) if "input noise" in seed
        ]
        rates = [seed["rates"] for seed in records.get(("plain TopK, PyTorch", "steps"), {}).get("seeds", [])]
        if noise:
            report.words(
                f"The default's input noise there is {noise[0]:g}"
                + ("" if noise[0] else ", so there is nothing to leave out or double")
                + "."
            )
        if rates:
            best = ", ".join(f"{name} {rate:g}" for name, rate in rates[0].items())
            report.words(f"Rates of the plain TopK autoencoders, the best for held-out rows: {best}.")


def _tell_table(
    report: Report,
    title: str,
    records: dict[tuple[str, ...], dict[str, Any]],
    lines: list[str],
    budget: str,
    columns: tuple[str, ...],
    shown: dict[str, str] | None = None,
) -> None:
    rows = []
    for name in lines:
        record = records.get((name, budget))
        if record is not None and record.get("seeds"):
            seconds = float(np.median(cells.values(record, "seconds")))
            rows.append(
                [(shown or {}).get(name, name), record["steps"], seconds, *(_cell(record, column) for column in columns)]
            )
    if rows:
        report.words(title)
        report.rows(["", "steps", "CPU seconds", *columns], rows)


def _cell(record: dict[str, Any], column: str) -> str:
    if column not in WHOLE:
        return cells.cell(record, column)
    center, spread = cells.mean(record, column), cells.half_range(record, column)
    return "" if center is None else f"{center:.0f} ± {spread:.0f}" if spread >= 0.5 else f"{center:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default=",".join(WORLDS), help="data sets, separated by commas; all of them")
    parser.add_argument("--recipes", help="lines of the tables, separated by semicolons; all of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of training")
    parser.add_argument("--quick", action="store_true", help="few tokens and steps, to check that it works")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument(
        "--figure",
        type=Path,
        nargs="?",
        const=ROOT / "docs" / "images" / "frontier.png",
        help="draw the frontier of the records to this file (docs/images/frontier.png), and train nothing",
    )
    arguments = parser.parse_args()
    worlds, lines = arguments.worlds.split(","), [*ROWS, RIDGE]
    arguments.recipes = lines if arguments.recipes is None else arguments.recipes.split(";")
    for kind, chosen, known in (("worlds", worlds, WORLDS), ("recipes", arguments.recipes, lines)):
        for name in chosen:
            if name not in known:
                parser.error(f"--{kind}: unknown {name!r}; there are {'; '.join(known)}")
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "the plan is over")

    study = Study(arguments.output / f"frontier-records{'-quick' if arguments.quick else ''}.json", arguments)
    if arguments.figure is not None:
        frontier_figure.draw(study.records, worlds, arguments.figure)
        return
    for world in worlds:
        study.run(world)
        gc.collect()
    report = Report("frontier", "Agreement against R2", arguments.threads, arguments.quick)
    report.data["command"] = f"python benchmarks/frontier.py {shlex.join(sys.argv[1:])}".rstrip()
    versions = {"usae": usae, "numpy": np, "torch": torch}
    report.data["versions"] = {name: {"version": module.__version__} for name, module in versions.items()}
    report.data["recipe"] = usae.recipes.default().to_dict()
    tell(study, report)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
