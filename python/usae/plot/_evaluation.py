"""Figures of an `Evaluation`, one for each figure of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks
from usae.analysis.evaluation import EnergyFit, Evaluation
from usae.analysis.nulls import CofireNull
from usae.errors import InvalidInputError
from usae.plot._axes import COLOURS, LINES, MARKERS, NULL_COLOUR, axes_of, short, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def cross_reconstruction(evaluation: Evaluation, *, ax: Axes | None = None, null: Any = None) -> Axes:
    """Draw the matrix of R2, encoded from the model of the row and decoded to that of the column.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `UniversalSAE.evaluate`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.
    null : Evaluation or array [M, M], optional
        R2 of a null model, written in brackets under each number. Default: None.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    r2 = _checked(evaluation).r2
    under = _null(null, "r2", r2.shape)
    names = evaluation.model_names
    ax = axes_of(ax, 1.9 + 0.95 * len(names), 1.3 + 0.85 * len(names))
    # Colours go from 0 (predicting the mean) to 1 (perfect). Values below 0 have the colour of 0.
    image = ax.imshow(r2, cmap="viridis", vmin=0, vmax=1)
    for i, j in np.ndindex(r2.shape):
        text = f"{r2[i, j]:.2f}" if under is None else f"{r2[i, j]:.2f}\n[{under[i, j]:.2f}]"
        ax.text(j, i, text, ha="center", va="center", color="white" if r2[i, j] < 0.6 else "black")
    labels = [words(short(name)) for name in names]
    ax.set_xticks(range(len(names)), labels)
    ax.set_yticks(range(len(names)), labels)
    ax.set(xlabel="decoded to", ylabel="encoded from")
    ax.set_title(f"R², {evaluation.n_tokens:,} tokens" + ("" if under is None else " [null]"))
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85, extend="min" if r2.min() < 0 else "neither")
    bar.set_label("R²")
    return ax


