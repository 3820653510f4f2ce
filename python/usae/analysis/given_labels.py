"""Labels of images or tokens that users give: the argument `labels` of `UniversalSAE.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from usae._base import checks
from usae._base.tensors import on_cpu
from usae.analysis.images import Images
from usae.errors import InvalidInputError

PIXELS_AT_ONCE = 2**24


class Truth(NamedTuple):
    """Which labels each row has.

    Attributes
    ----------
    names : tuple of str, [L]
    of_images : bool
        Whether rows are images; otherwise they are tokens.
    starts : ndarray of int64, [n_rows + 1]
    labels : ndarray of int32
        Those of row r are ``labels[starts[r] : starts[r + 1]]``.
    """

    names: tuple[str, ...]
    of_images: bool
    starts: np.ndarray
    labels: np.ndarray


def as_labels(labels: object, of: Images, n_rows: int) -> Truth:
    """Check the argument `labels` for so many rows of activations."""
    shapes = _Shapes(of, n_rows)
    if isinstance(labels, Mapping):
        return _of_mapping(labels, shapes)
    array = _as_array(labels)
    if array is None or array.dtype.kind not in "iu":
        raise InvalidInputError(
            f"labels must be {_EXPECTED} of shape {shapes.listed()}, got {_shown(labels, array)}; {_REMEDY}"
        )
    flat, of_images = shapes.rows(array, "labels", labels)
    has = flat >= 0
    if not has.any():
        raise InvalidInputError("labels must have a class, a number from 0, for at least one row, got numbers below 0 alone")
    classes, number = np.unique(flat[has], return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(has)])
    return Truth(tuple(map(str, classes.tolist())), of_images, starts, number.ravel().astype(np.int32))


def _of_mapping(labels: Mapping[Any, Any], shapes: _Shapes) -> Truth:
    if not labels or not all(isinstance(name, str) and checks.is_unicode(name) for name in labels):
        raise InvalidInputError(f"labels must be {_EXPECTED}, with names as text, got {checks.shown(labels)}; {_REMEDY}")
    rows, numbers, kinds = [], [], set()
    for number, (name, mask) in enumerate(labels.items()):
        array = _as_array(mask)
        label = f"labels[{name!r}]"
        if array is None or array.dtype != bool:
            raise InvalidInputError(
                f"{label} must be truth values of shape {shapes.listed()}, got {_shown(mask, array)}; True is a row that has it"
            )
        flat, of_images = shapes.rows(array, label, mask)
        kinds.add(of_images)
        rows.append(np.flatnonzero(flat))
        numbers.append(np.full(len(rows[-1]), number, np.int32))
    if len(kinds) > 1:
        raise InvalidInputError("labels must all be of images, or all of tokens, got both; evaluate them one after the other")
    row, number_of = np.concatenate(rows), np.concatenate(numbers)
    of_images = kinds.pop()
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=shapes.n_images if of_images else shapes.n_rows)
    return Truth(tuple(map(str, labels)), of_images, np.concatenate([[0], np.cumsum(counts)]), number_of[order])


class _Shapes:
    """The shapes that labels may have."""

    def __init__(self, of: Images, n_rows: int):
        self.n_rows, self._of = n_rows, of
        self.n_images = n_rows // of.tokens

    def listed(self) -> str:
        n, of = self.n_images, self._of
        if not of.known:
            return f"[{self.n_rows}]"
        shapes = [f"[{n}]", f"[{n}, {of.tokens}]"]
        if of.grid is not None:
            rows, columns = of.grid
            shapes.append(f"[{n}, height, width] with multiples of {rows} and {columns}")
        return ", ".join(shapes)

    def rows(self, array: np.ndarray, label: str, given: object) -> tuple[np.ndarray, bool]:
        """Return labels of images or tokens, [n], and which of these they are."""
        of, shape = self._of, array.shape
        if of.known and shape == (self.n_images,):
            return array, True
        if shape == (self.n_rows,) or (of.known and shape == (self.n_images, of.tokens)):
            return array.reshape(-1), False
        grid = of.grid
        sides = shape[1:] if len(shape) == 3 and shape[0] == self.n_images else ()
        if grid is not None and all(sides) and [side % n for side, n in zip(sides, grid, strict=False)] == [0, 0]:
            return _of_patches(array, grid), False
        raise InvalidInputError(f"{label} must have shape {self.listed()}, got {_shown(given, array)}; {_REMEDY}")


def _of_patches(array: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the label of each token, [images * rows * columns]: what most of its pixels have; of equal ones, the smaller."""
    (n, height, width), (rows, columns) = array.shape, grid
    found = np.empty((n, rows * columns), array.dtype)
    step = max(1, PIXELS_AT_ONCE // (height * width))
    for start in range(0, n, step):
        part = array[start : start + step]
        split = part.reshape(len(part), rows, height // rows, columns, width // columns).transpose(0, 1, 3, 2, 4)
        found[start : start + step] = _most_frequent(split.reshape(len(part) * rows * columns, -1)).reshape(len(part), -1)
    return found.reshape(-1)


def _most_frequent(values: np.ndarray) -> np.ndarray:
    """Return the most frequent number of each row; of equally frequent ones, the smaller. Of truth values, True if equal."""
    if values.dtype == bool:
        return 2 * values.sum(1) >= values.shape[1]
    ordered = np.sort(values, axis=1)
    position = np.arange(ordered.shape[1])
    begins = np.ones(ordered.shape, bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    length = position - np.maximum.accumulate(np.where(begins, position, 0), axis=1)
    return ordered[np.arange(len(ordered)), length.argmax(1)]


def _as_array(x: Any) -> np.ndarray | None:
    try:
        return np.asarray(on_cpu(x))
    except Exception:  # of the value's own methods
        return None


def _shown(given: object, array: np.ndarray | None) -> str:
    if array is None or not array.ndim or array.dtype.kind == "O":
        return checks.shown(given)
    return f"{array.dtype} of shape {list(array.shape)}"


_EXPECTED = "integers, the class of each image or token, or a mapping of names to truth values"
_REMEDY = 'for several labels at once, give {"name": array of bool, ...}'
