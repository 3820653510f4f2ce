"""The figure of what ablating concepts does in two networks or more."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from usae.analysis.effects import ConceptEffects
from usae.errors import InvalidInputError
from usae.plot._axes import COLOURS, MARKERS, NULL_COLOUR, axes_of, short, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def effects(effects: ConceptEffects, *, ax: Axes | None = None) -> Axes:
    """Draw for each concept whether ablating it changes the same images in two networks, beside its null.

    Concepts are sorted by their mean agreement. A grey bar behind each is where nine tenths of its controls are: other concepts
    of about equal energy and firing rate, in all pairs of networks.

    Parameters
    ----------
    effects : ConceptEffects
        Result of `usae.torch.concept_effects`, of two networks at least. Its ablated concepts are drawn, without controls; all
        concepts by their changes to first order if none was ablated.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    if not isinstance(effects, ConceptEffects):
        raise InvalidInputError(f"effects must be what usae.torch.concept_effects returns, got {type(effects).__name__}")
    names = effects.model_names
    exact = effects.n_chosen > 0
    one = effects.agreement if exact else effects.first_order_agreement
    if len(names) < 2 or one is None:
        raise InvalidInputError(
            f"effects must be of two networks at least, with concepts that were ablated or changes to first order, got "
            f"{effects!r}; give concepts"
        )
    n = effects.n_chosen if exact else one.value.shape[2]
    pairs = list(itertools.combinations(range(len(names)), 2))
    values = np.stack([one.value[i, j, :n] for i, j in pairs])
    controls = np.concatenate([one.controls[i, j, :n] for i, j in pairs], 1)
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, values, 0).sum(0) / known.sum(0)
    order = np.argsort(-mean, kind="stable")  # NaN comes last
    order = order[~np.isnan(mean[order])]
    ax = axes_of(ax, max(6.4, 0.16 * len(order)), 4.2)
    places = np.arange(len(order))
    bands = [_band(controls[c]) for c in order]
    label = "null: 90 % of other concepts"
    ax.bar(
        places, [high - low for low, high in bands], 0.8, [low for low, _ in bands], color=NULL_COLOUR, alpha=0.3, label=label
    )
    for number, (i, j) in enumerate(pairs):
        text = words(f"{short(names[i])} and {short(names[j])}: {_mean(values[number]):.2f}")
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        ax.plot(places, values[number, order], marker, color=colour, markersize=4, linestyle="none", label=text)
    ax.axhline(0, color=NULL_COLOUR, linewidth=0.8, zorder=0)
    if exact and len(order) <= 64:
        ax.set_xticks(places, [str(effects.concepts[c]) for c in order], rotation=90, fontsize="x-small")
    ax.set(ylim=(-1.02, 1.02), xlim=(-0.7, max(len(order), 1) - 0.3), ylabel="rank correlation of sizes over images")
    ax.set_xlabel("ablated concept" if exact else "concept (changes to first order)")
    ax.set_title(words(f"Do the same images change? {effects.n_images:,} images"))
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    return ax


def _band(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, (0.05, 0.95)) if len(known) else (0.0, 0.0)
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan
