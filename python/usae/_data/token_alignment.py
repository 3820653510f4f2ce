"""`usae.align_tokens`: tokens of several tokenizers, paired by the characters that they stand for.

A segment is a smallest run of characters whose ends no token of any tokenizer crosses: "unaligned" is one segment of the tokens
"unaligned" and "un", "##align", "##ed". Segments are found by one sort and one pass over the tokens of all texts together, so
nothing here loops over tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from usae._base import checks
from usae._base.float_types import widened
from usae._data import masks
from usae._data.activations import as_float_array, check_known, check_names
from usae._data.ragged import Ragged, as_ragged
from usae._data.text_activations import DroppedTokens, TextActivations, html_of, report
from usae._data.text_rows import TextRows, as_integers, check_spans, checked_texts
from usae.errors import InvalidInputError

Take = Literal["last", "first", "mean", "same"]
TAKES = ("last", "first", "mean", "same")

WHITESPACE = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)
"""Code points that `str.isspace` calls space. None comes after them."""


class _Tokens(NamedTuple):
    """Tokens that have characters and count, of one model, in their order. Characters are numbered through all texts."""

    number: np.ndarray
    text: np.ndarray
    start: np.ndarray
    end: np.ndarray


class _Rows(NamedTuple):
    """Which tokens of a model are in which row: those of row t are ``tokens[starts[t]:starts[t + 1]]``."""

    tokens: np.ndarray
    starts: np.ndarray


class TokenAlignment:
    """Result of `align_tokens`: which tokens of each model are in which row.

    Attributes
    ----------
    text_rows : TextRows
        The text and the characters of each row.
    dropped : dict of str to DroppedTokens
        For each model how many of its tokens are no row of their own, and why.
    take : str
        What stands for several tokens of a model in one row.
    """

    def __init__(
        self,
        text_rows: TextRows,
        dropped: dict[str, DroppedTokens],
        take: Take,
        rows: Mapping[str, _Rows],
        lengths: Mapping[str, np.ndarray],
    ):
        self.text_rows, self.dropped, self.take = text_rows, dropped, take
        self._rows, self._lengths = dict(rows), dict(lengths)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.text_rows)

    def __repr__(self) -> str:
        return f"TokenAlignment({', '.join(self._rows)}; {len(self):,} rows of {len(self.text_rows.texts):,} texts)"

    def tokens(self, model: str) -> np.ndarray:
        """Return the token that is each row of a model.

        Parameters
        ----------
        model : str
            Name of the model.

        Returns
        -------
        ndarray of int64, [n_rows]
            Numbers of the tokens, counted through all texts with padding. Of several tokens in one row it is the first for
            ``take="first"``, and the last otherwise.
        """
        check_known(model, list(self._rows), "model")
        rows = self._rows[model]
        return rows.tokens[rows.starts if self.take == "first" else _ends(rows) - 1]

    def activations(self, acts: Mapping[str, Any]) -> TextActivations:
        """Return the aligned rows of activations.

        Parameters
        ----------
        acts : mapping of str to array, list of arrays, or output of a network
            For each model the activations of the tokens whose spans were given: [texts, tokens, width], padded as the spans
            were, or a list of [tokens, width], one for each text. Of an output of transformers its last hidden state is taken;
            for another layer give ``output.hidden_states[layer]``.

        Returns
        -------
        TextActivations
            Activations of each model, [n_rows, width], in the type that was given; float32 for bfloat16.

        Raises
        ------
        InvalidInputError
            For activations that cannot be used or have other tokens than the spans.
        """
        if not isinstance(acts, Mapping):
            raise InvalidInputError(f"acts must be a mapping from model names to activations, got {checks.shown(acts)}")
        for name in acts:
            check_known(name, list(self._rows), "acts")
        missing = [name for name in self._rows if name not in acts]
        if missing:
            raise InvalidInputError(f"acts must hold every model ({', '.join(self._rows)}), got none for {', '.join(missing)}")
        found = {name: self._taken(name, acts[name]) for name in self._rows}
        return TextActivations(found, self.text_rows, self.dropped)

    def _repr_html_(self) -> str:
        """Return the table of `report`, for notebooks."""
        return html_of(self.dropped, repr(self))

    def report(self) -> str:
        """Return a table of what became of the tokens of each model."""
        return report(self.dropped)

    def _taken(self, name: str, x: Any) -> np.ndarray:
        label, rows, lengths = f"acts[{name!r}]", self._rows[name], self._lengths[name]
        state = None if isinstance(x, (list, tuple, np.ndarray)) else getattr(x, "last_hidden_state", None)
        given = as_ragged(x if state is None else state, label, len(lengths), ", width", _floats)
        if not np.array_equal(given.lengths, lengths):
            number = int(np.argmax(given.lengths != lengths))
            raise InvalidInputError(
                f"{label} must have the {lengths[number]} tokens of text {number} whose spans were given, got "
                f"{given.lengths[number]}; pad both or neither, and keep special tokens in both"
            )
        if self.take != "mean":
            return given.values[self.tokens(name)]
        counts = _ends(rows) - rows.starts
        if (counts == 1).all():
            return given.values[rows.tokens]
        sums = np.add.reduceat(given.values[rows.tokens], rows.starts, axis=0, dtype=np.float64)
        return (sums / counts[:, None]).astype(given.values.dtype)


def align_tokens(texts: Sequence[str], spans: Mapping[str, Any], *, mask: Any = None, take: Take = "last") -> TokenAlignment:
    """Pair the tokens of several models' tokenizers by the characters that they stand for.

    A row is a segment: a smallest run of characters whose ends no token crosses. Where tokenizers agree it is one token of
    each. Space at the ends of tokens does not matter.

    Parameters
    ----------
    texts : sequence of str
        The texts that the tokenizers were given.
    spans : mapping of str to array of int, or list of arrays
        For each model the first character of each token and the one after its last, as fast tokenizers of transformers return
        them (``offset_mapping``) and encodings of tokenizers have them (``offsets``): [texts, tokens, 2], or a list of
        [tokens, 2], one for each text. Special tokens and padding have empty spans, such as (0, 0).
    mask : mapping of str to array of bool, or list of arrays, optional
        For some or all models which tokens count, [texts, tokens] or a list of [tokens]. Padding has empty spans, so that it is
        dropped without a mask too. Default: None, which means that all count.
    take : "last", "first", "mean" or "same"
        What stands for several tokens of a model in one row: the last, which has seen all of them in a network that looks back
        only; the first; or their mean. "same" keeps rows alone in which all models have the same tokens. Default: "last".

    Returns
    -------
    TokenAlignment
        Its `activations` takes the rows from activations, and its `dropped` says what became of the other tokens.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, for characters that a text does not have, and if no row is left.

    Notes
    -----
    In a segment in which all models have the same spans, token by token, each token is a row. So nothing is merged if there is
    one tokenizer alone, and bytes of one character pair up.

    Examples
    --------
    >>> aligned = usae.align_tokens(["unaligned"], {"a": [[(0, 9)]], "b": [[(0, 2), (2, 7), (7, 9)]]})
    >>> print(aligned.dropped["b"].merged)
    2
    """
    given_texts = checked_texts(texts)
    if not isinstance(spans, Mapping):
        raise InvalidInputError(f"spans must be a mapping from model names to spans, got {checks.shown(spans)}")
    check_names(spans, "spans")
    checks.choice(take, "take", TAKES)
    if mask is not None and not isinstance(mask, Mapping):
        raise InvalidInputError(
            f'mask must be a mapping from models to masks, got {type(mask).__name__}; write mask={{"name of the model": mask}}'
        )
    masks.by_model(mask, "mask", list(spans))  # refuses unknown models
    found = aligned(given_texts, spans, mask, take)
    if not len(found):
        raise no_rows(given_texts, spans)
    return found


def aligned(
    given_texts: tuple[str, ...], spans: Mapping[str, Any], mask: Mapping[str, Any] | None, take: Take
) -> TokenAlignment:
    """Pair tokens. There may be no row at all."""
    ends = np.cumsum([0, *(len(text) + 1 for text in given_texts)])
    space = _Space.of(given_texts)
    tokens, lengths, counted = {}, {}, {}
    for name, x in spans.items():
        given = as_ragged(x, f"spans[{name!r}]", len(given_texts), ", 2", as_integers)
        of_model = None if mask is None else mask.get(name)
        tokens[name], counted[name] = _with_characters(given, of_model, name, given_texts, ends, space)
        lengths[name] = given.lengths
    rows, text, row_spans = _paired(list(tokens.values()), take)
    dropped = {}
    for (name, each), of_model in zip(tokens.items(), rows, strict=True):
        n_tokens, masked, special = counted[name]
        without = len(each.number) - len(of_model.tokens)
        dropped[name] = DroppedTokens(n_tokens, masked, special, without, len(of_model.tokens) - len(text))
    found = TextRows(given_texts, text, row_spans - ends[text][:, None])
    return TokenAlignment(found, dropped, take, dict(zip(spans, rows, strict=True)), lengths)


def no_rows(texts: Sequence[str], models: Iterable[str]) -> InvalidInputError:
    """Return the error of texts in which nothing is a row."""
    return InvalidInputError(
        f"texts must have characters for which all of {', '.join(models)} have tokens, got none in {len(texts)} texts; give "
        f"texts that are not empty, and spans of these texts"
    )


class _Space(NamedTuple):
    """For each character of all texts the nearest one that is no space, from it on, and the end of the nearest before it."""

    next_start: np.ndarray
    last_end: np.ndarray

    @staticmethod
    def of(texts: Sequence[str]) -> _Space:
        whole = "\n".join([*texts, ""])  # so that character c of text t is at ends[t] + c
        codes = np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), np.uint32)
        is_space = np.isin(codes, WHITESPACE)
        places = np.arange(len(codes))
        following = np.where(is_space, len(codes), places)
        preceding = np.where(is_space, 0, places + 1)
        return _Space(
            np.append(np.minimum.accumulate(following[::-1])[::-1], len(codes)),
            np.append(0, np.maximum.accumulate(preceding)),
        )


def _with_characters(
    given: Ragged, mask: Any, name: str, texts: Sequence[str], ends: np.ndarray, space: _Space
) -> tuple[_Tokens, tuple[int, int, int]]:
    """Return a model's tokens that have characters and count; and the numbers of all, of masked, and of special tokens."""
    text = np.repeat(np.arange(len(texts)), given.lengths)
    check_spans(given.values, np.diff(ends)[text] - 1, f"spans[{name!r}]")
    counts = np.ones(len(text), bool)
    if mask is not None:
        masked = as_ragged(mask, f"mask[{name!r}]", len(texts), "", masks.as_mask)
        if not np.array_equal(masked.lengths, given.lengths):
            number = int(np.argmax(masked.lengths != given.lengths))
            raise InvalidInputError(
                f"mask[{name!r}] must have one for each of {given.lengths[number]} tokens of text {number}, got "
                f"{masked.lengths[number]}"
            )
        counts = masked.values.astype(bool)
    start, end = given.values.T + ends[text]
    kept = counts & (start < end)
    numbers = np.flatnonzero(kept)
    start, end = start[kept], end[kept]
    trimmed = space.next_start[start], space.last_end[end]
    is_space = trimmed[0] >= trimmed[1]  # a token of space alone, such as a new line, keeps its characters
    start, end = np.where(is_space, start, trimmed[0]), np.where(is_space, end, trimmed[1])
    n_masked = int((~counts).sum())
    return _Tokens(numbers, text[kept], start, end), (len(text), n_masked, len(text) - n_masked - len(numbers))


