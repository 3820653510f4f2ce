"""What users wait for: python benchmarks/waiting.py [--threads N].

Importing usae beyond numpy, in a new process each time, and the answer to Ctrl-C in the middle of long calls, from the signal
to the exception. The promises are a fifth of a second and a second. Prints the median and the longest of some tries.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

import usae

TRIES = 10
IMPORT = "import time, numpy; start = time.perf_counter(); import usae; print(time.perf_counter() - start)"
WIDTHS = {"a": 384, "b": 256}


def import_times() -> list[float]:
    return [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(TRIES)]


def answer_times(work: Callable[[], object]) -> list[float]:
    """Seconds from a signal, sent a quarter of a second into `work`, to KeyboardInterrupt."""
    times: list[float] = []
    for _ in range(TRIES):
        sent: list[float] = []

        def send(sent: list[float] = sent) -> None:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.25, send)
        timer.start()
        try:
            while True:
                work()
        except KeyboardInterrupt:
            times.append(time.perf_counter() - sent[0])
        timer.join()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
    rng = np.random.default_rng(0)
    acts = {name: rng.standard_normal((16384, width), dtype=np.float32) for name, width in WIDTHS.items()}
    recipe = usae.recipes.default(batch_size=16384)
    sae = usae.UniversalSAE(4096, 32, recipe=recipe, n_threads=options.threads).initialize(WIDTHS)
    calls: dict[str, Callable[[], object]] = {
        "fit": lambda: usae.UniversalSAE(**sae.get_params()).fit(acts, steps=10_000),
        "partial_fit": lambda: sae.partial_fit(acts),
        "evaluate": lambda: sae.evaluate(acts),
        "encode": lambda: sae.encode(acts["a"], "a"),
    }
    rows = {"import usae": import_times()} | {f"Ctrl-C in {name}": answer_times(work) for name, work in calls.items()}
    print(f"{'':24}{'median':>10}{'longest':>10}")
    for name, times in rows.items():
        print(f"{name:24}{statistics.median(times):8.3f} s{max(times):8.3f} s")


if __name__ == "__main__":
    main()
