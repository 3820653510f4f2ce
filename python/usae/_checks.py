"""Numbers that users pass in."""

from __future__ import annotations

import numbers
import sys
from typing import Any

from usae._errors import InvalidInputError


def integer(value: object, name: str, smallest: int, largest: int, otherwise: str = "") -> int:
    """`value` as an int; InvalidInputError for what is no integer in that range. numpy's integers are, bools are not."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and smallest <= int(value) <= largest:
        return int(value)
    raise InvalidInputError(f"{name} must be an integer from {smallest} to {largest}{otherwise}, got {value!r}")


def real(value: object, name: str, expected: str) -> float:
    """`value` as a finite float of at least 0; InvalidInputError, which says what was expected, for anything else."""
    abstract: Any = numbers.Real  # for mypy, to which a Real has no order
    if isinstance(value, abstract) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise InvalidInputError(f"{name} must be {expected}, got {value!r}")
