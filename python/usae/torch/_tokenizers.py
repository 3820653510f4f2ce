"""What turns texts into tokens: tokenizers of transformers and of tokenizers, and functions.

No library is imported: tokenizers are recognised by what they have. A copy is used, because padding and truncation are settings
of the object and not of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from usae._base import checks
from usae._data.text_rows import as_integers, check_spans
from usae.errors import InvalidInputError, UsaeError

LONGEST = 2**24
"""More tokens than any network takes. Tokenizers without a limit of their own say some larger number."""


class Tokens(NamedTuple):
    """Tokens of one text.

    Attributes
    ----------
    ids : ndarray of int64, [tokens]
        What the network is given.
    spans : ndarray of int64, [tokens, 2]
        Characters of each token; an empty span for special tokens.
    n_cut : int
        Number of tokens with characters that were cut off, because the text is too long.
    """

    ids: np.ndarray
    spans: np.ndarray
    n_cut: int


class Tokenizer:
    """Gives the tokens of texts.

    Parameters
    ----------
    given : tokenizer or callable
        The argument `tokenizer` of `TextModel`.
    max_tokens : int or None
        Most tokens of a text, with special tokens. None: what the tokenizer says, and `positions`.
    positions : int or None
        How many positions the network has, if it says so.

    Attributes
    ----------
    given : tokenizer or callable
        What was given.
    max_tokens : int or None
        Most tokens of a text. None: there is no limit.
    pad_id : int
        What stands behind the tokens of shorter texts. The network is told not to look at it.
    """

    def __init__(self, given: Any, max_tokens: object = None, positions: int | None = None):
        self.given = given
        inside = getattr(given, "backend_tokenizer", given)
        is_fast = all(hasattr(inside, name) for name in ("encode_batch", "to_str", "enable_truncation"))
        if not is_fast and hasattr(given, "convert_tokens_to_ids"):
            raise InvalidInputError(
                f"tokenizer must say which characters its tokens are, as fast tokenizers do, got {type(given).__name__}; load "
                f"it with AutoTokenizer, or give a function from a text to (ids, spans)"
            )
        if not is_fast and not callable(given):
            raise InvalidInputError(
                f"tokenizer must be one of transformers or tokenizers, or a function from a text to (ids, spans), got "
                f"{checks.shown(given)}"
            )
        self.max_tokens = _limit(given, inside, max_tokens, positions)
        pad_id = getattr(given, "pad_token_id", None)
        self.pad_id = pad_id if isinstance(pad_id, int) else 0
        self._fast = _copy(inside, self.max_tokens) if is_fast else None

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text."""
        if self._fast is None:
            return [self._of_function(text, f"tokenizer(texts[{number}])") for number, text in enumerate(texts)]
        try:
            for text in texts:
                text.encode()  # tokenizers 0.19 takes half of a surrogate pair for another character
            encodings = self._fast.encode_batch(list(texts))
        except Exception as error:  # also of Rust
            raise InvalidInputError(
                f"texts must be text that the tokenizer takes, got {type(error).__name__}: {error}; is there a lone surrogate?"
            ) from error
        return [_of_encoding(each) for each in encodings]

    def _of_function(self, text: str, label: str) -> Tokens:
        try:
            ids, spans = self.given(text)
        except (UsaeError, MemoryError):
            raise
        except Exception as error:  # of the function itself, or because it returns something else
            raise InvalidInputError(
                f"tokenizer must be a function from a text to (ids, spans), got {type(error).__name__}: {error}, for "
                f"{checks.shown(text)}; correct it"
            ) from error
        numbers, places = as_integers(ids, f"{label}[0]"), as_integers(spans, f"{label}[1]").reshape(-1, 2)
        if numbers.ndim != 1 or len(places) != len(numbers):
            raise InvalidInputError(
                f"tokenizer must be a function from a text to ids [tokens] and spans [tokens, 2], got {list(numbers.shape)} "
                f"and {len(places)} spans; correct it"
            )
        check_spans(places, np.full(len(places), len(text)), f"{label}[1]")
        cut = slice(self.max_tokens, None)
        n_cut = 0 if self.max_tokens is None else int((places[cut, 0] < places[cut, 1]).sum())
        return Tokens(numbers[: self.max_tokens], places[: self.max_tokens], n_cut)


def _of_encoding(encoding: Any) -> Tokens:
    spans = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    special = np.array(encoding.special_tokens_mask, bool)
    spans[special] = 0
    n_cut = sum(mask == 0 for part in encoding.overflowing for mask in part.special_tokens_mask)
    return Tokens(np.array(encoding.ids, np.int64), spans, n_cut)


def _copy(tokenizer: Any, max_tokens: int | None) -> Any:
    """Return a copy that pads nothing and cuts off what is too long."""
    try:
        copy = type(tokenizer).from_str(tokenizer.to_str())
    except Exception as error:  # of parts in Python
        raise InvalidInputError(
            f"tokenizer must be one that can be copied, got {type(error).__name__}: {error}; give a function from a text to "
            f"(ids, spans)"
        ) from error
    n_special = copy.num_special_tokens_to_add(False)
    if max_tokens is not None and max_tokens <= n_special:
        raise InvalidInputError(
            f"max_tokens must be more than the {n_special} special tokens of a text, got {max_tokens}; leave it out"
        )
    copy.no_padding()
    copy.no_truncation()
    if max_tokens is not None:
        copy.enable_truncation(max_tokens)
    return copy


def _limit(given: Any, inside: Any, max_tokens: object, positions: int | None) -> int | None:
    """Return the most tokens of a text: what was asked for, or the least of what tokenizer and network say."""
    if max_tokens is not None:
        return checks.integer(max_tokens, "max_tokens", 1, LONGEST, ", or None, which takes what tokenizer and network say")
    known = [getattr(given, "model_max_length", None), positions]
    truncation: Callable[..., Any] | dict[str, Any] | None = getattr(inside, "truncation", None)
    if given is inside and isinstance(truncation, dict):  # transformers sets its own in each call
        known.append(truncation.get("max_length"))
    limits = [int(each) for each in known if isinstance(each, (int, float)) and math.isfinite(each) and 0 < each < LONGEST]
    return min(limits, default=None)
