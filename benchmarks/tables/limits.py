"""The machine's speed of float32 products and memory, and the time of our step and encoding as multiples of its limits."""

from __future__ import annotations

import contextlib
from statistics import median

import problems
import settings
import yardsticks
from client import Worker
from report import Report
from settings import Run

TITLE = "Limits of the machine"

ENCODED = "siglip"
N_BATCHES = 2


def measure(run: Run, report: Report) -> None:
    width = run.widths[ENCODED]
    flops = 2 * run.n_tokens * width * run.n_concepts
    with contextlib.ExitStack() as stack:
        mine = {name: stack.enter_context(w) for name, w in settings.ours_with_and_without_screening(run).items()}
        libraries = yardsticks.blas_workers(run, stack, run.n_tokens, width, run.n_concepts)
        report.data["versions"] = {name: worker.call("info") for name, worker in mine.items()}
        report.data["versions"] |= {name: worker.call("info") for name, worker in libraries.items()}
        kernels = {name: facts["kernels"] for name, facts in report.data["versions"].items() if name in mine}

        calls = _ours(run, mine)
        calls |= {f"product, {name}": lambda worker=w: worker.call("product") for name, w in libraries.items()}
        seconds: dict[str, list[float]] = {label: [] for label in calls}
        for call in calls.values():
            call()
        for _ in range(run.repeats(9)):
            for label, call in calls.items():
                seconds[label] += _seconds(call())
        bandwidth = libraries["torch"].call("bandwidth", mib=16 if run.quick else 256, count=run.repeats(7))

    times = {label: median(of) for label, of in seconds.items()}
    product = min(times[f"product, {name}"] for name in libraries)
    report.data |= {"seconds": seconds, "bandwidth": bandwidth}
    report.words(
        f"The encoder product [{run.n_tokens}, {width}] x [{width}, {run.n_concepts}] in float32, its output included, in "
        f"every BLAS at hand; then our encode of these tokens, and our default step of {', '.join(run.widths)} that encodes "
        f"{ENCODED}, k = {run.k}; medians, all in turn."
    )
    rows = [[label, 1e3 * s, flops / s / 1e9, s / product] for label, s in sorted(times.items(), key=lambda item: item[1])]
    report.rows(["", "milliseconds", "GFLOP/s of that product", "times the fastest product"], rows)
    rows = [[name, median(of) / 1e9, max(of) / 1e9] for name, of in bandwidth.items()]
    report.words("Memory bandwidth, read and written bytes, of arrays that fit no cache:")
    report.rows(["GB/s", "median", "best"], rows)
    _targets(run, report, mine, times, product)
    _memory(run, report, kernels)


def _ours(run: Run, mine: dict[str, Worker]) -> dict:
    """Return the calls that are timed, by label, with autoencoders that have done a few steps."""
    names = [str(number) for number in range(N_BATCHES)]
    eight = {f"model{number}": run.widths[ENCODED] for number in range(8)}
    calls = {}
    for side, worker in mine.items():
        for kind, widths in {"3 models": run.widths, "8 models": eight}.items():
            files = problems.activations(run.folder, widths, N_BATCHES * run.n_tokens)
            batches = [f"{kind} {name}" for name in names]
            for number, batch in enumerate(batches):
                cut = {"start": number * run.n_tokens, "stop": (number + 1) * run.n_tokens}
                worker.call("load_batch", name=batch, files=files, **cut)
            worker.call("make", name=kind, base="default", n_concepts=run.n_concepts, k=run.k, threads=run.threads)
            encoder = next(iter(widths))
            step = {"name": kind, "batch": batches, "encoder": encoder}
            worker.call("step", **step, count=run.repeats(12))
            calls[f"step of {kind}, {side}"] = lambda worker=worker, step=step: worker.call("step", **step, count=N_BATCHES)
        encode = {"name": "3 models", "batch": "3 models 0", "model": ENCODED}
        calls[f"encode, {side}"] = lambda worker=worker, encode=encode: worker.call("encode", **encode)
    return calls


def _seconds(result) -> list[float]:
    return result if isinstance(result, list) else result["seconds"]


def _targets(run: Run, report: Report, mine: dict[str, Worker], times: dict[str, float], product: float) -> None:
    without, with_screening = settings.unscreened(mine), settings.screened(mine)
    step = "whole default step / bare float32 encoder product"
    report.target(f"{step}, without screening", times[f"step of 3 models, {without}"] / product, at_most=1.6)
    value = times[f"step of 3 models, {with_screening}"] / product if with_screening else None
    report.target(f"{step}, with screening", value, at_most=1.0)
    ratio = times[f"step of 8 models, {without}"] / times[f"step of 3 models, {without}"]
    report.target("8 models instead of 3, without screening", ratio, at_most=1.6)


def _memory(run: Run, report: Report, kernels: dict[str, str]) -> None:
    """Measure the peak memory of two steps, in a separate process each, with and without state and the copy of the batch."""
    files = problems.activations(run.folder, run.widths, run.n_tokens)
    state = 3 * 2 * 4 * run.n_concepts * sum(run.widths.values())
    batch = 4 * run.n_tokens * sum(run.widths.values())
    rows, report.data["memory"] = [], {}
    for side in kernels:
        for base, arguments in {"default": {}, "published": {"total_steps": 100, "warmup_steps": 10}}.items():
            with settings.ours(run, kernels[side]) as worker:
                worker.call("load_batch", name="batch", files=files)
                worker.call("start_threads", base=base, threads=run.threads)
                before = worker.call("resident")  # the peak so far would include the files from which the batch was copied
                size = {"n_concepts": run.n_concepts, "k": run.k, "threads": run.threads}
                worker.call("make", name="sae", base=base, arguments=arguments, widths=run.widths, **size)
                for model in ("siglip", "dinov2"):  # a model of each width
                    worker.call("step", name="sae", batch="batch", encoder=model)
                used = worker.call("peak") - before
            megabytes = [number / 1e6 for number in (used, used - state, used - state - batch)]
            rows.append([f"{base}, {side}", *megabytes])
            report.data["memory"][f"{base}, {side}"] = {"used": used, "state": state, "batch": batch}
            if base == "default":
                name = f"peak memory (MB) above parameters, optimiser state and batch ({side})"
                report.target(name, megabytes[1], at_most=200)
    report.words(
        f"Peak memory of training, measured above a process that has the batch already: all; without parameters and "
        f"optimiser state ({state / 1e6:.0f} MB); and without the core's standardised copy of the batch "
        f"({batch / 1e6:.0f} MB) either. The target is held against the second, strict number."
    )
    report.rows(["MB", "used", "above parameters and state", "above the copy of the batch too"], rows)
