"""The tokens with the largest codes of each concept, which show best what the concept is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._core import rounding
from usae._core.autoencoder import Autoencoder
from usae._data.activations import Activations, as_aligned, check_known, of_models
from usae._data.chunks import chunks
from usae._estimator.universal_sae import UniversalSAE
from usae.errors import InvalidInputError, UsaeMemoryError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TopExamples:
    """Result of `top_examples`, for M models and m concepts, with n examples of each, the strongest first.

    Attributes
    ----------
    model_names : tuple of str, [M]
        Names of the models.
    n_tokens : int
        Number of rows that were searched. Rows that do not count by a mask are not among them, see `n_left_out`.
    grid : (int, int) or None
        Rows and columns of tokens in an image, if that was given.
    tokens : ndarray of int64, [M, m, n]
        Row numbers of the examples, counted over all rows, whether they count by a mask or not. If a concept is active in fewer
        than n tokens (or images), the rest are -1.
    values : ndarray of float32, [M, m, n]
        Codes of the examples; the rest are 0.
    n_left_out : int
        Number of rows that were not searched, because they do not count by a mask. Default: 0.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    grid: tuple[int, int] | None
    tokens: np.ndarray
    values: np.ndarray
    n_left_out: int = 0

    @property
    def images(self) -> np.ndarray:
        """Numbers of the tokens' images, int64 [M, m, n]; -1 without an example."""
        return self._split()[0]

    @property
    def rows(self) -> np.ndarray:
        """The tokens' rows in the image's grid, from the top, int64 [M, m, n]; -1 without an example."""
        return self._split()[1]

    @property
    def columns(self) -> np.ndarray:
        """The tokens' columns in the image's grid, from the left, int64 [M, m, n]; -1 without an example."""
        return self._split()[2]

    def known_grid(self) -> tuple[int, int]:
        """Return `grid`. InvalidInputError if it was not given."""
        if self.grid is None:
            raise InvalidInputError(
                "grid must be known for the place of a token, got None; use top_examples(..., grid=(rows, columns))"
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
    mask: Any = None,
) -> TopExamples:
    """Find, for each model and concept, the tokens with the largest codes. Ties go to the earlier token.

    It reads each model's activations once, and memory does not grow with the number of rows.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    acts : mapping of str to array
        Activations, as for `UniversalSAE.evaluate`.
    n : int
        Number of examples of each concept. Default: 16.
    models : iterable of str, optional
        Names of the models to search. Activations of other models are not needed. Default: None, which searches all.
    grid : (int, int), optional
        Rows and columns of tokens in an image. The tokens of an image have to be in `acts` row after row. With a grid, the
        result has each token's image and place. Default: None.
    one_per_image : bool
        Whether at most one token of an image is taken, the strongest, so that examples are from n different images. It needs
        `grid`, or activations [images, tokens, width]. Default: False.
    mask : array of bool, or mapping of str to array of bool, optional
        Rows that count, as for `UniversalSAE.fit`. Others are no examples; `grid` is that of all tokens. Default: None.

    Returns
    -------
    TopExamples
        Row numbers and codes of the examples.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, and for activations that are no whole images of the grid.
    UsaeMemoryError
        If memory cannot hold `n` examples of each concept and model.

    Examples
    --------
    >>> top = usae.top_examples(sae, acts, n=9, grid=(16, 16), one_per_image=True)
    >>> top.images[sae.model_names_.index("dinov2"), 1530]  # the nine images that fire concept 1530 most in DINOv2
    """
    if not isinstance(sae, UniversalSAE):
        raise InvalidInputError(f"sae must be a usae.UniversalSAE, got {type(sae).__name__}")
    autoencoder = sae._initialized()
    n = checks.integer(n, "n", 1, 2**32)
    names = _chosen(models, autoencoder.names)
    chosen = acts if models is None else of_models(acts, names)
    given = as_aligned(chosen, "acts", {name: autoencoder.columns[name] for name in names}, mask)
    grid = _checked_grid(grid)
    one_per_image = checks.boolean(one_per_image, "one_per_image")
    of_image = _tokens_per_image(given, grid, one_per_image)
    rounding.check(autoencoder, given)
    try:
        values = np.empty((len(names), autoencoder.n_concepts, n), np.float32)
        tokens = np.empty((len(names), autoencoder.n_concepts, n), np.int64)
    except MemoryError as error:
        size = 12 * len(names) * autoencoder.n_concepts * n
        raise UsaeMemoryError(f"n must leave examples that fit into memory, got {n}, {size:,} bytes; ask for fewer") from error
    for place, (name, activations) in enumerate(given.items()):
        _search(autoencoder, name, activations, of_image if one_per_image else 1, values[place], tokens[place])
    first = given[names[0]]
    return TopExamples(names, first.n_tokens, grid, tokens, values, first.n_left_out)


