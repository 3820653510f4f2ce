"""The figure of the frontier: R2 against the agreement of codes, by the weight of the agreement term."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study import cells
from study.frontier_rows import FRONTIER
from usae.plot import _axes

COLUMNS = 4
"""Data sets beside each other, at most."""

WIDTH, PIXELS = 9.0, 200
"""Inches, and pixels of an inch: twice the 900 pixels that the page shows it with."""

MEASURES = (("R2 other", _axes.COLOURS[0]), ("R2 same", _axes.COLOURS[1]))


def draw(records: dict[str, dict[str, Any]], worlds: list[str], path: Path) -> None:
    """Draw the data sets of which there are points: R2 of other models above that of the same model, on one axis of agreement.

    Raises
    ------
    ValueError
        If there is no point at all.
    """
    points = {world: found for world in worlds if (found := _points(records, world))}
    if not points:
        raise ValueError(f"--figure: expected results of {', '.join(worlds)}, got none; run without --figure first")
    names = list(points)
    columns = min(COLUMNS, len(names))
    blocks = [names[start : start + columns] for start in range(0, len(names), columns)]
    figure = _axes.figure_of(WIDTH, 3.9 * len(blocks) + 0.3)
    parts = figure.subfigures(len(blocks), 1, squeeze=False)[:, 0]
    for part, block in zip(parts, blocks, strict=True):
        grid = part.subplots(2, columns, sharex="col", squeeze=False)
        for column in range(columns):
            for row, (measure, colour) in enumerate(MEASURES):
                if column >= len(block):
                    grid[row, column].axis("off")
                    continue
                _panel(grid[row, column], points[block[column]], measure, colour)
                grid[row, column].set_ylabel(measure.replace("R2", "R²") if column == 0 else "")
            if column < len(block):
                grid[0, column].set_title(block[column], fontsize=9)
                grid[1, column].set_xlabel("agreement of codes", fontsize=8)
    _legend(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=PIXELS)


def _points(records: dict[str, dict[str, Any]], world: str) -> dict[float, dict[str, Any]]:
    """Return the records of the frontier by weight."""
    found = {weight: records.get(f"{world}/{name}/steps", {}) for weight, name in FRONTIER.items()}
    return {weight: record for weight, record in found.items() if record.get("seeds")}


def _panel(ax: Any, points: dict[float, dict[str, Any]], measure: str, colour: str) -> None:
    x = {weight: cells.mean(record, "agreement") for weight, record in points.items()}
    y = {weight: cells.mean(record, measure) for weight, record in points.items()}
    ax.plot(list(x.values()), list(y.values()), "-", color=colour, linewidth=1, zorder=1)
    for weight, record in points.items():
        spread = {name: cells.half_range(record, name) for name in ("agreement", measure)}
        is_default = FRONTIER[weight] == "default"
        marker = (
            {"marker": "*", "markersize": 11, "markeredgecolor": "white"} if is_default else {"marker": "o", "markersize": 4.5}
        )
        ax.errorbar(
            x[weight], y[weight], yerr=spread[measure], xerr=spread["agreement"], color=colour, elinewidth=0.8,
            markeredgewidth=0.6, zorder=3 if is_default else 2, **marker,
        )  # fmt: skip
        label = f"{weight:g}".replace("0.", ".")
        rises = measure == "R2 other"
        place = (6 if rises else -14, -10) if is_default else (-4 if rises else 4, 5)
        ax.annotate(
            label, (x[weight], y[weight]), xytext=place, textcoords="offset points", fontsize=7,
            ha="right" if rises and not is_default else "left", fontweight="bold" if is_default else "normal",
        )  # fmt: skip
        ceiling = cells.mean(record, "linear ceiling")
        if is_default and ceiling is not None:
            ax.axvline(ceiling, color=_axes.NULL_COLOUR, linewidth=1, linestyle=":", zorder=0)
    ax.tick_params(labelsize=7)
    ax.margins(0.12, 0.18)
    ax.grid(color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    grey = _axes.NULL_COLOUR
    handles = [
        Line2D([], [], marker="o", color="0.2", linewidth=1, markersize=4.5, label="weight of the agreement term"),
        Line2D([], [], marker="*", color="0.2", linewidth=0, markersize=11, label="default"),
        Line2D([], [], color=grey, linewidth=1, linestyle=":", label="linear ceiling of the default's codes"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
