"""Encoding: usae compared with other libraries and plain PyTorch."""

from __future__ import annotations

import contextlib
from statistics import median

import problems
import yardsticks
from report import Report
from settings import Run

from tables.rivals import MODEL, Sides

TITLE = "Encoding"


def measure(run: Run, report: Report) -> None:
    n_tokens = 2048 if run.quick else 16384
    width = 96 if run.quick else 768
    yardsticks.measured(run, report, n_tokens, width, run.n_concepts)
    with contextlib.ExitStack() as stack:
        data = problems.activations(run.folder, {MODEL: width}, n_tokens)
        sides = Sides(run, report, stack, data, plain_torch=True)
        calls = {}
        for side, worker in sides.ours.items():
            sides.make_ours(worker, "sae")
            calls[side] = lambda worker=worker: worker.call("encode", name="sae", batch="check", model=MODEL)["seconds"]
        rows_of = {}
        for rival, worker in sides.rivals.items():
            rows_of[rival] = _best_rows(worker, n_tokens)
            calls[rival] = lambda worker=worker, rows=rows_of[rival]: worker.call("encode", batch="check", rows=rows)["seconds"]
        seconds: dict[str, list[float]] = {label: [] for label in calls}
        for call in calls.values():
            call()
        for _ in range(run.repeats(5)):
            for label, call in calls.items():
                seconds[label] += call()
    times = {label: median(of) for label, of in seconds.items()}
    report.data["seconds"] = seconds
    report.data["rows_at_a_time"] = rows_of
    rivals = [label for label in times if label not in sides.ours]
    fastest = min(rivals, key=times.__getitem__, default=None)
    best = min(times[side] for side in sides.ours)
    flops = 2 * n_tokens * width * run.n_concepts
    rows = [
        [label, rows_of.get(label, n_tokens), 1e3 * s, n_tokens / s, flops / s / 1e9, s / best] for label, s in times.items()
    ]
    report.words(
        f"{n_tokens} tokens of width {width}, {run.n_concepts} concepts, k = {run.k}, from arrays in memory; medians, all in "
        f"turn. Rivals are given the tokens in parts of the size that suits them best (of 512, 2048 and all); GFLOP/s count "
        f"the encoder product alone."
    )
    report.rows(["library", "tokens at a time", "milliseconds", "tokens/s", "GFLOP/s", "times ours"], rows)
    for side in sides.ours:
        ratio = times[fastest] / times[side] if fastest else None
        report.target(f"encode vs the fastest rival ({fastest}; {side})", ratio, at_least=2.5)


def _best_rows(worker, n_tokens: int) -> int:
    """Return the number of rows at a time with which a rival encodes fastest."""
    found = {}
    for rows in sorted({512, 2048, n_tokens}):
        seconds = worker.call("encode", batch="check", rows=min(rows, n_tokens), count=2)["seconds"]
        found[rows] = min(seconds)
    return min(found, key=found.__getitem__)
