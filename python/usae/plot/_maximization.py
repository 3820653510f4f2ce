"""The figure of optimised images and the natural images that fire the same concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks
from usae._data.activations import check_known
from usae.analysis.top_examples import TopExamples
from usae.errors import InvalidInputError
from usae.plot._axes import short, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from usae.maximization.result import Maximization

CELL = 1.5
"""Side of an optimised image, in inches. Natural images are half as wide."""

PLAIN = 0.6
"""Pixels below this quantile of the attribution fade with their attribution."""


def maximization(results: Sequence[Maximization], top: TopExamples | None = None, images: Any = None, *, n: int = 4) -> Figure:
    """Draw optimised images, with a row for each concept, and beside them the natural images that fire the concept most.

    Pixels of an optimised image that did not influence the objective fade to grey. Human studies find natural images at least
    as informative as optimised ones (Borowski et al., 2021), so show both.

    Parameters
    ----------
    results : sequence of Maximization
        Results of `usae.maximize` for the same models.
    top : TopExamples, optional
        Result of `usae.top_examples` with `grid`, preferably with ``one_per_image=True``. Default: None, without natural
        images.
    images : array, optional
        The pictures of the examples, uint8 [n_images, height, width, 3]. Default: None.
    n : int
        Number of natural images for each model and concept. Default: 4.

    Returns
    -------
    matplotlib.figure.Figure
        The figure. Under each image is the share of its tokens in which the concept fires, and its peak divided by that of the
        dataset.

    Raises
    ------
    InvalidInputError
        For results of different models, and for examples and pictures that do not belong together.
    """
    from matplotlib.figure import Figure as NewFigure

    results, pictures, n = _checked(results, top, images, n)
    names = results[0].model_names
    columns = (n + 1) // 2
    widths = ([1.0] + [0.5] * columns + [0.15]) * len(names)
    height = CELL * 1.16 * len(results) + 0.35
    figure = NewFigure(figsize=(CELL * sum(widths) + 0.6, height))
    grid = figure.add_gridspec(
        2 * len(results), len(widths), width_ratios=widths, wspace=0.04, hspace=0.08, left=0.6 / figure.get_figwidth(),
        right=0.995, top=1 - 0.3 / height, bottom=0.12 / height,
    )  # fmt: skip
    for row, result in enumerate(results):
        for column, name in enumerate(names):
            left = column * (columns + 2)
            ax = figure.add_subplot(grid[2 * row : 2 * row + 2, left])
            _optimised(ax, result, column)
            if row == 0:
                ax.set_title(words(short(name)), loc="left", fontsize=10)
            if column == 0:
                ax.set_ylabel(f"{result.concept}", fontsize=9)
            if top is not None and pictures is not None:
                for place, (picture, box) in enumerate(_natural(top, pictures, name, result.concept, n)):
                    cell = grid[2 * row + place // columns, left + 1 + place % columns]
                    _example(figure.add_subplot(cell), picture, box)
    return figure


def _optimised(ax: Axes, result: Maximization, i: int) -> None:
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if np.isnan(result.images[i]).all():
        ax.text(0.5, 0.5, "never\nstarted", ha="center", va="center", transform=ax.transAxes, color="0.4")
        return
    ax.set_facecolor("0.5")  # fading to white would make bright concepts vanish
    ax.imshow(faded(result.images[i], result.attribution[i]))
    told = f"{result.whole.share[i, i]:.0%} of tokens" if result.fires[i] else "does not fire"
    if result.fires[i] and not np.isnan(result.strength[i, i]):
        told += f", {result.strength[i, i]:.2f} of max"
    ax.set_xlabel(words(told), fontsize=6.5, labelpad=2)


def faded(image: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Return an image, [3, height, width], as [height, width, 4], transparent where the attribution is small."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.asarray(attribution, float), max(1.0, min(attribution.shape) / 64))
    full = np.quantile(smooth, PLAIN)
    opacity = np.clip(smooth / full, 0, 1) if full > 0 else np.ones_like(smooth)
    return np.concatenate([np.clip(image, 0, 1).transpose(1, 2, 0), opacity[..., None]], axis=2)


def _natural(
    top: TopExamples, pictures: np.ndarray, name: str, concept: int, n: int
) -> list[tuple[np.ndarray, tuple[float, float, float, float]]]:
    """Return the pictures, and left, top, width and height of the examples' tokens in pixels."""
    rows, columns = top.known_grid()
    model = top.model_names.index(name)
    cell = pictures.shape[1] / rows, pictures.shape[2] / columns
    found = []
    for i in range(min(n, top.tokens.shape[2])):
        if top.tokens[model, concept, i] < 0:
            break
        row, column = top.rows[model, concept, i], top.columns[model, concept, i]
        found.append((pictures[top.images[model, concept, i]], (column * cell[1], row * cell[0], cell[1], cell[0])))
    return found


def _example(ax: Axes, picture: np.ndarray, box: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    ax.axis("off")
    ax.imshow(picture)
    left, top, width, height = box
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor="white", linewidth=0.8))


def _is_maximization(value: object) -> bool:
    """Compare names, because importing `Maximization`, whose method `plot` imports this module, would make an import cycle."""
    return type(value).__name__ == "Maximization" and type(value).__module__ == "usae.maximization.result"


def _checked(results: Any, top: Any, images: Any, n: Any) -> tuple[list[Maximization], np.ndarray | None, int]:
    expected = "what usae.maximize returns, at least one"
    results = [results] if _is_maximization(results) else checks.listed(results, "results", expected)
    if not results or not all(map(_is_maximization, results)):
        raise InvalidInputError(f"results must be {expected}, got {checks.shown(results)}")
    if any(result.model_names != results[0].model_names for result in results):
        raise InvalidInputError(
            f"results must be of the same models in the same order, got {[result.model_names for result in results]}"
        )
    if (top is None) != (images is None):
        raise InvalidInputError(
            f"images must be given with top, and only then, got {'top' if images is None else 'images'} alone"
        )
    if top is None:
        return results, None, 0
    if not isinstance(top, TopExamples) or top.grid is None:
        raise InvalidInputError(
            f"top must be what usae.top_examples(..., grid=(rows, columns)) returns, got {type(top).__name__} without a grid"
        )
    for name in results[0].model_names:
        check_known(name, top.model_names, "models of top")
    pictures = np.asarray(images)
    n_pictures = (top.n_tokens + top.n_left_out) // (top.grid[0] * top.grid[1])
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or len(pictures) != n_pictures:
        raise InvalidInputError(
            f"images must be uint8 [{n_pictures}, height, width, 3], one for each {top.grid[0]} x {top.grid[1]} tokens of top, "
            f"got {pictures.dtype} {list(pictures.shape)}"
        )
    return results, pictures, checks.integer(n, "n", 1, 1000)
