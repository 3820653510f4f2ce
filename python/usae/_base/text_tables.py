"""Tables as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, n_names: int, least: int) -> list[str]:
    """Return the lines of a table: `n_names` columns to the left, and the others to the right, at least `least` wide."""
    every = [heads, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if i < n_names else cell.rjust(max(least, width))
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in every
    ]
