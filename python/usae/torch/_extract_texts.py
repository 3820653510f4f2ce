"""`extract_texts` and `text_batches`: activations of networks of language over the same texts, aligned by their characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import check_names
from usae._data.narrowing import Rounding
from usae._data.text_activations import DroppedTokens, TextActivations
from usae._data.text_rows import checked_texts
from usae._data.token_alignment import TAKES, Take, TokenAlignment, aligned, no_rows
from usae.errors import InvalidInputError
from usae.torch._extraction_plan import converted
from usae.torch._text_model import TextModel
from usae.torch._text_passes import TextPass, text_passes, tokenizer_key
from usae.torch._tokenizers import Tokens

Tokenized = dict[str, list[Tokens]]
"""For each model the tokens of texts."""


def extract_texts(
    models: Mapping[str, TextModel],
    texts: Iterable[str],
    *,
    batch_size: int = 32,
    take: Take = "last",
    dtype: Literal["float32", "float16"] = "float32",
    progress: bool | None = None,
) -> TextActivations:
    """Run every model over the same texts and return their activations, for `usae.UniversalSAE.fit`.

    Special tokens and padding are dropped. Tokens of several tokenizers are paired by their characters, as by
    `usae.align_tokens`; what has no partner is dropped too. ``acts.report()`` says how many.

    Parameters
    ----------
    models : mapping of str to TextModel
        The models by name. Those of one network and tokenizer are computed in one pass.
    texts : iterable of str
        The texts.
    batch_size : int
        Number of texts that are computed at a time, those of about one length together. It changes memory and speed, and
        activations by rounding, because of padding. Default: 32.
    take : "last", "first", "mean" or "same"
        What stands for several tokens of a model in one row, as for `usae.align_tokens`. Default: "last".
    dtype : "float32" or "float16"
        Type of the result. float16 is half as large and ends at 65504. Default: "float32".
    progress : bool, optional
        Whether to show a progress bar. Default: None, which shows it if stderr is a terminal, and in a notebook.

    Returns
    -------
    TextActivations
        Activations of each model, [n_rows, width], text by text. Its `text_rows` has the text and the characters of each row,
        and its `dropped` what became of other tokens.

    Raises
    ------
    InvalidInputError
        For arguments that cannot be used, for activations that are not finite or beyond the range of `dtype`, and if no text
        has a row.

    Examples
    --------
    >>> encoder = usae.torch.TextModel("folder/of/an/encoder")
    >>> acts = usae.torch.extract_texts({f"layer{n}": encoder.at(n) for n in (1, 3, 6)}, texts)
    >>> sae = usae.UniversalSAE(n_concepts=2048, k=16).fit(acts)
    """
    plan = _Plan(models, batch_size, take, dtype)
    given = checked_texts(texts)
    tokens = plan.tokenized(given)
    found = plan.aligned(given, tokens)
    if not len(found):
        raise no_rows(given, plan.models)
    n_tokens = np.max([[len(each.ids) for each in of_model] for of_model in tokens.values()], axis=0)
    order = np.argsort(-n_tokens, kind="stable")  # the longest first, so that memory for them is there, or is not, at the start
    first_row = np.searchsorted(found.text_rows.text, np.arange(len(given) + 1))
    result: dict[str, np.ndarray] = {}
    with progress_bar(len(given), progress, desc="extracting", unit="text") as bar:
        for start in range(0, len(order), plan.batch_size):
            chosen = np.sort(order[start : start + plan.batch_size])
            rows = np.concatenate([np.arange(first_row[number], first_row[number + 1]) for number in chosen])
            if len(rows):
                some = {name: [of_model[number] for number in chosen] for name, of_model in tokens.items()}
                part = plan.aligned(tuple(given[number] for number in chosen), some)
                for name, x in plan.computed(part, some).items():
                    if name not in result:
                        result[name] = np.empty((len(found), x.shape[1]), x.dtype)
                    result[name][rows] = x
            bar.update(len(chosen))
    return TextActivations(result, found.text_rows, plan.dropped(found, tokens))


def text_batches(
    models: Mapping[str, TextModel],
    texts: Iterable[str],
    *,
    batch_size: int = 32,
    take: Take = "last",
    dtype: Literal["float32", "float16"] = "float32",
) -> Iterator[TextActivations]:
    """Yield what `extract_texts` returns, `batch_size` texts at a time and in their order, for stores and `fit_stream`.

    Arguments are checked in the call, and texts when they are read. `usae.TextRows.joined` joins what the rows of batches are.

    Parameters
    ----------
    models, texts, batch_size, take, dtype
        As for `extract_texts`.

    Yields
    ------
    TextActivations
        Activations of the next texts. Texts are numbered from 0 in each. Batches without any row are passed over.

    Raises
    ------
    InvalidInputError
        As for `extract_texts`.
    """
    plan = _Plan(models, batch_size, take, dtype)
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        checked_texts(texts)  # refuses it
    return _batches(plan, iter(texts))


def _batches(plan: _Plan, texts: Iterator[str]) -> Iterator[TextActivations]:
    while some := checked_texts(tuple(islice(texts, plan.batch_size))):
        tokens = plan.tokenized(some)
        found = plan.aligned(some, tokens)
        if len(found):
            yield TextActivations(plan.computed(found, tokens), found.text_rows, plan.dropped(found, tokens))


class _Plan:
    """Checked arguments, and what is done with some texts."""

    def __init__(self, models: object, batch_size: object, take: object, dtype: object):
        if not isinstance(models, Mapping):
            raise InvalidInputError(f"models must be a mapping from names to usae.torch.TextModel, got {type(models).__name__}")
        check_names(models, "models")
        for name, model in models.items():
            if not isinstance(model, TextModel):
                raise InvalidInputError(
                    f"models[{name!r}] must be a usae.torch.TextModel, got {type(model).__name__}; "
                    f"usae.torch.TextModel(network, tokenizer=...) makes one"
                )
        self.models: dict[str, TextModel] = dict(models)
        self.batch_size = checks.integer(batch_size, "batch_size", 1, 2**31)
        self.take: Any = checks.choice(take, "take", TAKES)
        self.dtype = checks.choice(dtype, "dtype", ("float32", "float16"))
        self._passes: list[TextPass] = text_passes(self.models)
        self._rounding: dict[str, Rounding] = {}

    def tokenized(self, texts: Sequence[str]) -> Tokenized:
        """Return the tokens of texts. Each tokenizer is called once."""
        found: dict[Any, list[Tokens]] = {}
        for model in self.models.values():
            key = tokenizer_key(model)
            if key not in found:
                found[key] = model.tokenizer.tokens(texts)
        return {name: found[tokenizer_key(model)] for name, model in self.models.items()}

    def aligned(self, texts: tuple[str, ...], tokens: Tokenized) -> TokenAlignment:
        """Return which tokens are which rows. There may be none."""
        spans = {name: [each.spans for each in of_model] for name, of_model in tokens.items()}
        return aligned(texts, spans, None, self.take)

    def computed(self, alignment: TokenAlignment, tokens: Tokenized) -> dict[str, np.ndarray]:
        """Return the rows of some texts, at least one, of each model."""
        states: dict[str, list[np.ndarray]] = {}
        for each in self._passes:
            states |= each.activations(tokens[next(iter(each.models))])
        wide = alignment.activations({name: states[name] for name in self.models})
        result = {}
        for name, x in wide.items():
            result[name] = converted(x, self.dtype, name, self.models[name])
            if result[name].dtype != x.dtype:
                self._rounding[name] = self._rounding.get(name, Rounding()).with_rows(x, result[name])
                self._rounding[name].check(f"activations of {name!r}", name, self.dtype)
        return result

    def dropped(self, alignment: TokenAlignment, tokens: Tokenized) -> dict[str, DroppedTokens]:
        """Return what became of tokens, with those that were cut off."""
        return {
            name: each._replace(cut=sum(of_text.n_cut for of_text in tokens[name])) for name, each in alignment.dropped.items()
        }
