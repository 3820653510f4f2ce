"""The figure of the consistency of independently trained dictionaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from usae.analysis.consistency import Consistency
from usae.errors import InvalidInputError
from usae.plot._axes import COLOURS, LINES, NULL_COLOUR, axes_of, short, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def consistency(consistency: Consistency, *, ax: Axes | None = None) -> Axes:
    """Draw the cosine of each concept with its match in an independent dictionary, largest first, with a curve for each model.

    Grey curves are for random dictionaries without common concepts: dashed for normal rows, dotted for normal rows with the
    mean and covariance of the actual rows.

    Parameters
    ----------
    consistency : Consistency
        Result of `usae.consistency`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    if not isinstance(consistency, Consistency):
        raise InvalidInputError(f"consistency must be what usae.consistency returns, got {type(consistency).__name__}")
    ax = axes_of(ax, 7.6, 3.8)
    threshold = next(iter(consistency.models.values())).threshold
    for i, (name, matching) in enumerate(consistency.models.items()):
        label = words(f"{short(name)}: mean {matching.mean:.2f}, {matching.share_above:.0%} above {threshold:g}")
        ax.plot(*_ranked(matching.curve), LINES[i % len(LINES)], color=COLOURS[i % len(COLOURS)], label=label)
        for curve, style, rows in ((matching.random, "--", "normal rows"), (matching.random_in_place, ":", "rows in place")):
            ax.plot(*_ranked(curve), style, color=NULL_COLOUR, linewidth=0.9, label=f"{rows}, no concept" if i == 0 else None)
    ax.axhline(threshold, color=NULL_COLOUR, linewidth=0.6, zorder=0)
    ax.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="share of the concepts", ylabel="cosine with the matched row")
    ax.set_title(f"{len(consistency.concepts):,} concepts, largest cosine first")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    return ax


def _ranked(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(len(curve)) + 0.5) / max(1, len(curve)), curve
