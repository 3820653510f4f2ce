"""Number of PyTorch's threads for a block of code.

PyTorch keeps this number for each thread that computes, and one more for threads that have not computed yet. Setting the number
changes both, so what a block changes is restored with regard to other threads that are in such blocks meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside: Counter[int] = Counter()
"""How many blocks ask for each number at the moment, in all threads."""

_before = 0
"""Number that threads started with when the first of these blocks began."""


@contextlib.contextmanager
def using_threads(n: int | None) -> Iterator[None]:
    """Let PyTorch compute with `n` threads in this thread. Afterwards it has the number that it had. None changes nothing."""
    if n is None:
        yield
        return
    own = _enter(n)
    try:
        yield
    finally:
        _leave(n, own)


def compute_alone() -> None:
    """Have PyTorch compute with one thread in this thread, which is new, as long as it lives. No other thread sees a change.

    The number for threads that have not computed yet is set back by a thread that ends.
    """
    with _lock:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(before,))
        other.start()
        other.join()


def _enter(n: int) -> int:
    """Set the number, and return the one to restore."""
    global _before
    with _lock:
        own = torch.get_num_threads()
        if not _inside:
            _before = own
        elif not _of_this_thread.nested and own in _inside:
            own = _before  # a thread that computes for the first time starts with the number of another one's block
        _inside[n] += 1
        _of_this_thread.nested += 1
        torch.set_num_threads(n)
    return own


def _leave(n: int, own: int) -> None:
    with _lock:
        _inside[n] -= 1
        if not _inside[n]:
            del _inside[n]
        _of_this_thread.nested -= 1
        torch.set_num_threads(own)


class _OfThisThread(threading.local):
    nested = 0


_of_this_thread = _OfThisThread()
