"""The largest numbers of rows, with equal ones in a fixed order."""

from __future__ import annotations

import numpy as np


def largest(scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the n largest numbers of each row, the largest first, and these; or all, if there are fewer.

    Equal ones are in the order of their columns.
    """
    n = min(n, scores.shape[1])
    columns = np.sort(np.argpartition(-scores, n - 1, axis=1)[:, :n], axis=1)
    values = np.take_along_axis(scores, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)


def keep_largest(values: np.ndarray, items: np.ndarray, new_values: np.ndarray, new_items: np.ndarray) -> None:
    """Replace values and items, [rows, n], by the n largest of them and of new ones. Equal ones stay in that order."""
    both, of_both = np.concatenate([values, new_values], 1), np.concatenate([items, new_items], 1)
    best = np.argsort(-both, axis=1, kind="stable")[:, : values.shape[1]]
    values[:], items[:] = np.take_along_axis(both, best, 1), np.take_along_axis(of_both, best, 1)