def firing_entropy(evaluation: Evaluation, *, ax: Axes | None = None, null: Any = None, bins: int = 40) -> Axes:
    """Draw a histogram of the firing entropy of all concepts that fire. 1: equally in all models; 0: in one model only.

    Those that `Evaluation.universal` calls so have another colour.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `UniversalSAE.evaluate` for two models or more.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.
    null : Evaluation or array [m], optional
        Firing entropy of a null model, whose histogram is drawn as an outline. Default: None.
    bins : int
        Number of bins. Default: 40.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    entropy = _checked(evaluation).firing_entropy
    n_models = len(evaluation.model_names)
    if n_models < 2:
        raise InvalidInputError(
            "evaluation must be of at least two models for the firing entropy, which compares them, got one"
        )
    outlined = _null(null, "firing_entropy", (None,))
    edges = np.linspace(0, 1, checks.integer(bins, "bins", 1, 10_000) + 1).tolist()
    ax = axes_of(ax, 5.6, 3.6)
    # Rounding may put the entropy of a concept that fires equally in all models slightly above 1.
    alive = np.clip(entropy[~np.isnan(entropy)], 0, 1)
    ax.hist(alive, edges, color=COLOURS[0], alpha=0.85, label=f"{len(alive):,} concepts")
    universal = evaluation.universal()
    counts, _ = np.histogram(np.clip(entropy[universal], 0, 1), edges)
    ax.fill_between(
        edges, [*counts, 0], step="post", color=COLOURS[1], linewidth=0, zorder=2, label=f"{universal.sum():,} universal"
    )
    if outlined is not None:
        other = np.clip(outlined[~np.isnan(outlined)], 0, 1)
        ax.hist(other, edges, histtype="step", color="black", linewidth=1.3, label=f"null, {len(other):,} concepts")
    ax.set(xlim=(0, 1), xlabel="firing entropy", ylabel="concepts")
    ax.set_title(f"{int(evaluation.dead_everywhere.sum()):,} concepts that never fire are left out")
    for models in range(1, n_models + 1) if n_models <= 4 else (1, n_models):
        place = np.log(models) / np.log(n_models)
        ax.axvline(place, color=NULL_COLOUR, linewidth=0.8, linestyle=":", zorder=0)
        share = "one model" if models == 1 else f"all {models}" if models == n_models else f"{models} equally"
        edge = "left" if models == 1 else "right"
        ax.annotate(
            share, (place, 1), xycoords=("data", "axes fraction"), xytext=(3 if edge == "left" else -3, -3),
            textcoords="offset points", ha=edge, va="top", color=NULL_COLOUR, fontsize="small",
        )  # fmt: skip
    ax.margins(y=0.18)  # space for the text
    ax.legend(loc="upper center" if n_models == 2 else "center left", frameon=False)
    return ax


def cofire_proportion(
    evaluation: Evaluation, *, ax: Axes | None = None, null: Any = None, top: int = 1000, window: int | None = None
) -> Axes:
    """Draw the co-fire proportion of each model's concepts, in the order of their energy, largest first.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `UniversalSAE.evaluate`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.
    null : Evaluation, CofireNull or array [M, m], optional
        Co-fire proportion of a null model, drawn with thin grey lines. An Evaluation is drawn in the order of its own energies,
        and others in the order of `evaluation`. A `CofireNull` (`usae.controls`) is drawn as its mean and its band.
        Default: None.
    top : int
        Number of concepts to draw. Default: 1000.
    window : int, optional
        Number of concepts of neighbouring rank over which a point of a line averages. Default: None, which takes a thirtieth of
        the concepts that are drawn.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    proportion = _checked(evaluation).cofire_proportion
    band = _band(null, evaluation)
    under = _null(null if band is None else band[1], "cofire_proportion", proportion.shape)
    drawn = min(checks.integer(top, "top", 1, 2**24), proportion.shape[1])
    window = max(1, drawn // 30) if window is None else checks.integer(window, "window", 1, drawn)
    null_energy = null.energy if isinstance(null, Evaluation) else evaluation.energy
    ax = axes_of(ax, 6.0, 3.8)
    for i, name in enumerate(evaluation.model_names):
        ranks, means, mean = _by_energy(proportion[i], evaluation.energy[i], drawn, window)
        ax.plot(
            ranks, means, LINES[i % len(LINES)], color=COLOURS[i % len(COLOURS)], label=words(f"{short(name)}: mean {mean:.2f}")
        )
    for i, values in enumerate([] if under is None else under):
        ranks, means, mean = _by_energy(values, null_energy[i], drawn, window)
        label = words(f"null, {short(evaluation.model_names[i])}: mean {mean:.2f}")
        ax.plot(ranks, means, LINES[i % len(LINES)], color=NULL_COLOUR, linewidth=0.9, label=label)
        if band is not None:
            low, high = (_by_energy(limit[i], null_energy[i], drawn, window)[1] for limit in (band[0], band[2]))
            ax.fill_between(ranks, low, high, color=NULL_COLOUR, alpha=0.25, linewidth=0)
    around = "" if window == 1 else f" (mean of {window})"
    ax.set(xlim=(1, max(2, drawn)), ylim=(-0.02, 1), xlabel="concept by energy, largest first")
    ax.set_ylabel(f"co-fire proportion{around}")
    ax.set_title(f"the {drawn:,} most energetic concepts of each model")
    ax.legend(frameon=False, fontsize="small", ncols=1 if under is None else 2)
    return ax


def energy_cofires(evaluation: Evaluation, *, ax: Axes | None = None, null: Any = None, least_cofires: int = 1) -> Axes:
    """Draw the energy of each concept in each model against its co-fires, both logarithmic, with a fitted line.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `UniversalSAE.evaluate`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw to. Default: None, which makes a figure.
    null : Evaluation or EnergyFit, optional
        A null model, whose fitted lines are grey and dashed. Its r and slope are in brackets. Default: None.
    least_cofires : int
        Smallest number of co-fires of a concept that is drawn; see `Evaluation.energy_fit`. Default: 1.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    fit = _checked(evaluation).energy_fit(least_cofires)
    other = null.energy_fit(least_cofires) if isinstance(null, Evaluation) else null
    if other is not None and not (isinstance(other, EnergyFit) and np.shape(other.slope) == fit.slope.shape):
        raise InvalidInputError(
            f"null must be an Evaluation or EnergyFit of {len(fit.slope)} models, got {type(null).__name__}"
        )
    energies = evaluation.energy
    chosen = evaluation.cofire_counts >= least_cofires
    cofires, energy = evaluation.cofire_counts[chosen], energies[:, chosen]
    drawable = np.isfinite(energy) & (energy > 0)
    n_models = len(evaluation.model_names)
    colours = [COLOURS[i % len(COLOURS)] for i in range(n_models)]
    ax = axes_of(ax, 5.8, 4.4)
    # Points are in the order of concepts, so that no model's points cover all others.
    ax.scatter(
        np.repeat(cofires, n_models)[drawable.T.ravel()], energy.T[drawable.T], s=6,
        c=np.tile(colours, len(cofires))[drawable.T.ravel()].tolist(), alpha=0.3, linewidths=0, rasterized=True,
    )  # fmt: skip
    for i, name in enumerate(evaluation.model_names):
        label = f"{short(name)}: r = {fit.correlation[i]:.2f}, slope {fit.slope[i]:.2f}"
        if other is not None:
            label += f" [null: {other.correlation[i]:.2f}, {other.slope[i]:.2f}]"
            of = null.cofire_counts[null.cofire_counts >= least_cofires] if isinstance(null, Evaluation) else cofires
            ax.plot(*_line(other, i, of), "--", color=NULL_COLOUR, linewidth=1.2)
        style = LINES[i % len(LINES)] + MARKERS[i % len(MARKERS)]
        line = ax.plot(*_line(fit, i, cofires), style, color=colours[i], linewidth=1.8, label=words(label))[0]
        line.set(markeredgecolor="white", markersize=7)
    if drawable.any():
        ax.set(xscale="log", yscale="log")
    else:  # a logarithmic axis must have something to show
        ax.text(0.5, 0.5, "no concept co-fires", ha="center", va="center", transform=ax.transAxes, color=NULL_COLOUR)
    ax.set_xlabel("co-fires (tokens in which every model fires)")
    ax.set_ylabel("energy (squared norm of the mean part)")
    without = len(evaluation.cofire_counts) - fit.n_concepts
    few = "that never co-fire" if least_cofires == 1 else f"with fewer than {least_cofires:,} co-fires"
    ax.set_title(f"{fit.n_concepts:,} concepts; {without:,} {few} are left out")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _band(null: Any, evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return low, mean and high co-fire proportion, [M, m], of a permutation null, or None for anything else."""
    if not isinstance(null, CofireNull):
        return None
    if null.mean.shape != evaluation.cofire_counts.shape:
        raise InvalidInputError(f"null must be of {len(evaluation.cofire_counts)} concepts, got {len(null.mean)}")
    with np.errstate(invalid="ignore", divide="ignore"):
        low, mean, high = (counts / evaluation.firing_counts for counts in (null.low, null.mean, null.high))
    return low, mean, high


def _checked(evaluation: object) -> Evaluation:
    if not isinstance(evaluation, Evaluation):
        raise InvalidInputError(f"evaluation must be what UniversalSAE.evaluate returns, got {type(evaluation).__name__}")
    return evaluation


def _null(null: Any, name: str, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """Return the attribute `name` of `null`, or `null` itself, as an array. None in `shape` means any length."""
    if null is None:
        return None
    try:
        values = np.asarray(getattr(null, name) if isinstance(null, Evaluation) else null, float)
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(f"null must be an Evaluation or an array of numbers, got {type(null).__name__}") from error
    if values.ndim != len(shape) or any(n is not None and n != have for n, have in zip(shape, values.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InvalidInputError(f"null must have shape [{wanted}], as {name} has, got {list(values.shape)}")
    return values


def _line(fit: EnergyFit, model: int, cofires: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of a model's line over the range of the co-fires."""
    ends = np.array([cofires.min(), cofires.max()], float) if len(cofires) else np.array([1.0, 10.0])
    return ends, 10 ** (fit.intercept[model] + fit.slope[model] * np.log10(ends))


def _by_energy(values: np.ndarray, energy: np.ndarray, top: int, window: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return ranks by energy, the moving mean of the values, and their mean. Concepts that never fire (NaN) are dropped."""
    order = np.argsort(-energy, kind="stable")[:top]
    ordered = values[order]
    ordered = ordered[~np.isnan(ordered)]
    if len(ordered) == 0:
        return np.empty(0), np.empty(0), float("nan")
    # Near the ends, the mean is over fewer concepts, so that the line has no gap.
    sums = np.concatenate([[0], np.cumsum(ordered)])
    places = np.arange(len(ordered))
    low, high = np.maximum(0, places - window // 2), np.minimum(len(ordered), places + (window + 1) // 2)
    return places + 1, (sums[high] - sums[low]) / (high - low), float(ordered.mean())
