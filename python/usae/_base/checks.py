"""Checks of numbers and JSON that users pass in."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import numbers
import reprlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from usae.errors import InvalidInputError

MOST_ITEMS = 2**20
"""More items of an argument than anyone lists; an iterable without end has more."""


class _Short(reprlib.Repr):
    """Keeps the order of dictionaries, which `reprlib` sorts."""

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        items = itertools.islice(value.items(), self.maxdict)
        parts = [f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}" for key, item in items]
        return f"{{{', '.join(parts + ['...'] * (len(value) > self.maxdict))}}}"


_REPR = _Short()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 4, 200, 200, 500
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdeque = _REPR.maxarray = 20


def shown(value: object) -> str:
    """Return a value as an error text shows it: its repr, but short, on one line, and never an error itself."""
    try:
        text = _REPR.repr(value)
    except Exception:  # what the value's own methods raise must not replace the error that is being told
        text = ""
    if not text or " at 0x" in text:
        return f"a value of type {type(value).__name__}"
    return " ".join(text.split())


def array_shown(value: object) -> str:
    """Return an array as an error text shows it: its shape and whether it is finite, and not its numbers."""
    try:
        array = np.asarray(value, np.float64)
    except Exception:  # no array of numbers, whatever its own methods raise
        return shown(value)
    if not array.ndim:
        return shown(value)
    return f"shape {list(array.shape)}" + ("" if np.isfinite(array).all() else " with NaN or infinity")


def integer(value: object, name: str, smallest: int, largest: int, otherwise: str = "") -> int:
    """Return `value` as an int. InvalidInputError unless it is an integer in the range; NumPy integers count, bools do not."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and smallest <= int(value) <= largest:
        return int(value)
    raise InvalidInputError(f"{name} must be an integer from {smallest} to {largest}{otherwise}, got {shown(value)}")


def mean_count(value: object, name: str, smallest: int, largest: int) -> float:
    """Return a mean number of things: an int if it is whole, else a float. InvalidInputError unless it is in the range."""
    number = as_float(value)
    if smallest <= number <= largest:
        return int(number) if number.is_integer() else number
    raise InvalidInputError(f"{name} must be a number from {smallest} to {largest}, got {shown(value)}")


def grid(value: object, largest: int = 2**20) -> tuple[int, int]:
    """Return the argument `grid`, rows and columns of tokens. InvalidInputError unless these are integers up to `largest`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InvalidInputError(f"grid must be (rows, columns) of the tokens of an image, got {shown(value)}")
    return integer(value[0], "grid[0]", 1, largest), integer(value[1], "grid[1]", 1, largest)


def real(value: object, name: str, expected: str) -> float:
    """Return `value` as a finite float of at least 0. InvalidInputError, with `expected` in its message, for anything else."""
    number = as_float(value)
    if 0 <= number <= sys.float_info.max:
        return number
    raise InvalidInputError(f"{name} must be {expected}, got {shown(value)}")


def boolean(value: object, name: str, otherwise: str = "") -> bool:
    """Return `value` as a bool. InvalidInputError unless it is True or False; NumPy's count, and so do the integers 1 and 0."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, numbers.Integral) and int(value) in (0, 1)):
        return bool(value)
    raise InvalidInputError(f"{name} must be True or False{otherwise}, got {shown(value)}")


def listed(value: object, name: str, expected: str) -> list[Any]:
    """Return the items of a list or another iterable that ends. InvalidInputError for text, mappings and what is none."""
    if not isinstance(value, (str, bytes, bytearray, Mapping)) and isinstance(value, Iterable):
        with contextlib.suppress(Exception):  # of the value's own methods
            items = list(itertools.islice(value, MOST_ITEMS + 1))
            if len(items) <= MOST_ITEMS:
                return items
    raise InvalidInputError(f"{name} must be {expected}, got {shown(value)}")


def choice(value: object, name: str, choices: Iterable[str]) -> str:
    """Return `value` as one of some words. InvalidInputError, which lists them, for anything else."""
    words = list(choices)
    if isinstance(value, str) and value in words:
        return str(value)
    hint = did_you_mean(value, words)
    raise InvalidInputError(f"{name} must be one of {', '.join(map(repr, words))}, got {shown(value)}{hint}")


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: a byte of a file's name that is no text, for example, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def as_float(value: object) -> float:
    """Return `value` as a float to compare with limits: NaN, which is in no range, if it is no number; infinity if too large.

    A NumPy scalar must not be compared directly: NumPy casts the limit to the scalar's type, and warns if that overflows.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an int too large for a float; its sign does not matter, because no range contains an infinity
        return math.inf


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """Return the end of a message that suggests the closest of `words`, or "" if none is close."""
    import difflib

    close = difflib.get_close_matches(word, list(words), n=1) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def closest_or_all(word: str, words: Iterable[str]) -> str:
    """Like `did_you_mean`, but without quotes and with up to three suggestions; if none is close, all words if they are few."""
    import difflib

    known = list(words)
    close = difflib.get_close_matches(word, known, n=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(known)}" if len(known) <= 16 else ""


def parsed_json(text: str | bytes) -> Any:
    """Parse strict JSON, which every parser reads the same way. ValueError, with the reason, for anything else."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refused_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} occurs twice")
        result[key] = value
    return result


def _refused_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
