"""Columns of a model's activations: how many there are, and their labels, as data frames and labelled arrays have them.

Whoever compares the width of activations with what is known of a model compares the labels too, because both are `Columns`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from usae._base import checks
from usae.errors import InvalidInputError

Label = str | int
"""A label as files hold it. Other values, such as dates and tuples, are kept as text."""

MOST_CHARACTERS = 2**24
"""Longer labels are not remembered, so that a save can always be read."""

_NUMBERED = re.compile(r"(?:column_)?(0|[1-9]\d{0,8})")
"""Labels that pandas and Polars give columns without any."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """What is known of a model's columns.

    Attributes
    ----------
    width : int
    labels : tuple of str and int, or None
        None: none were seen.
    source : str
        What had them, in error messages.
    order : str
        Code that has the labels, for the remedy.
    """

    width: int
    labels: tuple[Label, ...] | None = None
    source: str = "training"
    order: str = "list(other.columns)"

    def adding(self, labels: tuple[Label, ...] | None) -> Columns:
        """Return what is known after columns with these labels, which were checked. Those of a frame without any say least."""
        if labels is None or (self.labels is not None and (_are_default(labels) or not _are_default(self.labels))):
            return self
        return dataclasses.replace(self, labels=labels)

    def check(self, labels: tuple[Label, ...] | None, label: str, x: str = "x") -> None:
        """Refuse other labels, or the same in another order. `label` names the array in errors, and `x` in the remedy."""
        if labels is None or self.labels is None or labels == self.labels:
            return
        ours, theirs = [list(map(str, each)) for each in (self.labels, labels)]
        alike = sorted(ours) == sorted(theirs)
        if ours == theirs or (not alike and (_are_default(self.labels) or _are_default(labels))):
            return
        column = next((i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), 0)
        remedy = f"use {x}[{self.order}] (frames) or {x}.sel(...) (xarray)" if alike else "give the columns that it has"
        raise InvalidInputError(
            f"{label} must have the columns of {self.source} in the same order, got {checks.shown(labels[column])} in place of "
            f"{checks.shown(self.labels[column])} at column {column}; {remedy}, or np.asarray({x}) if they are the same "
            f"nevertheless"
        )


def labels_of(x: Any, width: int) -> tuple[Label, ...] | None:
    """Return the labels of the last dimension of an array, of which there are `width`. None if it has none."""
    indexes, dimensions = getattr(x, "indexes", None), getattr(x, "dims", None)
    if isinstance(dimensions, tuple) and isinstance(indexes, Mapping):  # xarray
        found = indexes.get(dimensions[-1]) if dimensions else None
    else:
        names = ("column_names", "columns", "index") if getattr(x, "ndim", 0) == 1 else ("column_names", "columns")
        found = next((each for name in names if (each := getattr(x, name, None)) is not None and not callable(each)), None)
    if not isinstance(found, Collection) or len(found) != width:
        return None
    try:
        labels = [_plain(label) for label in found]
    except Exception:  # of the labels' own methods
        return None
    if None in labels or sum(len(str(label)) for label in labels) > MOST_CHARACTERS:
        return None
    return tuple(labels)  # type: ignore[arg-type]


def are_labels(value: object, width: int) -> bool:
    """Whether this is a list of labels as `labels_of` makes them."""
    return isinstance(value, list) and len(value) == width and all(
        isinstance(label, str) or (isinstance(label, int) and not isinstance(label, bool) and abs(label) < 2**63)
        for label in value
    )  # fmt: skip


def _plain(label: Any) -> Label | None:
    """Return a label as it can be saved; None if it is an object without a text of its own."""
    if type(label) is str and label.isascii():
        return label
    if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 2**63:
        return int(label)
    if isinstance(label, tuple):
        parts = [_plain(part) for part in label]
        return None if None in parts else f"({', '.join(map(repr, parts))})"
    if hasattr(label, "item") and hasattr(label, "dtype") and not hasattr(label, "__len__"):  # a scalar of NumPy
        value = label.item()
        if isinstance(value, int) and label.dtype.kind in "iu":
            return _plain(value)
    kind = type(label)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        return None
    return str(label).encode("utf-8", "backslashreplace").decode()


def _are_default(labels: tuple[Label, ...]) -> bool:
    """Whether labels are consecutive numbers, which frames without labels have, or a part of such a frame."""
    matches = [_NUMBERED.fullmatch(str(label)) for label in (labels[0], labels[-1])]
    if None in matches:
        return False
    first = int(matches[0][1])  # type: ignore[index]
    prefix = str(labels[0]).removesuffix(str(first))
    return all(str(label) == f"{prefix}{number}" for number, label in enumerate(labels, first))
