"""Masks of an extraction: which tokens of each picture count."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch

from usae._data import masks
from usae.errors import InvalidInputError, UsaeError


class PictureMasks:
    """The masks of pictures, in their order, also of those that cannot be read. Each is bool [tokens].

    Parameters
    ----------
    mask : array, or iterable of arrays
        The argument `mask` of `extract`.
    tokens : int
        Number of tokens of a picture.
    n : int or None
        Number of pictures, if it is known in advance.
    """

    def __init__(self, mask: Any, tokens: int, n: int | None):
        self._tokens = tokens
        self._rows = self._of_array(mask, n) if isinstance(mask, (np.ndarray, torch.Tensor)) else self._of_each(mask, n)
        self._taken = 0

    def of(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the masks of pictures, bool [n, tokens].

        `numbers` are their numbers among all pictures, which increase from call to call. Masks between them are passed over.
        """
        return np.stack([self._up_to(number) for number in numbers])

    def check_used_up(self, n: int) -> None:
        """Refuse fewer or more masks than there are pictures, `n`, of which the last may have been left out."""
        if n > self._taken:
            self._up_to(n - 1)
        if next(self._rows, None) is not None:
            raise InvalidInputError(f"mask must have one for each picture, got more than there are pictures, {self._taken}")

    def _up_to(self, number: int) -> np.ndarray:
        """Return the mask of the picture with this number, after those before it have been taken."""
        rows = list(itertools.islice(self._rows, number + 1 - self._taken))
        self._taken += len(rows)
        if self._taken <= number:
            raise InvalidInputError(
                f"mask must have one for each picture, got {self._taken} for more pictures; [1, tokens] is the same for all"
            )
        return rows[-1]

    def _of_array(self, mask: Any, n: int | None) -> Iterator[np.ndarray]:
        array = masks.as_mask(mask, "mask")
        n = n if n is not None else len(array) if array.ndim else 0
        counts = masks.by_row(array, "mask", [(n, self._tokens)])
        masks.numbers(counts, "mask")
        return iter(counts.reshape(n, self._tokens))

    def _of_each(self, mask: Any, n: int | None) -> Iterator[np.ndarray]:
        if isinstance(mask, (str, bytes, Mapping)) or not isinstance(mask, Iterable):
            raise InvalidInputError(
                f"mask must be an array of truth values [n, tokens] or [n, rows, columns], or an iterable of one for each "
                f"picture, got {type(mask).__name__}"
            )
        length = _length(mask)
        if n is not None and length not in (None, n):  # found before the networks run
            raise InvalidInputError(f"mask must have one for each of {n} pictures, got {length}")
        return self._from_items(mask)

    def _from_items(self, mask: Iterable[Any]) -> Iterator[np.ndarray]:
        number = 0
        try:
            for each in mask:
                yield self._one(each, f"mask[{number}]")
                number += 1
        except (UsaeError, MemoryError):
            raise
        except Exception as error:  # of the iterable's own code
            raise InvalidInputError(
                f"mask[{number}] must be an array of truth values, got {type(error).__name__}: {error}; correct it"
            ) from error

    def _one(self, mask: Any, label: str) -> np.ndarray:
        array = masks.as_mask(mask, label)
        if array.ndim not in (1, 2) or array.size != self._tokens:
            raise InvalidInputError(
                f"{label} must be [{self._tokens}], one for each token, or [rows, columns] of the token grid, got "
                f"{list(array.shape)}"
            )
        return array.reshape(-1)


def _length(mask: object) -> int | None:
    try:
        return len(mask) if isinstance(mask, Sized) else None
    except Exception:  # of the object's own method, or of a length that is not known
        return None
