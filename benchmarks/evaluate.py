"""Measures the time of `evaluate` and of encoding: python benchmarks/evaluate.py [--quick].

The data are a million tokens of three models of width 768, 384 and 768, in float16 memory maps, with 6144 concepts and k = 32.
They are encoded from every model, and then evaluated, each in a separate process. Memory is the peak of anonymous memory above
that before the call; pages of the memory maps do not count, because the system can drop them. See README.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import usae

sys.path.insert(0, str(Path(__file__).resolve().parent))

from own_process import Figures, in_own_process  # noqa: E402
from report import Report  # noqa: E402

WIDTHS = {"a": 768, "b": 384, "c": 768}
N_CONCEPTS, K = 6144, 32
PART = 16_384


def make(folder: Path, n_tokens: int) -> None:
    """Make activations with a common sparse part, and train an autoencoder on some of them."""
    random = np.random.default_rng(0)
    directions = {name: random.standard_normal((512, width), np.float32) for name, width in WIDTHS.items()}
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, (n_tokens, width))
        for name, width in WIDTHS.items()
    }
    for start in range(0, n_tokens, PART):
        n = min(PART, n_tokens - start)
        code = np.maximum(random.standard_normal((n, 512), np.float32) - 2, 0)
        for name, array in arrays.items():
            noise = 0.1 * random.standard_normal((n, WIDTHS[name]), np.float32)
            array[start : start + n] = code @ directions[name] + noise
    some = {name: np.array(array[:65_536]) for name, array in arrays.items()}
    usae.UniversalSAE(N_CONCEPTS, K, seed=0).fit(some, steps=30, progress=False).save(folder / "model")


def measured(folder: Path, what: str) -> Figures:
    sae = usae.load(folder / "model")
    acts = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in WIDTHS}
    sae.encode(acts["b"][:PART], "b")  # starts the threads and packs the weights
    calls: dict[str, Callable[[], object]] = {"encode": lambda: _encode_all(sae, acts), "evaluate": lambda: sae.evaluate(acts)}
    with _PeakOfAnonymousMemory() as peak:
        start = time.perf_counter()
        calls[what]()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens/s": len(acts["a"]) / seconds, "MB above inputs": peak.megabytes}


def _encode_all(sae: usae.UniversalSAE, acts: dict[str, np.ndarray]) -> None:
    for name, x in acts.items():
        for start in range(0, len(x), PART):
            sae.encode(x[start : start + PART], name)


class _PeakOfAnonymousMemory:
    """Measures the peak of anonymous memory, twenty times a second."""

    def __enter__(self) -> _PeakOfAnonymousMemory:
        self._before = self._peak = _anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self._peak = max(self._peak, _anonymous())

    @property
    def megabytes(self) -> float:
        return (self._peak - self._before) / 1024


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tokens, to check that it works")
    parser.add_argument("--folder", type=Path, help="folder for 4 GB of activations; default: a temporary folder")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    arguments = parser.parse_args()
    n_tokens = 70_000 if arguments.quick else 1_000_000

    report = Report("evaluate", "Evaluation", os.cpu_count() or 1, arguments.quick)
    report.data["command"] = f"python benchmarks/evaluate.py {shlex.join(sys.argv[1:])}".rstrip()
    report.data["versions"] = {name: {"version": module.__version__} for name, module in (("usae", usae), ("numpy", np))}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make(Path(folder), n_tokens)
        found = {what: in_own_process(measured, Path(folder), what) for what in ("encode", "evaluate")}
    report.data["figures"] = found
    report.words(f"{n_tokens:,} tokens of three models (768, 384, 768) in float16 memory maps, {N_CONCEPTS} concepts, k = {K}.")
    report.rows(
        ["", "seconds", "tokens/s", "MB above inputs"],
        [[what, figures["seconds"], figures["tokens/s"], figures["MB above inputs"]] for what, figures in found.items()],
    )
    report.target(
        "speed of evaluate / encoding all models", found["encode"]["seconds"] / found["evaluate"]["seconds"], at_least=0.7
    )
    report.target("peak memory of evaluate above inputs, MB", found["evaluate"]["MB above inputs"], at_most=500)
    report.write(arguments.output)


if __name__ == "__main__":
    main()
