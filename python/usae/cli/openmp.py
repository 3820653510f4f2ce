"""How PyTorch's threads compute and wait in a process that runs one command, which shares the cores with other processes.

All of it is environment variables that OpenMP reads when PyTorch is loaded. What the user has set stays as it is.
"""

from __future__ import annotations

import os
import sys

import usae

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables that say how threads wait: the standard's, and those of GNU's, LLVM's and Intel's OpenMP."""

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that say how many threads compute."""


def set_up(threads: int | None) -> None:
    """Set what PyTorch has to find before it is imported.

    Threads that have nothing to do sleep. By default they run in circles for some milliseconds, and hold cores that the threads
    they wait for could have. There are as many threads as usae has, because PyTorch overlooks a container's quota.

    Parameters
    ----------
    threads : int or None
        The number that the command was given, if it was given one.
    """
    if not any(os.environ.get(name) for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if threads is not None:
        os.environ.update(dict.fromkeys(COUNTS, str(threads)))
    elif not any(os.environ.get(name) for name in COUNTS) and (usable := usae.show_config()["n_threads"]) < _cores():
        os.environ["OMP_NUM_THREADS"] = str(usable)


def _cores() -> int:
    """Return how many cores PyTorch sees."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
