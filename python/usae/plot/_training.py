"""The figure of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import InvalidInputError
from usae.plot._axes import COLOURS, LINES, MARKERS, figure_of, short, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def training(run: UniversalSAE | Sequence[Mapping[str, Any]], *, window: int | None = None) -> Figure:
    """Draw how a training run went: losses, concepts that are dead, and held-out R2 where it was measured.

    The loss of each step is grey; lines are means of neighbouring steps. R2 within a model is that of its own code, and between
    models that of another model's, each a mean over models with the range that they span.

    Parameters
    ----------
    run : UniversalSAE, or sequence of mappings
        A trained autoencoder, or the entries of `UniversalSAE.history_`.
    window : int, optional
        Number of entries over which a point of a line averages. Default: None, which takes a fiftieth of them.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InvalidInputError
        For a history without steps, and for entries that are not those of `UniversalSAE.history_`.
    """
    steps, losses, of_models, dead, checked = _read(run)
    window = max(1, len(steps) // 50) if window is None else checks.integer(window, "window", 1, 2**24)
    window = min(window, len(steps))
    panels = 3 if checked else 2
    figure = figure_of(3.5 * panels, 3.1)
    axes = figure.subplots(1, panels)
    _losses(axes[0], steps, losses, of_models, window)
    axes[1].plot(_mean(steps, window), _mean(dead, window), color=COLOURS[0])
    axes[1].set(title="dead concepts", xlabel="step", ylabel="concepts, before the step")
    axes[1].set_ylim(0, max(1.0, float(dead.max()) * 1.05))
    if checked:
        _held_out(axes[2], [step for step, _ in checked], np.stack([r2 for _, r2 in checked]))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.02)
    return figure


def _losses(ax: Axes, steps: np.ndarray, losses: np.ndarray, of_models: Mapping[str, np.ndarray], window: int) -> None:
    ax.plot(steps, losses, color="0.82", linewidth=0.6, zorder=0, rasterized=True)
    ax.plot(_mean(steps, window), _mean(losses, window), color="black", linewidth=1.6, label="total")
    for i, (name, values) in enumerate(of_models.items()):
        ax.plot(
            _mean(steps, window), _mean(values, window), LINES[i % len(LINES)], color=COLOURS[i % len(COLOURS)], linewidth=1.1,
            label=words(short(name)),
        )  # fmt: skip
    told = "" if window == 1 else f", mean of {window} steps"
    ax.set(title=f"training loss{told}", xlabel="step", ylabel="loss")
    known = np.concatenate([_mean(values, window) for values in (losses, *of_models.values())])
    known = known[np.isfinite(known)]
    if len(known) and known.min() < known.max():  # the first steps' noise must not flatten the rest
        margin = 0.08 * (known.max() - known.min())
        ax.set_ylim(known.min() - margin, known.max() + margin)
    ax.legend(frameon=False, fontsize="small")


def _held_out(ax: Axes, steps: list[int], r2: np.ndarray) -> None:
    """Draw R2 [checks, M, M] within and between models."""
    n = r2.shape[1]
    off = ~np.eye(n, dtype=bool)
    for i, (label, values) in enumerate((("within a model", r2[:, ~off]), ("between models", r2[:, off]))):
        if values.shape[1]:
            ax.fill_between(steps, values.min(1), values.max(1), color=COLOURS[i], alpha=0.15, linewidth=0)
            ax.plot(steps, values.mean(1), f"{MARKERS[i]}-", color=COLOURS[i], markersize=4, label=label)
    ax.set(title="held-out R²", xlabel="step", ylabel="R²")
    low = float(np.nanmin(r2)) if np.isfinite(r2).any() else 0.0
    ax.set_ylim(max(-1.0, min(0.0, low - 0.03)), 1)
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def _read(run: Any) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray, list[tuple[int, np.ndarray]]]:
    """Return steps, losses, those of each model, dead concepts, and held-out R2 by step."""
    expected = "a trained UniversalSAE or the entries of its history_"
    history = run.history_ if isinstance(run, UniversalSAE) else checks.listed(run, "run", expected)
    if not history:
        raise InvalidInputError(f"run must be {expected}, got one without steps; train it first")
    try:
        steps = np.array([entry["step"] for entry in history], float)
        losses = np.array([entry["loss"] for entry in history], float)
        names = list(history[0]["losses"])
        of_models = {name: np.array([entry["losses"][name] for entry in history], float) for name in names}
        dead = np.array([entry["dead"] for entry in history], float)
        validations = [(entry["step"], entry["validation"]["r2"]) for entry in history if "validation" in entry]
        checked = [(step, np.array(r2, float).reshape(len(names), len(names))) for step, r2 in validations]
    except Exception as error:  # of what stands in its place, or of its own methods
        raise InvalidInputError(f"run must be {expected}, got {checks.shown(history[0])} first in it") from error
    return steps, losses, of_models, dead, checked


def _mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each `window` neighbours, [n - window + 1]."""
    return np.convolve(values, np.ones(window) / window, "valid")
