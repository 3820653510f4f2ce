"""Masks say which rows of activations count: True is a row that counts.

A row that does not count is never read. It is left out for all models, so that rows stay aligned.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from usae.errors import InvalidInputError

Shape = tuple[int, ...]
"""Of activations, without the width: (n_tokens,) or (images, tokens)."""


def as_mask(mask: object, label: str) -> np.ndarray:
    """Return a mask as an array of truth values. InvalidInputError for anything else, numbers included."""
    if isinstance(mask, np.ma.MaskedArray):
        raise InvalidInputError(f"{label} must be a plain array of truth values, got a masked array; use .filled(False)")
    try:
        array = np.asarray(mask)
    except Exception as error:  # __array__ of other libraries raises exceptions of its own
        if isinstance(mask, (list, tuple)):
            raise InvalidInputError(
                f"{label} must have rows of one length, got a {type(mask).__name__} whose parts differ in length; fill the "
                f"shorter ones up with False"
            ) from error
        raise InvalidInputError(f"{label} must be an array of truth values, got {type(mask).__name__}: {error}") from error
    if array.dtype != bool:
        remedy = _REMEDY
        if array.dtype.kind in "iuf":
            remedy = "use mask.astype(bool) if other than 0 is a row that counts"
            if label.startswith("--"):  # an option of a command
                remedy = "write the file again with np.save(file, np.load(file) != 0) if other than 0 is a row that counts"
        raise InvalidInputError(
            f"{label} must hold truth values, True for a row that counts, got {array.dtype} of shape {list(array.shape)}; "
            f"{remedy}"
        )
    return array


def by_row(mask: np.ndarray, label: str, shapes: Collection[Shape]) -> np.ndarray:
    """Return a mask as truth values of rows, [n_tokens]. `shapes` has those of aligned activations without their widths."""
    n_tokens = math.prod(next(iter(shapes)))
    images = {shape for shape in shapes if len(shape) == 2}
    if mask.shape == (n_tokens,):
        return mask
    for shape in images:
        if mask.ndim == 2 and all(side in (1, whole) for side, whole in zip(mask.shape, shape, strict=True)):
            return np.broadcast_to(mask, shape).reshape(-1)
        if mask.ndim == 3 and (mask.shape[0], math.prod(mask.shape[1:])) == shape:
            return mask.reshape(-1)
    if mask.ndim > 1 and not images and mask.size == n_tokens:
        return mask.reshape(-1)
    expected = f"[{n_tokens}]" + "".join(f" or [{n}, {tokens}]" for n, tokens in sorted(images))
    remedy = "[images, 1] leaves out whole images, and [1, tokens] the same tokens of every image" if images else _REMEDY
    raise InvalidInputError(
        f"{label} must have shape {expected}, as the activations before their width, got {list(mask.shape)}; {remedy}"
    )


def combined(masks: Iterable[tuple[object, str]], shapes: Collection[Shape]) -> np.ndarray | None:
    """Return the rows that count by every mask, bool [n_tokens]. None if all rows do. Each mask comes with its label."""
    result: np.ndarray | None = None
    for mask, label in masks:
        counts = by_row(as_mask(mask, label), label, shapes)
        result = counts if result is None else result & counts
    return None if result is None or result.all() else result


def by_model(mask: object, label: str, names: Sequence[str]) -> list[tuple[object, str]]:
    """Return the masks that were given, one for all models or a mapping from models to masks, with their labels."""
    if mask is None:
        return []
    if not isinstance(mask, Mapping):
        return [(mask, label)]
    for name in mask:
        if name not in names:
            raise InvalidInputError(f"{label}: unknown model {name!r}; the models are {', '.join(map(repr, names))}")
    return [(of_model, f"{label}[{name!r}]") for name, of_model in mask.items() if of_model is not None]


def numbers(counts: np.ndarray, label: str) -> np.ndarray:
    """Return the numbers of the rows that count, int64. InvalidInputError if there are none."""
    if not counts.any():
        raise InvalidInputError(f"{label} must have at least one row that counts, got False for all {counts.size:,}; {_REMEDY}")
    return np.flatnonzero(counts)


def rows_of_image(rows: np.ndarray, tokens: int) -> int | None:
    """Return how many rows of an image of `tokens` rows count, if those of all images do at the same places; else None.

    Images of which no row counts are passed over. `rows` are numbers of the rows that count.
    """
    images, places = np.divmod(rows, tokens)
    n = int(np.searchsorted(images, images[0], side="right"))
    if len(rows) % n or (places.reshape(-1, n) != places[:n]).any() or (images.reshape(-1, n) != images[::n, None]).any():
        return None
    return n


_REMEDY = "True is a row that counts, False one that is left out"
