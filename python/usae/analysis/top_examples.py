"""The tokens that show best what a concept is: those that fire it most."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._core.fitted import Fitted
from usae._data.activations import Activations, as_aligned, check_known
from usae._data.chunks import chunks
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import InvalidInputError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TopExamples:
    """Result of `top_examples`. M models, m concepts, n examples of each, the strongest first.

    Attributes
    ----------
    model_names : tuple of str, [M]
    n_tokens : int
        Rows that were searched.
    grid : (int, int) or None
        Rows and columns of tokens in an image, where that was given.
    tokens : ndarray of int64, [M, m, n]
        Row numbers; -1 where a concept is active in fewer than n tokens (or images).
    values : ndarray of float32, [M, m, n]
        Their codes; 0 there.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    grid: tuple[int, int] | None
    tokens: np.ndarray
    values: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """Numbers of the images that the tokens belong to, int64 [M, m, n]; -1 where there is no example."""
        return self._split()[0]

    @property
    def rows(self) -> np.ndarray:
        """Their rows in the image's grid, from the top, int64 [M, m, n]; -1 where there is no example."""
        return self._split()[1]

    @property
    def columns(self) -> np.ndarray:
        """Their columns in the image's grid, from the left, int64 [M, m, n]; -1 where there is no example."""
        return self._split()[2]

    def known_grid(self) -> tuple[int, int]:
        """`grid`; InvalidInputError where there is none."""
        if self.grid is None:
            raise InvalidInputError(
                "where a token lies in its image is known only with top_examples(..., grid=(rows, columns))"
            )
        return self.grid

    def _split(self) -> list[np.ndarray]:
        height, width = self.known_grid()
        parts = (
            self.tokens // (height * width),
            self.tokens % (height * width) // width,
            self.tokens % width,
        )
        return [np.where(self.tokens < 0, -1, part) for part in parts]

    def __repr__(self) -> str:
        _, n_concepts, n = self.tokens.shape
        return f"TopExamples({', '.join(self.model_names)}; n_concepts={n_concepts}, n={n}, n_tokens={self.n_tokens})"


def top_examples(
    sae: UniversalSAE,
    acts: Mapping[str, Any],
    n: int = 16,
    *,
    models: Iterable[str] | None = None,
    grid: tuple[int, int] | None = None,
    one_per_image: bool = False,
) -> TopExamples:
    """For each model and concept the tokens with the largest codes; ties go to the earlier token.

    One pass over each model's activations; memory does not grow with the number of rows.

    Parameters
    ----------
    sae : UniversalSAE
    acts : mapping of str to array
        As for `UniversalSAE.evaluate`.
    n : int
        Examples of each concept.
    models : iterable of str, optional
        The models to look at; all of them if left out. Activations of others are not needed.
    grid : (int, int), optional
        Rows and columns of tokens in an image, whose tokens lie in `acts` row after row and image after image. With it
        the result tells each token's image and place.
    one_per_image : bool
        Take at most one token, the strongest, of an image, so that n different images are shown. Needs `grid`, or
        activations [images, tokens, width].

    Examples
    --------
    >>> top = usae.top_examples(sae, acts, n=9, grid=(16, 16), one_per_image=True)
    >>> top.images[sae.model_names_.index("dinov2"), 1530]  # the nine images that fire concept 1530 most in DINOv2
    """
    if not isinstance(sae, UniversalSAE):
        raise InvalidInputError(f"sae must be a usae.UniversalSAE, got {type(sae).__name__}")
    fitted = sae._initialized()
    n = checks.integer(n, "n", 1, 2**32)
    names = _chosen(models, fitted.names)
    if models is not None and isinstance(acts, Mapping):
        acts = {name: acts[name] for name in names if name in acts}
    given = as_aligned(acts, "acts", {name: fitted.widths[name] for name in names})
    grid = _checked_grid(grid)
    of_image = _tokens_per_image(given, grid, one_per_image)
    values = np.empty((len(names), fitted.n_concepts, n), np.float32)
    tokens = np.empty((len(names), fitted.n_concepts, n), np.int64)
    for place, (name, activations) in enumerate(given.items()):
        _search(fitted, name, activations, of_image if one_per_image else 1, values[place], tokens[place])
    return TopExamples(names, given[names[0]].n_tokens, grid, tokens, values)


def _search(fitted: Fitted, name: str, x: Activations, of_image: int, values: np.ndarray, tokens: np.ndarray) -> None:
    """The strongest tokens of a model into `values` and `tokens`, [m, n]; those of a store part by part."""
    index = fitted.index(name)
    if not x.stored:
        fitted.core.top_examples(index, x.native, of_image, values, tokens)
        return
    values[:], tokens[:] = 0, -1
    of_part, in_part = np.empty_like(values), np.empty_like(tokens)
    for rows in chunks(x.n_tokens, of_image):
        fitted.core.top_examples(index, x.part(rows).native, of_image, of_part, in_part)
        in_part[in_part >= 0] += rows.start
        both, places = np.concatenate([values, of_part], 1), np.concatenate([tokens, in_part], 1)
        best = np.argsort(-both, axis=1, kind="stable")[:, : values.shape[1]]  # ties go to the earlier token
        values[:], tokens[:] = np.take_along_axis(both, best, 1), np.take_along_axis(places, best, 1)


def _chosen(models: Iterable[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if models is None:
        return known
    if isinstance(models, str) or not isinstance(models, Iterable):
        raise InvalidInputError(f"models must be a list of model names, got {models!r}")
    names = tuple(models)
    for name in names:
        check_known(name, known, "models")
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"models must hold at least one model and none twice, got {list(names)}")
    return names


def _checked_grid(grid: object) -> tuple[int, int] | None:
    if grid is None:
        return None
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise InvalidInputError(f"grid must be (rows, columns) of the tokens in an image, got {grid!r}")
    return checks.integer(grid[0], "grid[0]", 1, 2**20), checks.integer(grid[1], "grid[1]", 1, 2**20)


def _tokens_per_image(given: Mapping[str, Activations], grid: tuple[int, int] | None, needed: bool) -> int:
    """Tokens of an image by the grid or by the arrays' shapes, which must agree; 1 where neither says so."""
    of_shape = {x.array.shape[1] for x in given.values() if x.array.ndim == 3}
    if grid is not None:
        of_grid = grid[0] * grid[1]
        for x in given.values():
            if x.array.ndim == 3 and x.array.shape[1] != of_grid:
                raise InvalidInputError(
                    f"grid: {grid[0]} x {grid[1]} = {of_grid} tokens, but {x.label} has {x.array.shape[1]} in an image "
                    f"(shape {list(x.array.shape)}); drop class tokens first"
                )
            if x.n_tokens % of_grid:
                raise InvalidInputError(
                    f"grid: {grid[0]} x {grid[1]} = {of_grid} tokens, but {x.label} has {x.n_tokens} rows, which are no whole "
                    f"images; drop class tokens first"
                )
        return of_grid
    if not needed:
        return 1
    if len(of_shape) != 1:
        raise InvalidInputError("one_per_image needs grid=(rows, columns), or activations [images, tokens, width] of one size")
    return of_shape.pop()
