"""Cells of tables: means over seeds, and how far seeds are apart."""

from __future__ import annotations

from typing import Any

import numpy as np


def mean(record: dict[str, Any], column: str) -> float | None:
    """Return the mean over the seeds that have the column, or the record's own number, or None."""
    if column in record:
        return float(record[column])
    found = values(record, column)
    return float(np.mean(found)) if found else None


def half_range(record: dict[str, Any], column: str) -> float:
    found = values(record, column)
    return (max(found) - min(found)) / 2 if len(found) > 1 else 0.0


def values(record: dict[str, Any], column: str) -> list[float]:
    return [seed[column] for seed in record.get("seeds", []) if column in seed]


def cell(record: dict[str, Any], column: str) -> str:
    """Return the mean over seeds, followed by half the range over seeds."""
    center = mean(record, column)
    if center is None:
        return ""
    spread = half_range(record, column)
    return f"{center:.3f} ± {spread:.3f}" if spread >= 0.0005 else f"{center:.3f}"
