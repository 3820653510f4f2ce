"""`usae.TextRows`: which text, and which characters of it, each row of activations is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from usae._base import checks
from usae.errors import InvalidInputError

MOST_CHARACTERS = 2**31

MOST_TEXTS = 2**24
"""More texts than memory holds activations of; an iterable without end has more."""


class TextContext(NamedTuple):
    """Characters of a text, with those around them. ``str(context)`` is one line, with the characters in brackets.

    Attributes
    ----------
    text : int
        Number of the text.
    start, end : int
        The characters are ``texts[text][start:end]``.
    before, characters, after : str
        The characters before them, they themselves, and those after them.
    """

    text: int
    start: int
    end: int
    before: str
    characters: str
    after: str

    def __str__(self) -> str:
        return " ".join(f"{self.before}[{self.characters}]{self.after}".split())


class TextRows:
    """Which text, and which characters of it, each row is. Whatever shows concepts of text looks up rows here.

    Parameters
    ----------
    texts : iterable of str
        The texts.
    text : array of int, [n_rows]
        Number of each row's text.
    spans : array of int, [n_rows, 2]
        First character of each row in its text, and the one after its last. A row without characters, such as padding, has an
        empty span.

    Attributes
    ----------
    texts : tuple of str
        The texts.
    text : ndarray of int64, [n_rows]
        Number of each row's text.
    spans : ndarray of int64, [n_rows, 2]
        Characters of each row.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, and for characters that a text does not have.

    Examples
    --------
    >>> rows = usae.TextRows(["A cat sat."], text=[0, 0, 0], spans=[(0, 1), (2, 5), (6, 9)])
    >>> print(rows.context(1))
    A [cat] sat.
    """

    def __init__(self, texts: Iterable[str], text: Any, spans: Any):
        self.texts = checked_texts(texts)
        self.text = _integers(text, "text", 1)
        self.spans = _integers(spans, "spans", 2)
        if self.spans.shape != (len(self.text), 2):
            raise InvalidInputError(
                f"spans must be [n_rows, 2], a start and an end for each of {len(self.text)} rows, got {list(self.spans.shape)}"
            )
        if len(self.text) and not (self.text.min() >= 0 and self.text.max() < len(self.texts)):
            raise InvalidInputError(
                f"text must be numbers of texts, from 0 to {len(self.texts) - 1}, got {self.text.min()} to {self.text.max()}"
            )
        check_spans(self.spans, np.array([len(each) for each in self.texts], np.int64)[self.text], "spans")
        for array in (self.text, self.spans):
            array.flags.writeable = False

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.text)

    def __repr__(self) -> str:
        return f"TextRows({len(self.text):,} rows of {len(self.texts):,} texts)"

    @property
    def numbers_in_text(self) -> np.ndarray:
        """Number of each row among the rows of its text, int64 [n_rows], if the rows of a text follow each other.

        ``mask=rows.numbers_in_text > 0`` leaves out the first row of each text.
        """
        starts = self.starts
        return np.arange(len(self.text)) - np.repeat(starts, np.diff(np.append(starts, len(self.text))))

    @property
    def starts(self) -> np.ndarray:
        """Numbers of the rows with which another text than that of the row before starts, int64."""
        return np.flatnonzero(np.append(True, self.text[1:] != self.text[:-1])[: len(self.text)])

    def context(self, row: int, before: int = 40, after: int = 40) -> TextContext:
        """Return the characters of a row, with those around them.

        Parameters
        ----------
        row : int
            Number of the row.
        before, after : int
            Most characters before and after. Default: 40 and 40.

        Raises
        ------
        InvalidInputError
            For arguments that cannot be used.
        """
        row = checks.integer(row, "row", 0, len(self) - 1)
        before = checks.integer(before, "before", 0, MOST_CHARACTERS)
        after = checks.integer(after, "after", 0, MOST_CHARACTERS)
        number, (start, end) = int(self.text[row]), self.spans[row].tolist()
        text = self.texts[number]
        return TextContext(number, start, end, text[max(start - before, 0) : start], text[start:end], text[end : end + after])

    @staticmethod
    def joined(parts: Iterable[TextRows]) -> TextRows:
        """Return the rows of several parts, one after the other, such as of the batches that are appended to a store.

        Parameters
        ----------
        parts : iterable of TextRows
            The parts. The texts of each are numbered after those before it.

        Raises
        ------
        InvalidInputError
            If one is no `TextRows`.
        """
        given = checks.listed(parts, "parts", "a list of usae.TextRows")
        for number, part in enumerate(given):
            if not isinstance(part, TextRows):
                raise InvalidInputError(f"parts[{number}] must be a usae.TextRows, got {checks.shown(part)}")
        first = np.cumsum([0, *(len(part.texts) for part in given)])
        return TextRows(
            (text for part in given for text in part.texts),
            np.concatenate([np.empty(0, np.int64), *(part.text + n for part, n in zip(given, first, strict=False))]),
            np.concatenate([np.empty((0, 2), np.int64), *(part.spans for part in given)]),
        )


def checked_texts(texts: Any) -> tuple[str, ...]:
    """Return texts as a tuple. InvalidInputError for one text, and for what is none."""
    if isinstance(texts, str):
        raise InvalidInputError(f"texts must be a list of texts, got one text; write texts=[{checks.shown(texts[:20])}]")
    if isinstance(texts, tuple) and all(type(text) is str for text in texts):
        return texts
    if isinstance(texts, Mapping):
        raise InvalidInputError(f"texts must be a list of texts, got {checks.shown(texts)}; write list(texts.values())")
    try:
        given = tuple(islice(texts, MOST_TEXTS + 1))
    except Exception as error:  # of the value's own methods
        raise InvalidInputError(f"texts must be a list of texts, got {checks.shown(texts)}: {type(error).__name__}") from error
    if len(given) > MOST_TEXTS:
        raise InvalidInputError(f"texts must be at most {MOST_TEXTS:,} texts, got more; give a part of them at a time")
    for number, text in enumerate(given):
        if not isinstance(text, str):
            raise InvalidInputError(f"texts[{number}] must be text, got {checks.shown(text)}")
    return tuple(map(str, given))


def check_spans(spans: np.ndarray, lengths: np.ndarray, label: str) -> None:
    """Refuse spans, [n, 2], of characters that their text does not have. `lengths` are the lengths of the texts, [n]."""
    wrong = (spans[:, 0] < 0) | (spans[:, 0] > spans[:, 1]) | (spans[:, 1] > lengths)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidInputError(
            f"{label} must have characters of their text, 0 <= start <= end <= {lengths[row]}, got {spans[row].tolist()} in "
            f"row {row}; give the texts that the tokenizer was given"
        )


def as_integers(x: Any, label: str) -> np.ndarray:
    """Return a copy of an array of integers, int64. InvalidInputError for anything else."""
    try:
        array = np.asarray(x)
    except Exception as error:  # __array__ of other libraries raises exceptions of its own
        raise InvalidInputError(f"{label} must be an array of integers, got {type(x).__name__}: {error}") from error
    if not array.size:
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind not in "iu" or array.max() > np.iinfo(np.int64).max:
        raise InvalidInputError(f"{label} must be an array of integers, got {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)


def _integers(x: Any, label: str, ndim: int) -> np.ndarray:
    array = as_integers(x, label)
    if not array.size:
        return array.reshape((0,) + (2,) * (ndim - 1))
    if array.ndim != ndim:
        expected = "[n_rows]" if ndim == 1 else "[n_rows, 2]"
        raise InvalidInputError(f"{label} must be {expected}, got {list(array.shape)}")
    return array
