"""Classes of pictures, in their order, for some or all networks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor

from usae._base import checks
from usae._base.tensors import on_cpu
from usae._data.activations import check_known
from usae.errors import InvalidInputError

LARGEST = 2**31 - 1


class Labels:
    """The classes of pictures by network, also of pictures that cannot be read.

    Parameters
    ----------
    labels : sequence or iterable of int, mapping of str to these, or None
        The argument of `faithfulness`. One for all is for those networks that are in `names`.
    names : sequence of str
        Networks that give logits.
    """

    def __init__(self, labels: Any, names: Sequence[str]):
        if labels is None:
            labels = {}
        elif not isinstance(labels, Mapping):
            _check_iterable(labels, "labels")
            if not names:
                raise InvalidInputError(
                    "labels must be None unless some network gives logits, got labels and embeddings alone; leave them out"
                )
            labels = dict(zip(names, itertools.tee(_items(labels), len(names)), strict=True)) | {"": labels}
        self._lengths = [(_length(each), name) for name, each in labels.items()]
        labels = {name: each for name, each in labels.items() if name}
        for name, each in labels.items():
            check_known(name, names, "labels")
            _check_iterable(each, f"labels[{name!r}]")
        self.names = tuple(labels)
        self._rows: dict[str, Iterator[Any]] = {name: iter(_items(each)) for name, each in labels.items()}
        self._taken = 0

    def check_number(self, n: int | None) -> None:
        """Refuse another number of labels than there are pictures, if both are known in advance."""
        for length, name in self._lengths:
            if n is not None and length not in (None, n):
                label = f"labels[{name!r}]" if name else "labels"
                raise InvalidInputError(f"{label} must have one for each of {n} pictures, got {length}")

    def of(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the classes of pictures by network, int64 [n]. `numbers` increase from call to call."""
        found: dict[str, list[int]] = {name: [] for name in self.names}
        for number in numbers:
            for name, label in self._up_to(number).items():
                found[name].append(checks.integer(_item(label), f"labels[{number}]", 0, LARGEST))
        return {name: torch.tensor(each, dtype=torch.int64) for name, each in found.items()}

    def check_used_up(self, n: int) -> None:
        """Refuse more labels than there are pictures, `n`, of which the last may have been left out."""
        if n > self._taken:
            self._up_to(n - 1)
        for rows in self._rows.values():
            if next(rows, None) is not None:
                raise InvalidInputError(f"labels must have one for each picture, got more than there are pictures, {n}")

    def _up_to(self, number: int) -> dict[str, Any]:
        result = {}
        for name, rows in self._rows.items():
            taken = list(itertools.islice(rows, number + 1 - self._taken))
            if len(taken) <= number - self._taken:
                raise InvalidInputError(
                    f"labels must have one for each picture, got {self._taken + len(taken)} for more pictures"
                )
            result[name] = taken[-1]
        self._taken = number + 1
        return result


def _items(labels: Any) -> Any:
    """Return an array or tensor as a list, and another iterable as it is."""
    labels = on_cpu(labels)
    return labels.tolist() if hasattr(labels, "tolist") else labels


def _item(label: Any) -> Any:
    return label.item() if isinstance(label, Tensor) and label.ndim == 0 else label


def _length(labels: object) -> int | None:
    try:
        return len(labels) if isinstance(labels, Sized) else None
    except Exception:  # of the object's own method, or of a length that is not known
        return None


def _check_iterable(labels: object, name: str) -> None:
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise InvalidInputError(
            f"{name} must be a sequence or iterable of classes, one for each picture, got {checks.shown(labels)}"
        )
