"""Which rows of activations are of one image, and in what grid its tokens lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from usae._data.activations import Activations
from usae._data.stored_array import StoredArray
from usae.errors import InvalidInputError


class Images(NamedTuple):
    """What is known of the images of activations."""

    tokens: int
    """Tokens of an image; 1 if it is not known which rows are of one image."""
    grid: tuple[int, int] | None
    """Rows and columns of these tokens; None if they are not known."""
    known: bool
    """Whether it is known which rows are of one image."""


def images_of(acts: Mapping[str, Activations], grid: tuple[int, int] | None) -> Images:
    """Find the images of aligned activations: by `grid` if it is given, or else by the store, or the arrays' shapes.

    They are not known if no array is [images, tokens, width], or if these differ in the number of tokens of an image.

    Raises
    ------
    InvalidInputError
        If the rows are no whole images, or `grid` does not fit them.
    """
    of_shape = {x.array.shape[1] for x in acts.values() if x.array.ndim == 3}
    if grid is not None:
        _check_fits(acts, grid)
        return Images(math.prod(grid), grid, known=True)
    if len(of_shape) != 1:
        return Images(1, None, known=False)
    tokens = of_shape.pop()
    _check_divides(acts, tokens)
    stored = {x.array.grid for x in acts.values() if isinstance(x.array, StoredArray) and x.array.grid is not None}
    return Images(tokens, stored.pop() if len(stored) == 1 else square(tokens), known=True)


def square(tokens: int) -> tuple[int, int] | None:
    """The square grid of so many tokens; None if there is none, or if it would be of one token."""
    side = math.isqrt(tokens)
    return (side, side) if side > 1 and side * side == tokens else None


def _check_fits(acts: Mapping[str, Activations], grid: tuple[int, int]) -> None:
    of_grid = math.prod(grid)
    for x in acts.values():
        if x.array.ndim == 3 and x.array.shape[1] != of_grid:
            raise InvalidInputError(
                f"grid must have the {x.array.shape[1]} tokens of an image of {x.label} (shape {list(x.array.shape)}), got "
                f"{grid[0]} x {grid[1]} = {of_grid}; drop class tokens first"
            )
    for x in acts.values():
        if x.n_rows % of_grid:
            raise InvalidInputError(
                f"grid must divide the {x.n_rows} rows of {x.label} into whole images, got {grid[0]} x {grid[1]} = "
                f"{of_grid}; drop class tokens first"
            )


def _check_divides(acts: Mapping[str, Activations], tokens: int) -> None:
    """Refuse [n_tokens, width] beside [images, tokens, width] if these are no whole images."""
    for x in acts.values():
        if x.n_rows % tokens:
            raise InvalidInputError(
                f"grid must divide the {x.n_rows} rows of {x.label} into whole images, got {tokens} tokens of an image; drop "
                "class tokens first"
            )
