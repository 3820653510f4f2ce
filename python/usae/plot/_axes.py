"""Axes, colours, lines and markers that all figures use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from usae._base import checks
from usae.errors import InvalidInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEEDED = "usae.plot needs matplotlib: pip install 'usae[plot]'"

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
NULL_COLOUR = "0.45"


LARGEST = 60.0
"""Most inches of a side of a figure that grows with the number of models. matplotlib cannot draw 2**16 pixels."""

LONGEST = 40
"""Most characters of a model's name in a figure."""

TEX = str.maketrans(
    {each: f"\\{each}" for each in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
"""What TeX takes for commands, for users who set text.usetex."""


def short(name: str) -> str:
    """Return a model's name as figures show it: not too long, without line ends, and visible in a legend.

    matplotlib leaves labels that begin with "_" out of legends, so such names are quoted.
    """
    name = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in name)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 + 1 :]}"
    return f"'{name}'" if name.startswith("_") else name


def words(text: str) -> str:
    """Return text for matplotlib that stands for itself: "$" begins no formula, and with text.usetex nothing is a command."""
    import matplotlib

    return text.translate(TEX) if matplotlib.rcParams["text.usetex"] else text.replace("$", r"\$")


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of this size in inches."""
    if ax is not None:
        from matplotlib.axes import Axes

        if not isinstance(ax, Axes):
            raise InvalidInputError(f"ax must be matplotlib's Axes, or None for a new figure, got {checks.shown(ax)}")
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(NEEDED) from error
    return plt.subplots(figsize=(min(width, LARGEST), min(height, LARGEST)), layout="constrained")[1]


def figure_of(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return a new figure of this size in inches. It is not one of pyplot's, which a notebook would show a second time."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(NEEDED) from error
    return Figure(figsize=(min(width, LARGEST), min(height, LARGEST)), layout=layout)
