"""`usae.TextActivations`: activations of texts together with what each row stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from usae._base import html
from usae._data.activations import OfModels, as_aligned
from usae._data.text_rows import TextRows
from usae.errors import InvalidInputError


class DroppedTokens(NamedTuple):
    """What became of the tokens of one model. Those that are counted here are no rows of their own.

    Attributes
    ----------
    tokens : int
        Number of tokens that were given.
    masked : int
        Tokens that do not count by a mask, such as padding.
    special : int
        Tokens without characters, such as class tokens, separators and padding.
    without_partner : int
        Tokens for whose characters another model has none.
    merged : int
        Tokens that share a row with others, beyond one a row.
    cut : int
        Tokens of texts that were too long, behind those that were given. Default: 0.
    """

    tokens: int
    masked: int
    special: int
    without_partner: int
    merged: int
    cut: int = 0

    @property
    def rows(self) -> int:
        """Number of rows that the others became."""
        return self.tokens - self.masked - self.special - self.without_partner - self.merged

    def plus(self, other: DroppedTokens) -> DroppedTokens:
        """Return the numbers of two parts together."""
        return DroppedTokens(*(one + two for one, two in zip(self, other, strict=True)))


class TextActivations(OfModels):
    """Aligned activations of texts, with the text and the characters of each row.

    It is a mapping from model names to arrays, and is taken wherever activations of several models are, such as by
    `UniversalSAE.fit`. `usae.top_examples` finds there which texts its examples are from.

    Parameters
    ----------
    acts : mapping of str to array, each [n_rows, width]
        Activations. Padded ones, [texts, tokens, width], have as many rows as `text_rows` too.
    text_rows : TextRows
        What each row is.
    dropped : mapping of str to DroppedTokens, optional
        What became of each model's tokens. Default: None, which means that it is not known.

    Attributes
    ----------
    text_rows : TextRows
        What each row is.
    dropped : dict of str to DroppedTokens
        What became of each model's tokens; empty if it is not known.

    Raises
    ------
    InvalidInputError
        For activations that cannot be used, and for another number of rows.

    Examples
    --------
    >>> acts = usae.TextActivations({"early": early, "late": late}, usae.TextRows(texts, text=numbers, spans=spans))
    """

    def __init__(self, acts: Mapping[str, Any], text_rows: TextRows, dropped: Mapping[str, DroppedTokens] | None = None):
        if not isinstance(text_rows, TextRows):
            raise InvalidInputError(f"text_rows must be a usae.TextRows, got {type(text_rows).__name__}")
        n = next(iter(as_aligned(acts, "acts", empty=True).values())).n_rows
        if n != len(text_rows):
            raise InvalidInputError(f"text_rows must have a row for each of {n} rows of acts, got {len(text_rows)}")
        if dropped is not None and not isinstance(dropped, Mapping):
            raise InvalidInputError(f"dropped must be a mapping from models to DroppedTokens, got {type(dropped).__name__}")
        super().__init__(acts)
        self.text_rows = text_rows
        self.dropped = dict(dropped or {})

    def __repr__(self) -> str:
        return f"TextActivations({', '.join(self._acts)}; {len(self.text_rows):,} rows of {len(self.text_rows.texts):,} texts)"

    def _repr_html_(self) -> str:
        """Return the table of `report`, for notebooks; only what this is if that is not known."""
        return html_of(self.dropped, repr(self))

    def report(self) -> str:
        """Return a table of what became of the tokens of each model. InvalidInputError if that is not known."""
        if not self.dropped:
            raise InvalidInputError("dropped must be known for a report, got none; give it to TextActivations")
        return report(self.dropped)


def report(dropped: Mapping[str, DroppedTokens]) -> str:
    """Return a table of what became of tokens."""
    names, counted = _counts(dropped)
    width = max(5, *(len(name) for name in dropped))
    lines = [" ".join([f"{'model':<{width}}", *(f"{name:>{max(len(name), 9)}}" for name in names)])]
    for model, counts in counted.items():
        cells = [f"{count:>{max(len(name), 9)},}" for name, count in zip(names, counts, strict=True)]
        lines.append(" ".join([f"{model:<{width}}", *cells]))
    return "\n".join(lines)


def html_of(dropped: Mapping[str, DroppedTokens], caption: str) -> str:
    """Return the table of `report` as HTML."""
    names, counted = _counts(dropped)
    rows = [[model, *(f"{count:,}" for count in counts)] for model, counts in counted.items()]
    return html.table(caption, ["model", *names], rows)


def _counts(dropped: Mapping[str, DroppedTokens]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Return the heads and, for each model, the numbers of the table."""
    names = ("tokens", "masked", "special", "without partner", "merged", "rows", "cut")
    found: dict[str, tuple[int, ...]] = {
        model: (each.tokens, each.masked, each.special, each.without_partner, each.merged, each.rows, each.cut)
        for model, each in dropped.items()
    }
    return names, found


def text_rows_of(acts: object) -> TextRows | None:
    """Return what the rows of activations are, if they carry it. A mask around them keeps it."""
    rows = getattr(acts, "text_rows", None)
    return rows if isinstance(rows, TextRows) else None
