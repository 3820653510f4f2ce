"""Data-parallel steps of one, two and four processes over torch.distributed on this machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Any

import problems
from client import HERE
from report import Report
from settings import Run

TITLE = "A training step in several processes"
PROCESSES = (1, 2, 4)
BATCH = {"default": 2048, "published": 6272}
STEPS = {"default": 12, "published": 6}
WARMUP = 3


def measure(run: Run, report: Report) -> None:
    report.data["runs"] = []
    for recipe in ("default", "published"):
        batch = run.n_tokens if run.quick else BATCH[recipe]
        files = problems.activations(run.folder, run.widths, batch)
        results = {}
        for size in PROCESSES:
            results[size] = _launched(run, recipe, batch, files, size)
        _check(recipe, results)
        report.words(
            f"**{recipe}**: {run.n_concepts} concepts, k = {run.k}, models of width "
            f"{', '.join(map(str, run.widths.values()))}, {batch} tokens in a step of all processes, one thread in each. "
            f"Medians of {STEPS[recipe]} steps, in ms."
        )
        heading = ["processes", "step", "computing", "waiting", "update", "rest", "sums alone", "hidden", "MB a step"]
        rows = [["1, `partial_fit`", 1000 * results[1][0]["ordinary_seconds"], *[None] * 7]]
        for size in PROCESSES:
            row = _summary(results[size])
            report.data["runs"].append({"recipe": recipe, "processes": size, "batch": batch} | row | {"ranks": results[size]})
            ms = [1000 * row[key] for key in ("step", "computing", "waiting", "update", "rest", "alone")]
            hidden = None if size == 1 else f"{row['hidden']:.0%}"
            rows.append([str(size), *ms[:5], ms[5] if size > 1 else None, hidden, row["bytes"] / 1e6 if size > 1 else None])
        report.rows(heading, rows)
        report.rows(["what crosses", "MB", "computing, ms", "alone with 2, ms", "alone with 4, ms"], _by_exchange(results))
    report.words(
        "*computing*: making this process's parts; *waiting*: for sums that were not there yet; *rest*: agreeing on the step. "
        "*sums alone*: the same sums with nothing beside them; *hidden*: 1 - waiting / sums alone. All processes are on this "
        "machine: with more of them than cores, they and the threads that carry the sums share cores, so nothing is gained in "
        "time. docs/scaling.md takes from here what crosses and what it costs."
    )


def _launched(run: Run, recipe: str, batch: int, files: dict[str, str], size: int) -> list[dict[str, Any]]:
    """Run the processes and return their measurements, by rank."""
    output = run.folder / f"{recipe}-{size}"
    output.mkdir()
    settings = {
        "files": files, "recipe": recipe, "n_concepts": run.n_concepts, "k": run.k, "batch": batch,
        "steps": run.repeats(STEPS[recipe]), "warmup": 1 if run.quick else WARMUP, "output": os.fspath(output),
    }  # fmt: skip
    (output / "settings").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    worker = [os.fspath(HERE / "workers" / "distributed.py"), os.fspath(output / "settings")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*command, *worker], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{size} processes failed:\n{done.stderr[-4000:]}")
    return [json.loads((output / f"{rank}.json").read_text()) for rank in range(size)]


def _check(recipe: str, results: dict[int, list[dict[str, Any]]]) -> None:
    """Check that all processes have the same bits, and the losses of training in one process."""
    ordinary = results[1][0]["ordinary_losses"]
    for size, ranks in results.items():
        if len({rank["digest"] for rank in ranks}) != 1:
            raise SystemExit(f"{recipe}: {size} processes do not have the same parameters")
        worst = max(abs(a - b) / b for a, b in zip(ranks[0]["losses"], ordinary, strict=True))
        if worst > 1e-3:
            raise SystemExit(f"{recipe}: with {size} processes losses differ by {worst:.2g}")


def _summary(ranks: list[dict[str, Any]]) -> dict[str, float]:
    """Return medians over the steps of means over the processes."""

    def median(value: Any) -> float:
        steps = zip(*(rank["steps"] for rank in ranks), strict=True)
        return statistics.median(statistics.fmean(value(one) for one in step) for step in steps)

    row = {
        "step": median(lambda s: s["seconds"]),
        "computing": median(lambda s: sum(s["computing"])),
        "waiting": median(lambda s: sum(s["waiting"])),
        "update": median(lambda s: s["updating"]),
        "rest": median(lambda s: s["seconds"] - sum(s["computing"]) - sum(s["waiting"]) - s["updating"]),
        "alone": median(lambda s: sum(s["alone"])),
        "bytes": median(lambda s: sum(s["bytes"])),
    }
    row["hidden"] = max(0.0, 1 - row["waiting"] / row["alone"])
    return row


def _by_exchange(results: dict[int, list[dict[str, Any]]]) -> list[list[Any]]:
    """Return medians of rank 0 for each exchange, over the steps that encode one model."""
    steps = {size: ranks[0]["steps"] for size, ranks in results.items()}
    encoder = steps[1][0]["encoder"]
    rows = []
    for place, name in enumerate(steps[1][0]["names"]):

        def median(size: int, key: str, place: int = place) -> float:
            return statistics.median(step[key][place] for step in steps[size] if step["encoder"] == encoder)

        rows.append(
            [
                name,
                median(1, "bytes") / 1e6,
                1000 * median(1, "computing"),
                1000 * median(2, "alone"),
                1000 * median(4, "alone"),
            ]
        )
    return rows
