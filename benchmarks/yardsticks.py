"""The speed of the best float32 product and the memory bandwidth of this machine, with which every table is compared."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from statistics import median

from agreement import Disagreement
from client import Worker
from report import Report
from settings import Run


@dataclasses.dataclass(frozen=True)
class Limits:
    """Operations per second of a product and bytes per second of a copy (read and written), with all threads of the run."""

    product_flops: float
    copy_bytes: float

    def product_seconds(self, n_tokens: int, width: float, n_concepts: int) -> float:
        """Return the seconds of the encoder's product, [n_tokens, width] x [width, n_concepts]."""
        return 2 * n_tokens * width * n_concepts / self.product_flops


def measured(run: Run, report: Report, n_tokens: int, width: int, n_concepts: int) -> Limits:
    """Measure at this size, and add the result to the report."""
    with contextlib.ExitStack() as stack:
        libraries = blas_workers(run, stack, n_tokens, width, n_concepts)
        times = {name: median(worker.call("product", count=run.repeats(7))[1:]) for name, worker in libraries.items()}
        copies = libraries["torch"].call("bandwidth", mib=16 if run.quick else 256, count=run.repeats(5))["copy"]
    fastest = min(times, key=times.__getitem__)
    limits = Limits(2 * n_tokens * width * n_concepts / times[fastest], median(copies))
    report.data["limits"] = {"fastest": fastest, "size": [n_tokens, width, n_concepts], "product_seconds": times}
    report.data["limits"] |= dataclasses.asdict(limits)
    return limits


def blas_workers(run: Run, stack: contextlib.ExitStack, n_tokens: int, width: int, n_concepts: int) -> dict[str, Worker]:
    """Return a worker for each BLAS that is installed, ready for the product [n_tokens, width] x [width, n_concepts].

    Raises
    ------
    Disagreement
        If the result of one of them is wrong.
    """
    workers = {}
    for name in ("numpy", "torch", "system OpenBLAS", "scipy-openblas32"):
        worker = stack.enter_context(Worker("limits.py", sys.executable, run.threads))
        if not worker.call("load", name=name):
            continue
        worker.call("set_threads", threads=run.threads)
        worker.call("make", n_tokens=n_tokens, width=width, n_concepts=n_concepts)
        error = worker.call("check")
        if not error < 1e-5:
            raise Disagreement(f"the product of {name} is wrong by {error:.3g} of its largest element")
        workers[name] = worker
    return workers
