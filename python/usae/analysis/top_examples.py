"""The tokens with the largest codes of each concept, which show best what the concept is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from usae._base import checks, html
from usae._base.frames import pandas_for
from usae._base.progress import checked as checked_progress
from usae._base.progress import follower, row_bar
from usae._base.ranking import keep_largest
from usae._core import rounding
from usae._core.autoencoder import Autoencoder
from usae._core.dictionary_rows import unit_rows
from usae._core.evaluation import PART
from usae._data.activations import Activations, as_aligned, check_known, of_models
from usae._data.chunks import chunks
from usae._data.text_activations import text_rows_of
from usae._data.text_rows import TextContext, TextRows
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae.analysis.images import images_of
from usae.analysis.more_examples import Places, Wanted, more_examples
from usae.analysis.text_examples import checked_rows, search_texts
from usae.errors import InvalidInputError, UsaeMemoryError

if TYPE_CHECKING:
    import pandas


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
        Rows and columns of tokens in an image; None if they are not known.
    tokens : ndarray of int64, [M, m, n]
        Row numbers of the examples, counted over all rows, whether they count by a mask or not. If a concept is active in fewer
        than n tokens (or images), the rest are -1.
    values : ndarray of float32, [M, m, n]
        Codes of the examples; the rest are 0.
    n_left_out : int
        Number of rows that were not searched, because they do not count by a mask. Default: 0.
    text_rows : TextRows or None
        The text and the characters of each row, if rows are of texts. Default: None.
    tokens_per_image : int or None
        Tokens of an image; None if it is not known which rows are of one image. Default: None, or those of the grid.
    bands : tuple of TopExamples
        For each band of activation, the weakest first, images that were drawn at random from those whose largest code is in the
        band: of 4 bands, the first goes from 0 to a quarter of the concept's largest code in the model. Default: none.
    disagreements : TopExamples or None
        Images on which a model's code, as a share of its largest, exceeds the mean share of the other models most; the first
        has the largest difference. Default: None.
    negatives : ndarray of int64, [m, n], or None
        Numbers of images in which the concept fires in no model; -1 if fewer were found. First come the strongest images of
        concepts that are close to it, by dictionary rows and by firing together, and then images at random. Default: None.

    Notes
    -----
    Where it is not known which rows are of one image, each row stands for an image in `bands`, `disagreements` and `negatives`.
    """

    model_names: tuple[str, ...]
    n_tokens: int
    grid: tuple[int, int] | None
    tokens: np.ndarray
    values: np.ndarray
    n_left_out: int = 0
    text_rows: TextRows | None = None
    tokens_per_image: int | None = None
    bands: tuple[TopExamples, ...] = ()
    disagreements: TopExamples | None = None
    negatives: np.ndarray | None = None

    @property
    def images(self) -> np.ndarray:
        """Numbers of the tokens' images, int64 [M, m, n]; -1 without an example."""
        n = self.tokens_per_image
        if n is None:
            height, width = self.known_grid()
            n = height * width
        return self._known(self.tokens // n)

    @property
    def rows(self) -> np.ndarray:
        """The tokens' rows in the image's grid, from the top, int64 [M, m, n]; -1 without an example."""
        height, width = self.known_grid()
        return self._known(self.tokens % (height * width) // width)

    @property
    def columns(self) -> np.ndarray:
        """The tokens' columns in the image's grid, from the left, int64 [M, m, n]; -1 without an example."""
        return self._known(self.tokens % self.known_grid()[1])

    def known_grid(self) -> tuple[int, int]:
        """Return `grid`. InvalidInputError if it is not known."""
        if self.grid is None:
            tokens = self.tokens_per_image
            of, remedy = "", "give activations [images, tokens, width]"
            if tokens is not None:
                of, remedy = f" for {tokens} tokens of an image", "drop class and register tokens first"
            raise InvalidInputError(
                f"grid must be known for the place of a token, got None{of}; use top_examples(..., grid=(rows, columns)), or "
                f"{remedy}"
            )
        return self.grid

    def contexts(self, model: str, concept: int, *, before: int = 40, after: int = 40) -> list[TextContext]:
        """Return the characters of a concept's examples, the strongest first, with those around them.

        Parameters
        ----------
        model : str
            Name of the model in which the concept fires.
        concept : int
            Number of the concept.
        before, after : int
            Most characters before and after. Default: 40 and 40.

        Returns
        -------
        list of TextContext
            At most n; fewer if the concept is active in fewer tokens, or texts.

        Raises
        ------
        InvalidInputError
            For arguments that cannot be used, and if it is not known which texts the rows are of.
        """
        if self.text_rows is None:
            raise InvalidInputError(
                "text_rows must be known for the characters of a token, got None; use top_examples(..., text_rows=...), or "
                "acts that have them, such as usae.TextActivations"
            )
        check_known(model, self.model_names, "model")
        concept = checks.integer(concept, "concept", 0, self.tokens.shape[1] - 1)
        rows = self.tokens[self.model_names.index(model), concept]
        return [self.text_rows.context(row, before, after) for row in rows[rows >= 0].tolist()]

    def report(self, concept: int, *, before: int = 40, after: int = 40) -> str:
        """Return lines to print, one for each example of a concept in each model: its code, and its characters in their text.

        Parameters
        ----------
        concept : int
            Number of the concept.
        before, after : int
            Most characters before and after. Default: 40 and 40.

        Raises
        ------
        InvalidInputError
            As for `contexts`.
        """
        lines = []
        for place, model in enumerate(self.model_names):
            contexts = self.contexts(model, concept, before=before, after=after)
            values = self.values[place, concept]
            lines += [f"concept {concept} in {model}" + ("" if contexts else ": does not fire")]
            lines += [f"{value:8.2f}  {context}" for value, context in zip(values, contexts, strict=False)]
        return "\n".join(lines)

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each example, the strongest of the first model's first concept first.

        Columns are ``model``, ``concept``, ``rank`` (0 is the strongest), ``token`` and ``value``, ``image`` if images are
        known, and ``row`` and ``column`` if the grid is.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = pandas_for("TopExamples.to_frame")
        there = self.tokens >= 0
        model, concept, rank = np.nonzero(there)
        columns = {"model": np.array(self.model_names, object)[model], "concept": concept, "rank": rank}
        columns |= {"token": self.tokens[there], "value": self.values[there]}
        if self.tokens_per_image is not None or self.grid is not None:
            columns["image"] = self.images[there]
        if self.grid is not None:
            columns |= {"row": self.rows[there], "column": self.columns[there]}
        return pandas.DataFrame(columns)

    def _repr_html_(self) -> str:
        """Return how many examples there are as a table, for notebooks."""
        found = (self.tokens >= 0).sum(2)
        n = self.tokens.shape[2]
        numbers = (("all examples", found == n), ("fewer", (found > 0) & (found < n)), ("none", found == 0))
        rows = ([name, *(f"{int(of[i].sum()):,}" for _, of in numbers)] for i, name in enumerate(self.model_names))
        caption = f"Concepts by how many of {n} examples they have among {self.n_tokens:,} tokens"
        return html.table(caption, ["model", *(name for name, _ in numbers)], rows)

    def _known(self, numbers: np.ndarray) -> np.ndarray:
        return np.where(self.tokens < 0, -1, numbers)

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
    text_rows: TextRows | None = None,
    one_per_text: bool = False,
    bands: int = 0,
    disagreements: int = 0,
    negatives: int = 0,
    seed: int = 0,
    progress: bool | None = None,
) -> TopExamples:
    """Find, for each model and concept, the tokens with the largest codes. Ties go to the earlier token.

    The strongest examples of a concept look purer than it is. So it also draws images from weak to strong (`bands`), finds
    those on which models disagree (`disagreements`), and those in which a concept does not fire though one like it does
    (`negatives`).

    It reads each model's activations once, and for `bands`, `disagreements` and `negatives` up to two times more. Memory does
    not grow with the number of rows.

    Parameters
    ----------
    sae : UniversalSAE
        The autoencoder.
    acts : mapping of str to array
        Activations, as for `UniversalSAE.evaluate`.
    n : int
        Number of examples of each concept, and of each of its bands. Default: 16.
    models : iterable of str, optional
        Names of the models to search. Activations of other models are not needed. Default: None, which searches all.
    grid : (int, int), optional
        Rows and columns of tokens in an image, whose tokens have to be in `acts` row after row. Default: None, which takes the
        grid of a store, or a square for [images, tokens, width] where one fits. Without either, as with class tokens, the
        result has each token's image but not its place; of [n_tokens, width] it has neither.
    one_per_image : bool
        Whether at most one token of an image is taken, the strongest, so that examples are from n different images. It needs
        `grid`, or activations [images, tokens, width]. Default: False.
    mask : array of bool, or mapping of str to array of bool, optional
        Rows that count, as for `UniversalSAE.fit`. Others are no examples; `grid` is that of all tokens. Default: None.
    text_rows : TextRows, optional
        What each row of `acts` is, for activations of texts. Default: None, which takes what `acts` have, as
        `usae.TextActivations` do.
    one_per_text : bool
        Whether at most one token of a text is taken, the strongest, so that examples are from n different texts. It needs
        `text_rows`. Default: False.
    bands : int
        Number of bands of activation, up to 16, into which (0, largest code] of each concept and model is divided. Of each,
        `n` images are drawn. Default: 0.
    disagreements : int
        Number of images on which a model disagrees with the others, for each concept and model, up to 1024. Default: 0.
    negatives : int
        Number of images in which the concept does not fire in any of the models, up to 1024. Default: 0.
    seed : int
        Seed of the images that are drawn. Default: 0.
    progress : bool, optional
        Whether to show progress over more than 16,384 rows. Default: None, as for `UniversalSAE.fit`.

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
    >>> top = usae.top_examples(sae, acts, n=9, one_per_image=True, bands=4, negatives=4)
    >>> top.images[sae.model_names_.index("dinov2"), 1530]  # the nine images that fire concept 1530 most in DINOv2
    >>> top.bands[0].images[0, 1530]  # nine that fire it weakly in the first model
    >>> top.negatives[1530]  # and four that do not, in any model, though they fire concepts that are like it
    >>> top = usae.top_examples(sae, text_acts, n=9, one_per_text=True)
    >>> print(top.report(17))  # the nine texts that fire concept 17 most, with the token in brackets
    """
    autoencoder = checked_sae(sae)._initialized()
    n = checks.integer(n, "n", 1, 2**32)
    names = _chosen(models, autoencoder.names)
    chosen = acts if models is None else of_models(acts, names)
    given = as_aligned(chosen, "acts", {name: autoencoder.columns[name] for name in names}, mask)
    grid = None if grid is None else checks.grid(grid)
    one_per_image = checks.boolean(one_per_image, "one_per_image")
    found = checked_rows(text_rows_of(acts) if text_rows is None else text_rows, given[names[0]].n_rows)
    of = images_of(given, grid)
    if found is not None and grid is None:
        of = of._replace(grid=None)  # characters are in no grid
    if one_per_image and not of.known:
        raise InvalidInputError(
            "grid must be given for one_per_image=True, got None; or give activations [images, tokens, width] of one size"
        )
    wanted = _wanted(n, bands, disagreements, negatives, seed, len(names))
    of_texts = _texts_to_search(found, checks.boolean(one_per_text, "one_per_text"), one_per_image)
    rounding.check(autoencoder, given)
    progress = checked_progress(progress)
    try:
        values = np.empty((len(names), autoencoder.n_concepts, n), np.float32)
        tokens = np.empty((len(names), autoencoder.n_concepts, n), np.int64)
        if wanted.bands:
            np.empty((3, wanted.bands, *tokens.shape), np.int64)  # an error before the search
    except MemoryError as error:
        size = (12 + 24 * wanted.bands) * len(names) * autoencoder.n_concepts * n
        raise UsaeMemoryError(f"n must leave examples that fit into memory, got {n}, {size:,} bytes; ask for fewer") from error
    first, of_search = given[names[0]], of.tokens if one_per_image else 1
    with row_bar(len(names) * first.n_tokens, progress, "top examples", PART) as bar:
        for place, (name, activations) in enumerate(given.items()):
            if of_texts is not None:
                search_texts(autoencoder, name, activations, of_texts, values[place], tokens[place], bar)
            else:
                _search(autoencoder, name, activations, of_search, values[place], tokens[place], bar)
    top = TopExamples(names, first.n_tokens, of.grid, tokens, values, first.n_left_out, found, of.tokens if of.known else None)
    if not wanted.any():
        return top
    units = [unit_rows(sae.dictionary(name)) for name in names] if wanted.negatives else []
    with row_bar(2 * first.n_rows, progress, "more examples", PART) as bar:
        more = more_examples(autoencoder, given, of, units, tokens, values, wanted, bar)

    def part(places: Places) -> TopExamples:
        return dataclasses.replace(top, tokens=places.tokens, values=places.values)

    return dataclasses.replace(
        top,
        bands=tuple(part(band) for band in more.bands),
        disagreements=None if more.disagreements is None else part(more.disagreements),
        negatives=more.negatives,
    )


def _wanted(n: int, bands: object, disagreements: object, negatives: object, seed: object, n_models: int) -> Wanted:
    wanted = Wanted(
        n,
        checks.integer(bands, "bands", 0, 16),
        checks.integer(disagreements, "disagreements", 0, 1024),
        checks.integer(negatives, "negatives", 0, 1024),
        checks.integer(seed, "seed", 0, 2**62 - 1),
    )
    if wanted.disagreements and n_models < 2:
        raise InvalidInputError(f"disagreements must be 0 with one model, got {wanted.disagreements}; give two models or more")
    return wanted


def _search(
    autoencoder: Autoencoder, name: str, x: Activations, of_image: int, values: np.ndarray, tokens: np.ndarray, bar: Any
) -> None:
    """Write the strongest tokens of a model to `values` and `tokens`, [m, n]. A store is searched part by part."""
    index = autoencoder.index(name)
    if not x.stored:
        autoencoder.core.top_examples(index, x.native, of_image, values, tokens, follower(bar))
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
        bar.update(part.n_tokens)
        in_part[in_part >= 0] += rows.start
        keep_largest(values, tokens, of_part, in_part)  # ties go to the earlier token


def _texts_to_search(text_rows: TextRows | None, one_per_text: bool, one_per_image: bool) -> TextRows | None:
    """Return the texts of which one example each is wanted; None if any number of them may be of one text."""
    if not one_per_text:
        return None
    if one_per_image:
        raise InvalidInputError("one_per_text must be False with one_per_image=True, got True; rows are of images or of texts")
    if text_rows is None:
        raise InvalidInputError(
            "text_rows must be given for one_per_text=True, got None; give a usae.TextRows, or acts that have it, such as "
            "usae.TextActivations"
        )
    return text_rows


def _chosen(models: Iterable[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if models is None:
        return known
    names = tuple(checks.listed(models, "models", "a list of model names"))
    for name in names:
        check_known(name, known, "models")
    if not names or len(set(names)) < len(names):
        raise InvalidInputError(f"models must hold at least one model and none twice, got {list(names)}")
    return names
