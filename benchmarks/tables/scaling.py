"""Time and memory of the default step as functions of models, concepts, k, batch size and threads."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from statistics import median

import problems
import settings
import yardsticks
from client import WorkerError
from report import Report
from settings import Run

TITLE = "How a step grows"

BUDGET = 570  # seconds; configurations that do not fit are skipped, which the report says


@dataclasses.dataclass(frozen=True)
class Point:
    """One configuration. All models have the same width."""

    n_models: int
    n_concepts: int
    k: int
    n_tokens: int
    threads: int

    def state_bytes(self, width: int) -> int:
        """Bytes of parameters and moments."""
        return 3 * 2 * 4 * self.n_models * self.n_concepts * width

    def estimated_bytes(self, width: int) -> int:
        """Bytes by the formula of docs/design.md, and of the caller's batch."""
        batch = 3 * 4 * self.n_tokens * (self.n_models * width + 2 * self.k)
        return self.state_bytes(width) + batch + 4 * self.n_concepts * width + 2**28

    def update_bytes(self, width: int) -> int:
        """Bytes that an update reads and writes: parameter and two moments of one encoder and all dictionaries."""
        return 2 * 3 * 4 * (1 + self.n_models) * self.n_concepts * width


def points(run: Run) -> list[Point]:
    """Return configurations that vary one quantity at a time around a centre, and two that vary several."""
    if run.quick:
        centre = Point(2, 512, 8, 512, run.threads)
        axes = {"n_models": [1, 4], "n_concepts": [1024], "k": [32], "n_tokens": [128, 2048], "threads": [1]}
        corners = []
    else:
        centre = Point(3, 8192, 32, 2048, run.threads)
        axes = {
            "n_models": [1, 2, 4, 6, 8],
            "n_concepts": [2048, 4096, 16384, 32768, 65536],
            "k": [8, 16, 64, 128, 256],
            "n_tokens": [512, 1024, 4096, 8192, 16384],
            "threads": [1],
        }
        corners = [Point(1, 2048, 8, 16384, run.threads), Point(8, 65536, 32, 4096, run.threads)]
    found = [centre]
    for axis, values in axes.items():
        found += [dataclasses.replace(centre, **{axis: value}) for value in values]
    return list(dict.fromkeys(found + corners))


def measure(run: Run, report: Report) -> None:
    width = 96 if run.quick else 768
    start = time.monotonic()
    centre = points(run)[0]
    limits = yardsticks.measured(run, report, centre.n_tokens, width, centre.n_concepts)
    rows, report.data["points"] = [], []
    for point in points(run):
        found = dataclasses.asdict(point)
        label = [point.n_models, point.n_concepts, point.k, point.n_tokens, point.threads]
        reason = _reason_to_skip(point, width, start)
        if reason is None:
            try:
                found |= _measured(run, point, width)
            except WorkerError as error:
                reason = f"failed: {error}"
        if reason is not None:
            report.data["points"].append(found | {"skipped": reason})
            rows.append([*label, reason])
            continue
        report.data["versions"] = {"ours": found.pop("versions")}
        seconds = median(found["seconds"])
        ideal = limits.product_seconds(point.n_tokens, width, point.n_concepts) * run.threads / point.threads
        update = point.update_bytes(width) / limits.copy_bytes
        rest = seconds - median(found["encode_seconds"])
        found |= {"median": seconds, "product": ideal, "update": update, "rest": rest}
        report.data["points"].append(found)
        cells = [1e3 * seconds, 1e6 * seconds / point.n_tokens, 1e3 * ideal, seconds / ideal]
        cells += [1e3 * (seconds - rest), 1e3 * rest, 1e3 * update, rest / update]
        above = found["peak_above_batch"] - point.state_bytes(width)
        rows.append([*label, *cells, found["peak_above_batch"] / 1e6, above / 1e6])
    report.words(
        f"Default recipe, all models of width {width}, the best kernels; medians of {run.repeats(5)} steps, each row in a "
        f"process of its own. *product*: the encoder product at the best BLAS's rate, measured at the first row's size and "
        f"taken in proportion to the threads. *encode*: our encode of the same batch, which does that product and selects, and "
        f"is below it where screening works; it grows with k, by the concepts whose float32 numbers are computed one by one. "
        f"*rest*: what else is in a step. *update*: bytes that the optimiser must read and "
        f"write (parameter and two moments of one encoder and all dictionaries) at the bandwidth of a copy; it does not depend "
        f"on the batch, so small batches cost more a token. *rest / update* grows with the batch and k, by the sparse decode "
        f"and the gathering of gradients, which are proportional to batch x k x the sum of widths. Memory is the peak above a "
        f"process that has the batch; its last column is without parameters and optimiser state."
    )
    heading = ["models", "concepts", "k", "batch", "threads", "ms", "us/token", "product, ms", "times product"]
    heading += ["encode, ms", "rest, ms", "update, ms", "rest / update", "peak, MB", "above state, MB"]
    report.rows(heading, rows)
    report.data["wall_seconds"] = time.monotonic() - start


def _reason_to_skip(point: Point, width: int, start: float) -> str | None:
    needed, available = point.estimated_bytes(width), _available_bytes()
    if needed > 0.9 * available:
        return f"skipped: needs {needed / 2**30:.1f} GiB, {available / 2**30:.1f} are free"
    if point.threads > _cores():
        return "skipped: not so many cores"
    if time.monotonic() - start > BUDGET:
        return "skipped: the table's time is used up"
    return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _available_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return 2**63


def _measured(run: Run, point: Point, width: int) -> dict:
    widths = {f"model{number}": width for number in range(point.n_models)}
    files = problems.activations(run.folder, widths, point.n_tokens)
    with settings.ours(run, threads=point.threads) as worker:
        worker.call("load_batch", name="batch", files=files)
        worker.call("start_threads", base="default", threads=point.threads)
        before = worker.call("resident")  # the peak so far would include the files from which the batch was copied
        size = {"n_concepts": point.n_concepts, "k": point.k, "threads": point.threads}
        worker.call("make", name="sae", base="default", **size)
        step = {"name": "sae", "batch": "batch", "encoder": "model0"}
        worker.call("step", **step, count=3)
        seconds = worker.call("step", **step, count=run.repeats(5))["seconds"]
        peak = worker.call("peak") - before
        encode = worker.call("encode", name="sae", batch="batch", model="model0", count=1 + run.repeats(3))["seconds"][1:]
        info = worker.call("info")
    for file in files.values():
        Path(file).unlink()
    return {"seconds": seconds, "encode_seconds": encode, "peak_above_batch": peak, "versions": info}
