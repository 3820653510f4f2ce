"""Process-wide settings, and a report of what the installed core uses."""

from __future__ import annotations

from typing import Any

from usae import _usae
from usae._base import checks


def set_num_threads(n: int | None) -> None:
    """Set the number of threads of every autoencoder that was made without ``n_threads``.

    Results do not depend on the number of threads, because every sum has a fixed order.

    Parameters
    ----------
    n : int or None
        A number from 1 to 1024. None restores the initial value, the number of cores that this process may use.

    Raises
    ------
    InvalidInputError
        For any other value.
    """
    _usae.set_threads(thread_count(n, "n"))


def show_config() -> dict[str, Any]:
    """Return the settings in use: ``version``, ``kernels`` (instruction set), ``blas``, ``n_threads`` and ``extension``."""
    return {
        "version": _usae.version(),
        "kernels": _usae.kernels(),
        "blas": _usae.blas(),
        "n_threads": _usae.threads(),
        "extension": getattr(_usae, "__file__", None),
    }


def thread_count(n: object, argument: str) -> int:
    """Check a number of threads and return it as the core takes it: 0 instead of None."""
    return 0 if n is None else checks.integer(n, argument, 1, 1024, ", or None for all cores")
