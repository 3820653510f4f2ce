"""Training of one object, one call at a time: a second one would silently replace the first, or add steps to it."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from usae.errors import InvalidInputError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_runs: dict[int, tuple[str, int, int]] = {}
"""By the id of an object in training: the name of the call, its process and its thread."""


@contextlib.contextmanager
def run(owner: object, call: str) -> Iterator[None]:
    """Hold that `call` trains `owner`. InvalidInputError if another call does."""
    mine = call, os.getpid(), threading.get_ident()
    _refuse(_runs.get(id(owner)), call)
    theirs = _runs.setdefault(id(owner), mine)  # one step, so that one of two threads gets it
    if theirs is not mine:
        _refuse(theirs, call)
        _runs[id(owner)] = mine  # of the process that this one was forked from
    try:
        yield
    finally:
        if _runs.get(id(owner)) is mine:
            del _runs[id(owner)]


def training(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a method of an object one that trains it alone."""

    @functools.wraps(method)
    def alone(*args: Any, **kwargs: Any) -> _R:
        with run(args[0], method.__name__):
            return method(*args, **kwargs)

    return alone


def check(owner: object, call: str) -> None:
    """Refuse `call`, which changes `owner` at once, while another call trains it."""
    _refuse(_runs.get(id(owner)), call)


def _refuse(theirs: tuple[str, int, int] | None, call: str) -> None:
    if theirs is None or theirs[1] != os.getpid():
        return
    where = "a callback of its own" if theirs[2] == threading.get_ident() else "another thread"
    raise InvalidInputError(
        f"{call}: expected an object that is not in training, got one whose {theirs[0]} is under way and that {where} wants to "
        f"change; wait for its end, or train another object, for example copy.deepcopy(sae)"
    )
