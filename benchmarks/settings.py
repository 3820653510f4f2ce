"""Sizes of the measurements, full and quick, and the workers that all tables use."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from client import Worker

WIDTHS = {"siglip": 768, "dinov2": 384, "vit": 768}
QUICK_WIDTHS = {"siglip": 96, "dinov2": 48, "vit": 96}


@dataclasses.dataclass
class Run:
    """The options of the command line."""

    quick: bool
    threads: int
    folder: Path  # folder of the arrays that workers share
    rivals: list[str]
    install: bool

    @property
    def widths(self) -> dict[str, int]:
        return QUICK_WIDTHS if self.quick else WIDTHS

    @property
    def n_concepts(self) -> int:
        return 512 if self.quick else 6144

    @property
    def k(self) -> int:
        return 8 if self.quick else 32

    @property
    def n_tokens(self) -> int:
        return 512 if self.quick else 6272

    def repeats(self, full: int) -> int:
        return min(full, 3) if self.quick else full


def ours(run: Run, kernels: str | None = None, threads: int | None = None) -> Worker:
    """Start a worker with usae."""
    return Worker("ours.py", sys.executable, threads or run.threads, kernels)


# Kernels with screening, and those for the same registers without it.
WITHOUT_SCREENING = {"amx": "avx512", "avx512vnni": "avx512", "avxvnni": "avx2", "dotprod": "portable"}


def ours_with_and_without_screening(run: Run) -> dict[str, Worker]:
    """Return workers by the name that tables use. Only one if the processor's best kernels have no int8 screening."""
    best = ours(run)
    kernels = best.call("info")["kernels"]
    full = WITHOUT_SCREENING.get(kernels)
    if full is None:
        return {f"ours, {kernels}": best}
    return {f"ours, {kernels} (screening)": best, f"ours, {full}": ours(run, full)}


def unscreened(workers: dict[str, Any]) -> str:
    """Return the name of the worker without screening."""
    return next(name for name in workers if "screening" not in name)


def screened(workers: dict[str, Any]) -> str | None:
    """Return the name of the worker with screening, or None."""
    return next((name for name in workers if "screening" in name), None)