def _paired(models: Sequence[_Tokens], take: Take) -> tuple[list[_Rows], np.ndarray, np.ndarray]:
    """Return each model's rows, the rows' texts, [n_rows], and their spans, [n_rows, 2]."""
    start, end = (np.concatenate([getattr(each, name) for each in models]) for name in ("start", "end"))
    order = np.argsort(start, kind="stable")
    reached = np.maximum.accumulate(end[order]) if len(order) else end
    opens = np.append(True, start[order][1:] >= reached[:-1])[: len(order)]
    segment = np.empty(len(order), np.int64)
    segment[order] = np.cumsum(opens) - 1
    first = np.flatnonzero(opens)
    segment_spans = np.stack([start[order][first], reached[np.append(first[1:], len(order))[: len(first)] - 1]], 1)
    n = len(first)

    of_model = np.split(segment, np.cumsum([len(each.number) for each in models])[:-1])
    orders = [np.argsort(each, kind="stable") for each in of_model]  # tokens of a segment in their own order
    counts = np.stack([np.bincount(each, minlength=n) for each in of_model])
    shared = (counts > 0).all(0)
    alike = shared & (counts == counts[0]).all(0)
    reference = _in(alike, models[0], of_model[0], orders[0])
    for each, segments, by_segment in zip(models[1:], of_model[1:], orders[1:], strict=True):
        other = _in(alike, each, segments, by_segment)
        differs = (reference[0] != other[0]) | (reference[1] != other[1])
        alike = alike.copy()
        alike[reference[2][differs]] = False
        reference = tuple(part[alike[reference[2]]] for part in reference)

    of_segment = np.where(alike, counts[0], shared & (take != "same"))
    first_row = np.cumsum(of_segment) - of_segment
    result = []
    n_rows = int(of_segment.sum())
    for each, segments, by_segment, count in zip(models, of_model, orders, counts, strict=True):
        ordered = segments[by_segment]
        place = np.arange(len(ordered)) - (np.cumsum(count) - count)[ordered]
        row = first_row[ordered] + np.where(alike[ordered], place, 0)
        kept = of_segment[ordered] > 0
        result.append(_Rows(each.number[by_segment[kept]], np.searchsorted(row[kept], np.arange(n_rows))))
    text = np.zeros(n_rows, np.int64)
    of_row = np.repeat(np.arange(n), of_segment)
    spans = segment_spans[of_row]
    spans[alike[of_row]] = np.stack(reference[:2], 1)
    one = models[0]
    text_of_segment = np.zeros(n, np.int64)
    text_of_segment[of_model[0]] = one.text
    text = text_of_segment[of_row]
    return result, text, spans


def _in(chosen: np.ndarray, tokens: _Tokens, segments: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return starts, ends and segments of the tokens in chosen segments, segment by segment."""
    order = order[chosen[segments[order]]]
    return tokens.start[order], tokens.end[order], segments[order]


def _ends(rows: _Rows) -> np.ndarray:
    return np.append(rows.starts[1:], len(rows.tokens))


def _floats(x: Any, label: str) -> np.ndarray:
    return widened(*as_float_array(x, label))
