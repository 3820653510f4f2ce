"""The figure of the agreement of codes beside its ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from usae.analysis.agreement import AgreementCeiling, mean_of_others
from usae.analysis.evaluation import Evaluation
from usae.errors import InvalidInputError
from usae.plot._axes import COLOURS, MARKERS, NULL_COLOUR, axes_of, short, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST_POINT = 60.0
"""Area of the point of the concept with the most energy, in square points."""


def agreement(agreement: AgreementCeiling, *, ax: Axes | None = None, null: Any = None) -> Axes:
    """Draw the agreement of each concept's codes in two models over its ceiling; the larger its energy, the larger the point.

    On the diagonal, the two codes agree as well as the other model's activations allow. A point far to the left is a concept
    that the other model hardly has; far below the diagonal, one that it has, but whose encoder finds something else.

    Parameters
    ----------
    agreement : AgreementCeiling
        ``usae.controls(sae, acts, train=train, include=["agreement"]).agreement``.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.
    null : Evaluation or array [M, M], optional
        Mean agreement of a null model, such as ``controls.shuffled.paired``, whose mean over pairs is a dashed line.
        Default: None.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    if not isinstance(agreement, AgreementCeiling):
        raise InvalidInputError(
            f"agreement must be the attribute agreement of what usae.controls returns, got {type(agreement).__name__}; "
            'include "agreement" and give train'
        )
    names = agreement.model_names
    under = _mean_of(null, len(names))
    ax = axes_of(ax, 6.4, 4.8)
    from matplotlib.collections import PathCollection  # known to be there now

    ceiling, means = agreement.ceiling, {name: agreement.mean(name) for name in ("agreement", "ceiling")}
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    for number, (i, j) in enumerate(pairs):
        known, energy = agreement.known[i], agreement.energy[i]
        share = energy[known] / max(energy[known].max(initial=0), np.finfo(float).tiny)
        label = f"{short(names[i])} from {short(names[j])}: {means['agreement'][i, j]:.2f} of {means['ceiling'][i, j]:.2f}"
        ax.scatter(
            ceiling[i, j, known], agreement.agreement[i, j, known], 3 + LARGEST_POINT * share, label=words(label), alpha=0.45,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], linewidths=0, rasterized=True,
        )  # fmt: skip
    ax.axline((0, 0), slope=1, color=NULL_COLOUR, linewidth=0.8, zorder=0)
    if under is not None:
        ax.axhline(under, color=NULL_COLOUR, linewidth=1.2, linestyle="--", label=f"null: {under:.2f}")
    ax.set(xlim=(-0.1, 1.02), ylim=(-0.1, 1.02), xlabel="ceiling (correlation of code and its prediction)", ylabel="agreement")
    ax.set_title(f"mean agreement {mean_of_others(means['agreement']):.2f} of {mean_of_others(means['ceiling']):.2f}")
    legend = ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):  # not in the sizes of the first concept's points
            handle.set_sizes([24.0])
    return ax


def _mean_of(null: Any, n_models: int) -> float | None:
    """Return the mean over pairs of an evaluation's mean agreement, or of an array's numbers."""
    if null is None:
        return None
    try:
        values = np.asarray(null.mean_agreement() if isinstance(null, Evaluation) else null, float)
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(f"null must be an Evaluation or an array of numbers, got {type(null).__name__}") from error
    if values.shape != (n_models, n_models):
        raise InvalidInputError(f"null must have shape [{n_models}, {n_models}], got {list(values.shape)}")
    return mean_of_others(values)
