"""The process-wide settings and what the installed core was built with."""

from __future__ import annotations

from typing import Any

from usae import _usae
from usae._base import checks


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that autoencoders use when they were made without ``n_threads``.

    Results do not depend on it: every sum has a fixed order.

    Parameters
    ----------
    n : int or None
        From 1 to 1024. None goes back to the number of cores this process may use.
    """
    _usae.set_threads(thread_count(n, "n"))


def show_config() -> dict[str, Any]:
    """Return what is in use: ``version``, ``kernels`` (instruction set), ``blas``, ``n_threads`` and ``extension``."""
    return {
        "version": _usae.version(),
        "kernels": _usae.kernels(),
        "blas": _usae.blas(),
        "n_threads": _usae.threads(),
        "extension": getattr(_usae, "__file__", None),
    }


def thread_count(n: object, argument: str) -> int:
    """The number the core takes: 0 for None."""
    return 0 if n is None else checks.integer(n, argument, 1, 1024, ", or None for all cores")
