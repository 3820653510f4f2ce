"""Top examples of which at most one is taken from each text. Texts have as many rows as they have tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from usae._base.ranking import keep_largest
from usae._core.autoencoder import Autoencoder
from usae._data.activations import Activations
from usae._data.chunks import CHUNK
from usae._data.text_rows import TextRows
from usae.errors import InvalidInputError


def checked_rows(text_rows: object, n_rows: int) -> TextRows | None:
    """Return what rows are. InvalidInputError if that is of another number of rows."""
    if text_rows is None:
        return None
    if not isinstance(text_rows, TextRows):
        raise InvalidInputError(f"text_rows must be a usae.TextRows, got {type(text_rows).__name__}")
    if len(text_rows) != n_rows:
        raise InvalidInputError(f"text_rows must have a row for each of {n_rows} rows of acts, got {len(text_rows)}")
    return text_rows


def search_texts(
    autoencoder: Autoencoder,
    name: str,
    x: Activations,
    text_rows: TextRows,
    values: np.ndarray,
    tokens: np.ndarray,
    bar: Any,
) -> None:
    """Write the strongest tokens of a model, one of a text at most, to `values` and `tokens`, [m, n].

    The core takes images of equally many tokens. So the rows of some texts at a time are laid out like that, each text with
    as many as the longest of them; the places that stay free do not count and are not read.
    """
    index = autoencoder.index(name)
    values[:], tokens[:] = 0, -1
    of_part, in_part = np.empty_like(values), np.empty_like(tokens)
    numbers = np.arange(x.n_rows) if x.rows is None else x.rows
    order = np.argsort(text_rows.text[numbers], kind="stable")
    lengths = np.unique(text_rows.text[numbers], return_counts=True)[1]
    for rows, of_text in _parts(lengths):
        chosen = numbers[order[rows]]
        longest = int(of_text.max())
        starts = np.cumsum(of_text) - of_text
        places = np.arange(len(chosen)) + np.repeat(np.arange(len(of_text)) * longest - starts, of_text)
        part = x.whole.part(chosen)
        laid_out = np.zeros((len(of_text) * longest, part.width), part.array.dtype)
        laid_out[places] = part.array
        native = dataclasses.replace(part, array=laid_out, rows=places).native
        autoencoder.core.top_examples(index, native, longest, of_part, in_part)
        bar.update(len(chosen))
        found = in_part >= 0
        in_part[found] = chosen[np.searchsorted(places, in_part[found])]
        keep_largest(values, tokens, of_part, in_part)  # ties go to the earlier token


def _parts(lengths: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of rows, each of whole texts, with the lengths of these texts."""
    first = row = longest = 0
    for number, length in enumerate([*lengths.tolist(), None]):
        if length is None or (number > first and (number + 1 - first) * max(longest, length) > CHUNK):
            of_text = lengths[first:number]
            if len(of_text):
                end = row + int(of_text.sum())
                yield slice(row, end), of_text
                row = end
            first, longest = number, 0
        longest = max(longest, length or 0)
