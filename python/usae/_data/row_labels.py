"""Labels of rows, as data frames and labelled arrays have them. Models whose labels differ are not paired by position.

No library is imported: an index is what has `equals`, and a labelled array what has `dims` and `indexes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from usae._base import checks
from usae.errors import InvalidInputError


class RowLabels(NamedTuple):
    """Labels of the dimensions of one array but the last.

    Attributes
    ----------
    dimensions : tuple
        Names of all dimensions, also of the last; empty if they have none.
    indexes : tuple
        For each dimension but the last its index, or None.
    """

    dimensions: tuple[Any, ...]
    indexes: tuple[Any, ...]


def check_same_rows(acts: Mapping[str, Any], argument: str) -> None:
    """Refuse activations of several models if labels say that row t is not the same in each.

    Parameters
    ----------
    acts : mapping of str to array
        Activations as users pass them in, with equal numbers of rows. Those without labels fit any others.
    argument : str
        The name of `acts` in error messages.
    """
    labelled = [(name, labels) for name, x in acts.items() if (labels := _labels_of(x)) is not None]
    for number, (name, labels) in enumerate(labelled):
        # With each, and not with the first only, because a default index fits others that do not fit each other.
        for other_name, other in labelled[:number]:
            _check_same(labels, other, f"{argument}[{name!r}]", f"{argument}[{other_name!r}]")


def check_rows_of_masks(found: Iterable[tuple[object, str]], acts: Iterable[tuple[Any, str]]) -> None:
    """Refuse masks if labels say that row t of one is not row t of the activations. Each comes with its name in errors."""
    labelled = [(labels, label) for x, label in acts if (labels := _labels_of(x)) is not None]
    for mask, label in found:
        labels = _labels_of(mask, of_mask=True)
        if labels is None:
            continue
        for other, other_label in labelled:
            rows = other._replace(dimensions=other.dimensions[:-1])
            if len(labels.dimensions) in (0, len(rows.dimensions)) or not rows.dimensions:
                _check_same(labels, rows, label, other_label, "mask")


def _check_same(labels: RowLabels, other: RowLabels, label: str, other_label: str, x: str = "x") -> None:
    """Compare labels. `x` is what the remedy calls the array that has the first of them."""
    if labels.dimensions != other.dimensions and _are_permuted(labels.dimensions, other.dimensions):
        raise InvalidInputError(
            f"{label} must have its dimensions in the order of {other_label}, {_listed(other.dimensions)}, got "
            f"{_listed(labels.dimensions)}; use {x}.transpose{checks.shown(other.dimensions)}"
        )
    for index, expected in zip(labels.indexes, other.indexes, strict=False):
        if index is None or expected is None or len(index) != len(expected) or index.equals(expected):
            continue
        if _counts(index) and not _has_integers(expected) or _counts(expected) and not _has_integers(index):
            continue  # a frame that was given no labels
        row = _first_difference(index, expected)
        got, wanted = (checks.shown(_plain(each[row])) for each in (index, expected))
        raise InvalidInputError(
            f"{label} must have the labels of rows that {other_label} has, in the same order, because row t of each is the "
            f"same place, got {got} in place of {wanted} at row {row}; use "
            f"{x}.loc[other.index] (frames) or {x}.reindex_like(other) (xarray), or np.asarray({x}) if row t is the same "
            f"place nevertheless"
        )


def _labels_of(x: Any, of_mask: bool = False) -> RowLabels | None:
    """Return the labels of an array; None if it has none. Every dimension of a mask counts, because it has no width."""
    if isinstance(x, np.ndarray):
        return None
    indexes, dimensions = _attribute(x, "indexes"), _attribute(x, "dims")
    if isinstance(dimensions, tuple) and isinstance(indexes, Mapping):  # xarray
        return RowLabels(
            dimensions, tuple(_as_index(indexes.get(name)) for name in (dimensions if of_mask else dimensions[:-1]))
        )
    index = _attribute(x, "index")
    if index is not None and not callable(index):  # pandas and libraries that are like it
        return RowLabels((), (_as_index(index),))
    return None


def _attribute(x: Any, name: str) -> Any:
    """Return an attribute; None if there is none, or if it is an error to ask for it, as for the index of np.nditer."""
    try:
        return getattr(x, name, None)
    except Exception:  # of the value's own methods
        return None


def _as_index(index: Any) -> Any:
    index = index.compute() if hasattr(index, "compute") else index  # Dask
    return index if hasattr(index, "equals") and hasattr(index, "__len__") else None


def _are_permuted(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether a name of both stands in different places. Names of only one say nothing: models may call them as they like."""
    return any(name in other and other.index(name) != i for i, name in enumerate(one))


def _counts(index: Any) -> bool:
    """Whether an index is 0, 1, 2 and so on, which frames without labels have."""
    return _has_integers(index) and np.array_equal(np.asarray(index), np.arange(len(index)))


def _has_integers(index: Any) -> bool:
    return getattr(np.asarray(index), "dtype", np.dtype(object)).kind in "iu"


def _first_difference(index: Any, expected: Any) -> int:
    pairs = zip(index, expected, strict=True)
    return next((row for row, (one, other) in enumerate(pairs) if one is not other and one != other), 0)


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label


def _listed(names: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, names))})"
