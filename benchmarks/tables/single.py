"""A training step of a TopK autoencoder of one model: usae compared with other libraries."""

from __future__ import annotations

import contextlib
from statistics import median

import problems
import yardsticks
from client import WorkerError
from report import Report
from settings import Run

from tables.rivals import MODEL, Sides

TITLE = "A training step of one model"

N_BATCHES = 3
OURS = "partial_fit, default recipe: sparse decode, squared error, AuxK (no concept is dead yet), AdamW, dictionary normalised"


def measure(run: Run, report: Report) -> None:
    sizes = [256, 512] if run.quick else [2048, 4096]
    width = 96 if run.quick else 768
    limits = yardsticks.measured(run, report, max(sizes), width, run.n_concepts)
    data = problems.activations(run.folder, {MODEL: width}, N_BATCHES * max(sizes))
    names = [str(number) for number in range(N_BATCHES)]
    with contextlib.ExitStack() as stack:
        check = problems.activations(run.folder, {MODEL: width}, max(sizes), seed=7)
        sides = Sides(run, report, stack, check, plain_torch=False)
        rows, comprises = [], {name: OURS for name in sides.ours}
        report.data["seconds"] = {}
        for n_tokens in sizes:
            cuts = [{"start": i * n_tokens, "stop": (i + 1) * n_tokens} for i in range(N_BATCHES)]
            steps = {}  # functions that do one step, by label
            for side, worker in sides.ours.items():
                for name, cut in zip(names, cuts, strict=True):
                    worker.call("load_batch", name=name, files=data, **cut)
                sides.make_ours(worker, "sae")
                steps[side] = lambda count, worker=worker: worker.call(
                    "step", name="sae", batch=names, encoder=MODEL, count=count
                )
            for worker in sides.rivals.values():
                for name, cut in zip(names, cuts, strict=True):
                    worker.call("load_batch", name=name, file=data[MODEL], **cut)
            seconds = _measure(run, sides, steps, names, comprises)
            report.data["seconds"][n_tokens] = seconds
            times = {label: median(of) for label, of in seconds.items()}
            fastest = min((label for label in times if label not in sides.ours), key=times.__getitem__, default=None)
            for side in sides.ours:
                ratio = times[fastest] / times[side] if fastest else None
                name = f"single-model step vs the fastest rival ({fastest}), batch of {n_tokens} ({side})"
                report.target(name, ratio, at_least=5)
            best = min(times[side] for side in sides.ours)
            product = limits.product_seconds(n_tokens, width, run.n_concepts)
            rows += [[f"{n_tokens}, {label}", 1e3 * s, n_tokens / s, s / product, s / best] for label, s in times.items()]
    report.words(
        f"Width {width}, {run.n_concepts} concepts, k = {run.k}; medians, all in turn, from the same weights; each library's "
        f"own training step on the same batches:"
    )
    report.rows(["batch and library", "milliseconds", "tokens/s", "times encoder product", "times ours"], rows)
    report.words("What a step comprises:\n\n" + "\n".join(f"* {label}: {what}" for label, what in comprises.items()))


def _measure(run: Run, sides: Sides, steps: dict, names: list[str], comprises: dict[str, str]) -> dict[str, list[float]]:
    """Measure seconds of steps of all sides, in turns. Variants of a rival are measured one after the other, each alone."""
    seconds: dict[str, list[float]] = {side: [] for side in steps}
    for step in steps.values():
        step(2 * N_BATCHES)
    n_variants = max((len(sides.variants[rival]) for rival in sides.rivals), default=1)
    for number in range(n_variants):
        of_rivals = {}
        for rival, worker in sides.rivals.items():
            variants = list(sides.variants[rival].items())
            if number < len(variants):
                variant, what = variants[number]
                label = rival if len(variants) == 1 else f"{rival} ({variant})"
                try:
                    sides.make_rival(rival, variant)
                    worker.call("step", batch=names, count=2)
                except WorkerError as error:
                    comprises[label] = f"not measured: {error}"
                    continue
                comprises[label] = what
                seconds[label] = []
                of_rivals[label] = worker
        for turn in range(run.repeats(5)):
            for side, step in steps.items():
                seconds[side] += step(N_BATCHES)["seconds"]
            for label, worker in of_rivals.items():
                seconds[label] += worker.call("step", batch=names[turn % N_BATCHES], count=1)["seconds"]
    return seconds