def _search(autoencoder: Autoencoder, name: str, x: Activations, of_image: int, values: np.ndarray, tokens: np.ndarray) -> None:
    """Write the strongest tokens of a model to `values` and `tokens`, [m, n]. A store is searched part by part."""
    index = autoencoder.index(name)
    if not x.stored:
        autoencoder.core.top_examples(index, x.native, of_image, values, tokens)
        return
    values[:], tokens[:] = 0, -1
    of_part, in_part = np.empty_like(values), np.empty_like(tokens)
    for rows in chunks(x.n_rows, of_image):
        part = x.whole.part(rows)
        if x.rows is not None:
            start, end = np.searchsorted(x.rows, (rows.start, rows.stop))
            if start == end:
                continue
            part = dataclasses.replace(part, rows=x.rows[start:end] - rows.start)
        autoencoder.core.top_examples(index, part.native, of_image, of_part, in_part)
        in_part[in_part >= 0] += rows.start
        both, places = np.concatenate([values, of_part], 1), np.concatenate([tokens, in_part], 1)
        best = np.argsort(-both, axis=1, kind="stable")[:, : values.shape[1]]  # ties go to the earlier token
        values[:], tokens[:] = np.take_along_axis(both, best, 1), np.take_along_axis(places, best, 1)


def _chosen(models: Iterable[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if models is None:
        return known
    names = tuple(checks.listed(models, "models", "a list of model names"))
    for name in names:
        check_known(name, known, "models")
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"models must hold at least one model and none twice, got {list(names)}")
    return names


def _checked_grid(grid: object) -> tuple[int, int] | None:
    if grid is None:
        return None
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise InvalidInputError(f"grid must be (rows, columns) of the tokens in an image, got {checks.shown(grid)}")
    return checks.integer(grid[0], "grid[0]", 1, 2**20), checks.integer(grid[1], "grid[1]", 1, 2**20)


def _tokens_per_image(given: Mapping[str, Activations], grid: tuple[int, int] | None, needed: bool) -> int:
    """Return the tokens of an image by the grid, or else by the arrays' shapes. 1 if there is no grid and it is not needed."""
    of_shape = {x.array.shape[1] for x in given.values() if x.array.ndim == 3}
    if grid is not None:
        of_grid = grid[0] * grid[1]
        for x in given.values():
            if x.array.ndim == 3 and x.array.shape[1] != of_grid:
                raise InvalidInputError(
                    f"grid must have the {x.array.shape[1]} tokens of an image of {x.label} (shape {list(x.array.shape)}), got "
                    f"{grid[0]} x {grid[1]} = {of_grid}; drop class tokens first"
                )
            if x.n_rows % of_grid:
                raise InvalidInputError(
                    f"grid must divide the {x.n_rows} rows of {x.label} into whole images, got {grid[0]} x {grid[1]} = "
                    f"{of_grid}; drop class tokens first"
                )
        return of_grid
    if not needed:
        return 1
    if len(of_shape) != 1:
        raise InvalidInputError(
            "grid must be given for one_per_image=True, got None; or give activations [images, tokens, width] of one size"
        )
    return of_shape.pop()
