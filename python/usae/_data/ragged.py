"""What tokenizers and networks give for the tokens of several texts: padded to one length, or a list of one array for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from usae.errors import InvalidInputError

Convert = Callable[[Any, str], np.ndarray]
"""A function that checks an array, given with its name in error messages."""


class Ragged(NamedTuple):
    """Tokens of all texts, text by text, padding included.

    Attributes
    ----------
    values : ndarray, [n_tokens, ...]
        One value for each token.
    lengths : ndarray of int64, [n_texts]
        Number of tokens of each text.
    """

    values: np.ndarray
    lengths: np.ndarray


def as_ragged(x: Any, label: str, n_texts: int, of_token: str, convert: Convert) -> Ragged:
    """Check an array [texts, tokens, ...], or a list of [tokens, ...] for each text.

    Parameters
    ----------
    x : array, or sequence of arrays
        What was given.
    label : str
        Its name in error messages.
    n_texts : int
        Number of texts.
    of_token : str
        What each token has, as error messages show it: "" for one value, ", 2" for a span, ", width" for activations.
    convert : callable
        Check of the elements.
    """
    ndim = 2 + bool(of_token)
    if not isinstance(x, (list, tuple)) and _has_shape(x):
        array = convert(x, label)
        if array.ndim != ndim or len(array) != n_texts or (of_token == ", 2" and array.shape[-1] != 2):
            raise _wrong(label, n_texts, of_token, str(list(array.shape)))
        return Ragged(array.reshape(-1, *array.shape[2:]), np.full(n_texts, array.shape[1], np.int64))
    if not isinstance(x, (list, tuple)) or len(x) != n_texts:
        got = f"{len(x)} of them" if isinstance(x, (list, tuple)) else type(x).__name__
        raise _wrong(label, n_texts, of_token, got)
    parts: list[np.ndarray] = []
    lengths = np.zeros(n_texts, np.int64)
    for number, each in enumerate(x):
        part = convert(each, f"{label}[{number}]")
        if not part.size:
            continue  # a list without tokens does not show their shape
        if part.ndim != ndim - 1 or (of_token == ", 2" and part.shape[-1] != 2):
            raise InvalidInputError(f"{label}[{number}] must be [tokens{of_token}], got {list(part.shape)}")
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise InvalidInputError(
                f"{label}[{number}] must have the width of those before it, {parts[0].shape[-1]}, got {list(part.shape)}"
            )
        parts.append(part)
        lengths[number] = len(part)
    if not parts:
        return Ragged(np.zeros((0, 2) if of_token == ", 2" else 0, np.int64), lengths)
    return Ragged(np.concatenate(parts), lengths)


def _has_shape(x: Any) -> bool:
    try:
        return hasattr(x, "shape")
    except Exception:  # of the value's own attribute
        return False


def _wrong(label: str, n_texts: int, of_token: str, got: str) -> InvalidInputError:
    return InvalidInputError(
        f"{label} must be an array [{n_texts}, tokens{of_token}] or a list of {n_texts} arrays [tokens{of_token}], one for "
        f"each text, got {got}"
    )
