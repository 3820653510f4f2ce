"""Figures of concepts: where in images they fire, in every model on one scale."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from usae._base import checks
from usae._data.activations import check_known
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.analysis.top_examples import TopExamples
from usae.errors import InvalidInputError
from usae.plot._axes import figure_of, short, words
from usae.plot._heat import Shown, examples_of, spotlight

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.95
"""Height of a picture, in inches."""

GAP = 0.3
"""Space between groups of pictures, in cells."""

BANDS, NEGATIVES = 4, 3
"""Bands of activation and images without the concept that are looked for where no examples are given."""

MAP = "viridis"


class Group(NamedTuple):
    """Images that stand side by side under a title; -1 leaves a place free."""

    title: str
    images: list[int]


def concept(
    sae: UniversalSAE,
    concept: int,
    acts: Mapping[str, Any],
    pictures: Any = None,
    *,
    top: TopExamples | None = None,
    model: str | None = None,
    n: int = 4,
    title: str | None = None,
    grid: tuple[int, int] | None = None,
    crop: bool = False,
    mask: Any = None,
) -> Figure:
    """Draw one concept: the same images as every model sees them, with heat maps on one scale.

    First come the strongest images of each model, and below them images from weak to strong, those on which models disagree,
    and those in which the concept fires in no model. Under each picture is a heat map for each model. Colours are shares of the
    concept's largest code in that model, so that models whose codes differ in size can be compared; the number in a heat map is
    the largest code in that image.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    concept : int
        Number of the concept.
    acts : mapping of str to array
        Activations of images, preferably held-out ones, as for `usae.top_examples`.
    pictures : array, path-like or sequence, optional
        Their pictures in the same order, as for `usae.explorer`: an array [images, height, width, 3], a folder, or a sequence
        of files, arrays or PIL images. Default: None, which draws heat maps alone.
    top : TopExamples, optional
        Examples of these activations, from ``usae.top_examples(..., one_per_image=True)``, for several figures from one search.
        Its `bands`, `disagreements` and `negatives` are drawn where it has them. Default: None, which looks for all of them.
    model : str, optional
        The model whose images from weak to strong are drawn. Default: None, for the first.
    n : int
        Strongest images of each model. Default: 4.
    title : str, optional
        Title of the figure. Default: None, which has the number of the concept.
    grid : (int, int), optional
        Rows and columns of the tokens of an image, if there is no `top`. Default: None, as for `usae.top_examples`.
    crop : bool
        Whether the models saw the centre of each picture, and not all of it, stretched. Default: False.
    mask : array of bool, or mapping of str to array of bool, optional
        Rows that count, as for `UniversalSAE.fit`. Default: None.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, and if it is not known which rows are of one image.
    """
    number = checks.integer(concept, "concept", 0, checked_sae(sae)._initialized().n_concepts - 1)
    n = checks.integer(n, "n", 1, 64)
    title = _title(title, number)
    disagreements = int(len(sae.model_names_) > 1)
    options = {"bands": BANDS, "disagreements": disagreements, "negatives": NEGATIVES, "grid": grid, "mask": mask}
    top = examples_of(sae, acts, [number], top, n, **options)
    shown = Shown(sae, acts, pictures, top, crop, mask)
    place = 0 if model is None else _place(model, top.model_names)
    lines = [line for line in (_strongest(top, number, n), _others(top, number, place)) if line]
    wanted = {image for line in lines for group in line for image in group.images if image >= 0}
    drawn, maps = shown.pictures(wanted), shown.maps({number: wanted})
    scale = top.values[:, number, 0]

    rows = 1 + len(shown.names)
    page = _Page(lines, rows, shown.aspect, shown.names, title, bar=shown.grid is not None)
    for line, groups in enumerate(lines):
        for images, left in zip((group.images for group in groups), page.lefts(groups), strict=True):
            for column, image in enumerate(images):
                if image < 0:
                    continue
                page.cell(line, 0, left + column).imshow(drawn[image])
                for i in range(len(shown.names)):
                    heat = maps[number, image][i]
                    _heat(page.cell(line, 1 + i, left + column), drawn[image], heat, scale[i], shown.grid)
    if not wanted:
        page.figure.text(0.5, 0.5, "fires in no image", ha="center", va="center", color="0.4")
    return page.figure


def concepts(
    sae: UniversalSAE,
    concepts: Sequence[int],
    acts: Mapping[str, Any],
    pictures: Any,
    *,
    top: TopExamples | None = None,
    n: int = 4,
    titles: Sequence[str] | Mapping[int, str] | None = None,
    grid: tuple[int, int] | None = None,
    crop: bool = False,
    mask: Any = None,
) -> Figure:
    """Draw several concepts, with a row for each: the strongest images of every model, dark where the concept does not fire.

    A picture has its colours where the code is at least half of the concept's largest code in that model.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    concepts : sequence of int
        Numbers of the concepts, such as the first of ``np.flatnonzero(evaluation.universal())``.
    acts : mapping of str to array
        Activations of images, preferably held-out ones, as for `usae.top_examples`.
    pictures : array, path-like or sequence
        Their pictures in the same order, as for `usae.explorer`.
    top : TopExamples, optional
        Examples of these activations, from ``usae.top_examples(..., one_per_image=True)``. Default: None, which looks for them.
    n : int
        Images of each model and concept. Default: 4.
    titles : sequence of str, or mapping of int to str, optional
        Words for the concepts, in their order or by their numbers. Default: None.
    grid, crop, mask
        As for `concept`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, and if it is not known which rows are of one image, or where in it a token is.
    """
    m = checked_sae(sae)._initialized().n_concepts
    expected = "a list of numbers of concepts, at least one and at most 200"
    given = checks.listed(concepts, "concepts", expected)
    if not 0 < len(given) <= 200:
        raise InvalidInputError(f"concepts must be {expected}, got {len(given)}")
    numbers = [checks.integer(each, f"concepts[{i}]", 0, m - 1) for i, each in enumerate(given)]
    n = checks.integer(n, "n", 1, 64)
    told = _titles(titles, numbers)
    top = examples_of(sae, acts, numbers, top, n, grid=grid, mask=mask)
    shown = Shown(sae, acts, pictures, top, crop, mask)
    if shown.grid is None:
        top.known_grid()
    lines = [_strongest(top, number, n, "{}" if not line else "") for line, number in enumerate(numbers)]
    wanted = {number: {i for group in lines[line] for i in group.images if i >= 0} for line, number in enumerate(numbers)}
    drawn = shown.pictures(set().union(*wanted.values()))
    maps = shown.maps(wanted)
    page = _Page(lines, 1, shown.aspect, told, None, bar=False)
    for line, number in enumerate(numbers):
        for i, (group, left) in enumerate(zip(lines[line], page.lefts(lines[line]), strict=True)):
            for column, image in enumerate(group.images):
                if image >= 0:
                    heat = (maps[number, image][i] / top.values[i, number, 0]).reshape(top.known_grid())
                    page.cell(line, 0, left + column).imshow(spotlight(drawn[image], heat))
    return page.figure


def _strongest(top: TopExamples, number: int, n: int, title: str = "strongest in {}") -> list[Group]:
    """Return the images that fire a concept most in each model."""
    groups = []
    for i, name in enumerate(top.model_names):
        found = list(dict.fromkeys(image for image in top.images[i, number].tolist() if image >= 0))[:n]
        groups.append(Group(title.format(words(short(name))), found + [-1] * (min(n, top.tokens.shape[2]) - len(found))))
    return groups


def _others(top: TopExamples, number: int, model: int) -> list[Group]:
    """Return images from weak to strong, those on which models disagree, and those without the concept."""
    groups = []
    if top.bands:
        found = [band.images[model, number] for band in top.bands]
        images = [int(drawn[(drawn >= 0).sum() // 2]) for drawn in found]  # the middle one, as they are sorted by strength
        groups.append(Group(f"weak to strong in {words(short(top.model_names[model]))}", images))
    if top.disagreements is not None:
        images = top.disagreements.images[:, number, 0].tolist()
        groups.append(Group("one model, the others less", images))
    if top.negatives is not None:
        groups.append(Group("fires in no model", top.negatives[number, :NEGATIVES].tolist()))
    kept = [Group(title, [image for image in images if image >= 0]) for title, images in groups]
    return [group for group in kept if group.images]


def _heat(ax: Axes, picture: np.ndarray, heat: np.ndarray, scale: float, grid: tuple[int, int] | None) -> None:
    """Draw a heat map over the grey picture, and the largest code. Nothing is drawn where the concept does not fire."""
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    height, width = picture.shape[:2]
    grey = 0.35 + 0.5 * picture.mean(2) / 255
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1)
    if grid is not None and scale > 0:
        share = (heat / scale).reshape(grid)
        colours = colormaps[MAP](np.clip(share, 0, 1))
        colours[..., 3] = np.where(share > 0, 0.78, 0)
        ax.imshow(colours, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    text = ax.text(0.04, 0.05, _number(float(heat.max())), transform=ax.transAxes, fontsize=6.5, color="white", va="bottom")
    text.set_path_effects([withStroke(linewidth=1.4, foreground="0.15")])


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


class _Page:
    """A figure of lines of groups of pictures; each line has `rows` of cells. Columns are counted in cells."""

    def __init__(
        self, lines: Sequence[Sequence[Group]], rows: int, aspect: float, names: Sequence[str], title: str | None, *, bar: bool
    ):
        self._rows, self._wide = rows, CELL * aspect
        self._lines, self._gap = lines, GAP if rows > 1 else GAP / 2
        cells = max((self._width(line) for line in lines), default=4)
        told = ["picture", *(words(short(name)) for name in names)] if rows > 1 else list(names)
        titles = [self._wrapped(group) for line in lines for group in line]
        head = 0.14 + 0.14 * max((title.count("\n") + 1 for title in titles if title), default=0)  # in inches
        self._head = head if rows > 1 else 0.0
        longest = max((len(part) for name in told for part in name.split("\n")), default=0)
        self._left = 0.3 + 0.075 * longest
        self._above = 0.1 + (0.3 if title else 0) + (0.0 if rows > 1 else head)
        right = 0.75 if bar else 0.1
        width = self._left + cells * self._wide + right
        height = self._above + len(lines) * (rows * CELL + self._head) + (len(lines) - 1) * (0.14 if rows > 1 else 0) + 0.1
        self.figure = figure_of(width, max(height, 1.2), layout=None)
        self._size = width, max(height, 1.2)
        if title:
            self.figure.text(self._x(self._left), 1 - 0.1 / self._size[1], title, ha="left", va="top", fontsize=11)
        for line, groups in enumerate(lines):
            self._titles(line, groups)
            for row, name in enumerate(told if rows > 1 else [told[line]]):
                y = self._top(line) + self._head + (row + 0.5) * CELL
                self._text(self._left - 0.1, y, name, ha="right", va="center", fontsize=8.5)
        if bar:
            self._bar()

    def _width(self, groups: Sequence[Group]) -> float:
        return sum(len(group.images) for group in groups) + self._gap * max(0, len(groups) - 1)

    def lefts(self, groups: Sequence[Group]) -> list[float]:
        """Return where each group begins."""
        lefts = [0.0]
        for group in groups:
            lefts.append(lefts[-1] + len(group.images) + self._gap)
        return lefts[: len(groups)]

    def cell(self, line: int, row: int, column: float) -> Axes:
        x = self._left + column * self._wide
        y = self._top(line) + self._head + (row + 1) * CELL
        width, height = self._size
        ax = self.figure.add_axes((x / width, 1 - y / height, 0.96 * self._wide / width, 0.96 * CELL / height))
        ax.axis("off")
        return ax

    def _top(self, line: int) -> float:
        return self._above + line * (self._rows * CELL + self._head + (0.14 if self._rows > 1 else 0))

    def _titles(self, line: int, groups: Sequence[Group]) -> None:
        y = self._top(line) + self._head - 0.06
        for group, left in zip(groups, self.lefts(groups), strict=True):
            middle = self._left + (left + len(group.images) / 2) * self._wide
            if group.title:
                self._text(middle, y, self._wrapped(group), ha="center", va="bottom", fontsize=9, linespacing=1.1)

    def _wrapped(self, group: Group) -> str:
        """Return a title in lines that are no wider than its pictures."""
        return "\n".join(textwrap.wrap(group.title, max(6, int(len(group.images) * self._wide / 0.072))))

    def _bar(self) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        width, height = self._size
        cells = max((self._width(line) for line in self._lines), default=4)
        x = self._left + cells * self._wide + 0.12
        top, tall = self._top(0) + self._head + CELL, (self._rows - 1) * CELL
        ax = self.figure.add_axes((x / width, 1 - (top + tall) / height, 0.1 / width, 0.96 * tall / height))
        bar = self.figure.colorbar(ScalarMappable(Normalize(0, 1), MAP), cax=ax)
        bar.set_label("share of the model's largest code", fontsize=7)
        bar.ax.tick_params(labelsize=7)

    def _x(self, inches: float) -> float:
        return inches / self._size[0]

    def _text(self, x: float, y: float, text: str, **options: Any) -> None:
        self.figure.text(self._x(x), 1 - y / self._size[1], text, **options)


def _place(model: object, names: Sequence[str]) -> int:
    check_known(model, names, "model")
    return list(names).index(model)  # type: ignore[arg-type]


def _title(title: object, number: int) -> str:
    if title is None:
        return f"concept {number}"
    if not isinstance(title, str):
        raise InvalidInputError(f"title must be text, got {checks.shown(title)}")
    return words(title)


def _titles(titles: object, numbers: Sequence[int]) -> list[str]:
    """Return what is written beside each concept."""
    if titles is None:
        return [str(number) for number in numbers]
    if isinstance(titles, Mapping):
        found = [titles.get(number, "") for number in numbers]
    else:
        found = checks.listed(titles, "titles", "a list of words, one for each concept, or a mapping from concepts to words")
    if len(found) != len(numbers) or not all(isinstance(each, str) for each in found):
        raise InvalidInputError(f"titles must be text for each of {len(numbers)} concepts, got {checks.shown(titles)}")
    return [f"{number}\n{words(each)}" if each else str(number) for number, each in zip(numbers, found, strict=True)]
