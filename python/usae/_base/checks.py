"""Numbers and JSON that users pass in."""

from __future__ import annotations

import json
import math
import numbers
import sys
from collections.abc import Iterable
from typing import Any

from usae.errors import InvalidInputError


def integer(value: object, name: str, smallest: int, largest: int, otherwise: str = "") -> int:
    """`value` as an int; InvalidInputError for what is no integer in that range. numpy's integers are, bools are not."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and smallest <= int(value) <= largest:
        return int(value)
    raise InvalidInputError(f"{name} must be an integer from {smallest} to {largest}{otherwise}, got {value!r}")


def real(value: object, name: str, expected: str) -> float:
    """`value` as a finite float of at least 0; InvalidInputError, which says what was expected, for anything else."""
    number = as_float(value)
    if 0 <= number <= sys.float_info.max:
        return number
    raise InvalidInputError(f"{name} must be {expected}, got {value!r}")


def as_float(value: object) -> float:
    """`value` as a float, for comparing: NaN, which is in no range, for what is no number, and infinity for too large a one.

    A numpy scalar must not be compared as it is: numpy casts the limit to the type of the scalar, and warns where it overflows.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a long int; its sign does not matter, neither infinity is in a range
        return math.inf


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """To end a message with: the closest of some words, if one is close."""
    import difflib

    close = difflib.get_close_matches(word, list(words), n=1) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def closest_or_all(word: str, words: Iterable[str]) -> str:
    """The same of words that are typed as they stand: the closest; all of them if they are few and none is close."""
    import difflib

    known = list(words)
    close = difflib.get_close_matches(word, known, n=3)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(known)}" if len(known) <= 16 else ""


def parsed_json(text: str | bytes) -> Any:
    """What `text` says in strict JSON, which all readers understand alike; ValueError, with the reason, for anything else."""
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
