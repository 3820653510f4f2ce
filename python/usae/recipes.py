"""Recipes: everything that decides how a universal sparse autoencoder learns.

`default` is what our own measurements show to be best (docs/recipes.md), `matryoshka` finds more concepts at some cost, and
`published` is Thasarathan et al. (ICML 2025, arXiv 2502.03714) as their code trains it. A variant is made with
`Recipe.replace`::

    recipe = usae.recipes.default(batch_size=4096)
    recipe = usae.recipes.published(total_steps=20_000).replace(update="all")
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from usae import _usae
from usae._base import checks
from usae.errors import InvalidInputError

__all__ = ["Recipe", "default", "matryoshka", "published"]

STEPS_PER_IMAGENET_EPOCH = 40_037  # 1,281,167 training images, 32 in a batch
IMAGENET_EPOCHS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a universal sparse autoencoder learns. Frozen; round-trips through JSON; defaults are those of `default`.

    Parameters
    ----------
    name : str
        For people; nothing depends on it.
    encoder : "linear" or "batchnorm"
        W x + b, or BatchNorm(W x + b). ReLU and then the selection of k concepts follow either.
    selection : "topk" or "batchtopk"
        "topk": the k largest of a token. "batchtopk" (Bussmann et al., arXiv 2412.06410): in training the k largest for each
        token on average, that is, the n_tokens * k largest of the batch; afterwards those above a threshold that training
        has followed, so that a token's code does not depend on other tokens.
    k_max : int or None
        With "batchtopk", the most that one token can have; what it would have beyond that goes to other tokens. At least k;
        None: 4 k.
    initialization : "random", "tied" or "data"
        "random": PyTorch's Linear and a normal dictionary. "tied": unit random dictionary rows, the encoder equal to the
        dictionary. "data": as "tied", with the same rows of data in every model's dictionary, so that the dictionaries
        are aligned from the first step.
    loss : "mse" or "l1"
        Mean over the elements of the squared or the absolute residual, summed over the decoded models.
    update : "all" or "encoder"
        Step every dictionary and the encoder that was drawn, or only the encoder and dictionary of the drawn model.
    center, scale : "scalar" or "dimension"
        Standardise by one number for a model, or by one for each of its dimensions.
    scale_epsilon : float
        Added to the standard deviation.
    statistics_tokens : int or None
        Number of rows that mean and scale are taken from. None: all.
    renormalize : bool
        Put dictionary rows back to norm 1 after each step.
    dictionary_epsilon : float
        Added to the norm of a dictionary row where the row is divided by it.
    aux : "none", "unchosen" or "dead"
        The code that has to reconstruct the residual as well: none, the largest of all positive codes that TopK left
        out, or the largest of those of dead concepts.
    aux_k : int or None
        How many of them. None: half of the concepts for "unchosen", 2 k for "dead".
    aux_coefficient : float
        Weight of that loss.
    aux_scale : "none" or "residual"
        Divide it by the loss of predicting the residual's batch mean, or leave it.
    aux_detach : bool
        Hold the residual constant in it.
    dead_share : float
        A concept is dead in a model that encodes this share of its planned tokens without the concept firing.
    dead_tokens : int or None
        The same as a number of tokens; wins over `dead_share`. 0: never dead.
    batch_size : int
        Tokens in a step of `UniversalSAE.fit`.
    learning_rate, warmup_learning_rate, final_learning_rate : float
        The peak, where the warm-up starts, and where the decay ends.
    warmup_steps : int
        Length of the linear warm-up. Where `total_steps` is None, `fit` uses at most a tenth of the steps.
    total_steps : int or None
        Length of the run. None: `fit` fills it in, and without `fit` the rate stays constant after the warm-up.
    schedule : "constant", "cosine" or "linear"
        How the rate falls.
    decay_share : float
        The last share of the run in which it falls. 1: from the end of the warm-up.
    clock : "global" or "model"
        One schedule for the run, or one for each model that advances when the model is encoded.
    beta1, beta2, epsilon, weight_decay : float
        AdamW, as in PyTorch.
    clip_norm : float or None
        Largest norm of one model's gradients together. None: no clipping.
    prefixes : tuple of float or None
        Matryoshka (Bussmann et al., arXiv 2503.17547): shares of the concepts, ascending to 1 and at most 16, such as
        ``(1 / 16, 1 / 4, 1)``. For each share, the concepts of the code that are among the first share of all reconstruct by
        themselves, so that the first concepts learn what is general. Shares that come to the same number of concepts count
        once. None: the whole code alone.
    prefix_loss : "drawn" or "mean"
        What is learned in a step: one prefix drawn for it, all concepts in half of the steps and a shorter one in the others
        (nested dropout, Rippel et al., 2014), or the mean over all prefixes, which takes more time and memory. A drawn prefix
        makes the loss of single steps uneven; `StepReport.prefix` says which it was.
    merge_cosine : float or None
        Two concepts whose dictionary rows have a larger cosine than this in every model are merged: encoders often use one of
        them in one model and the other in another, so that neither is universal. One keeps, for each model, the encoder row
        that is in use; the other starts anew from a token. None: never (docs/method.md, Twins).
    merge_every : int
        Twins are looked for every so many steps, after the warm-up and in the first 19/20 of the run.

    Raises
    ------
    InvalidInputError
        For a value that cannot be used.
    """

    name: str = "default"
    encoder: Literal["linear", "batchnorm"] = "linear"
    selection: Literal["topk", "batchtopk"] = "topk"
    k_max: int | None = None
    initialization: Literal["random", "tied", "data"] = "data"
    loss: Literal["l1", "mse"] = "mse"
    update: Literal["all", "encoder"] = "all"
    center: Literal["scalar", "dimension"] = "dimension"
    scale: Literal["scalar", "dimension"] = "scalar"
    scale_epsilon: float = 1e-5
    statistics_tokens: int | None = 200_000
    renormalize: bool = True
    dictionary_epsilon: float = 1e-8
    aux: Literal["none", "unchosen", "dead"] = "dead"
    aux_k: int | None = None
    aux_coefficient: float = 1 / 32
    aux_scale: Literal["none", "residual"] = "residual"
    aux_detach: bool = True
    dead_share: float = 0.05
    dead_tokens: int | None = None
    batch_size: int = 2048
    learning_rate: float = 7e-3
    warmup_learning_rate: float = 0.0
    final_learning_rate: float = 0.0
    warmup_steps: int = 100
    total_steps: int | None = None
    schedule: Literal["constant", "cosine", "linear"] = "linear"
    decay_share: float = 0.2
    clock: Literal["global", "model"] = "global"
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    prefixes: tuple[float, ...] | None = (0.25, 0.5, 0.75, 1.0)
    prefix_loss: Literal["mean", "drawn"] = "drawn"
    merge_cosine: float | None = 0.8
    merge_every: int = 50

    def __post_init__(self) -> None:
        for field, kind in _KINDS.items():
            object.__setattr__(self, field, _checked(field, kind, getattr(self, field)))
        if self.total_steps is not None and self.warmup_steps > self.total_steps:
            raise InvalidInputError(
                f"recipe: warmup_steps must not exceed total_steps, got {self.warmup_steps} and {self.total_steps}"
            )

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed. An unknown field is an InvalidInputError."""
        return Recipe.from_dict(self.to_dict() | changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain Python values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`. Fields left out have their default; an unknown one is an InvalidInputError."""
        if not isinstance(fields, Mapping):
            raise InvalidInputError(f"a recipe must be a mapping of fields to values, got {type(fields).__name__}")
        for field in fields:
            if field not in _KINDS:
                raise InvalidInputError(f"recipe: unknown field {field!r}{checks.did_you_mean(str(field), _KINDS)}")
        return cls(**fields)

    def to_json(self) -> str:
        """The fields as a JSON object."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """The inverse of `to_json`."""
        if not isinstance(text, (str, bytes, bytearray)):
            raise InvalidInputError(
                f"a recipe must be the text of a JSON object, got {type(text).__name__}; for a mapping use from_dict"
            )
        try:
            fields = checks.parsed_json(text)
        except ValueError as error:
            raise InvalidInputError(f"a recipe must be a JSON object, got text that is not JSON: {error}") from None
        return cls.from_dict(fields)


def default(**changes: Any) -> Recipe:
    """The recommended recipe, with some fields changed."""
    return Recipe().replace(**changes)


def matryoshka(**changes: Any) -> Recipe:
    """The default with the loss of all prefixes in every step, with some fields changed.

    It finds as many shared concepts, more private ones where that is hard, and leaves fewer concepts dead in short runs; a step
    takes longer and more memory (docs/recipes.md).
    """
    return Recipe(name="matryoshka", prefix_loss="mean", learning_rate=5e-3).replace(**changes)


def published(*, total_steps: int | None = None, warmup_steps: int | None = None) -> Recipe:
    """The recipe of Thasarathan et al. (ICML 2025) as their code trains it, quirks included.

    Parameters
    ----------
    total_steps : int or None
        Length of the run. None: theirs, 30 epochs of ImageNet, 1,201,110 steps of 6,272 tokens.
    warmup_steps : int or None
        None: one epoch of thirty, theirs 40,037 steps.

    Notes
    -----
    The quirks, each with the field that switches it off: only the encoded model's pair is stepped (``update="all"``); its
    schedule advances only when it is drawn, so that the rate never gets low (``clock="global"``); AuxK takes half of all
    codes that TopK left out, not only dead ones (``aux="dead"``), and does not hold the residual constant
    (``aux_detach=True``).
    """
    if total_steps is None:
        total_steps = STEPS_PER_IMAGENET_EPOCH * IMAGENET_EPOCHS
    if warmup_steps is None:
        warmup_steps = _checked("total_steps", int, total_steps) // IMAGENET_EPOCHS
    return Recipe(
        name="published",
        prefixes=None,
        merge_cosine=None,
        encoder="batchnorm",
        initialization="random",
        loss="l1",
        update="encoder",
        center="scalar",
        scale="scalar",
        statistics_tokens=196_000,
        renormalize=False,
        aux="unchosen",
        aux_coefficient=0.1,
        aux_scale="none",
        aux_detach=False,
        batch_size=6272,
        learning_rate=3e-4,
        warmup_learning_rate=1e-6,
        final_learning_rate=1e-6,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        schedule="cosine",
        decay_share=1.0,
        clock="model",
        weight_decay=1e-5,
        clip_norm=1.0,
    )


_KINDS: dict[str, Any] = get_type_hints(Recipe)

CORE_FIELDS = _usae.recipe_fields()
"""What the core knows of the fields that it has too, by name; its names, choices and limits are the ones that count here."""

PYTHON_FIELDS = tuple(name for name in _KINDS if name not in CORE_FIELDS)
"""The others: a name, and what becomes a number of tokens or steps before the core sees it."""

# Smallest and largest value of a number, and where 0 is not one of them; None says what 0 says in the core.
_RANGES: dict[str, tuple[float, float]] = {"dead_share": (0, 1), "batch_size": (1, 2**24)}
_RANGES |= {name: (field["smallest"], field["largest"]) for name, field in CORE_FIELDS.items()}
_NOT_ZERO = {"dead_share"} | {name for name, field in CORE_FIELDS.items() if field["zero_is_none"]}


def _checked(field: str, kind: Any, value: Any) -> Any:
    """`value` as a plain Python value of the field's kind; InvalidInputError where it is not one."""
    if type(None) in get_args(kind):
        if value is None:
            return None
        kind = get_args(kind)[0]
    if kind is str:
        if not isinstance(value, str):
            raise InvalidInputError(f"recipe: {field} must be text, got {value!r}")
        return value
    if kind is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidInputError(f"recipe: {field} must be True or False, got {value!r}")
        return bool(value)
    if get_origin(kind) is tuple:
        return _checked_shares(field, value)
    if kind in (int, float):
        return _checked_number(field, kind, value)
    if not isinstance(value, str) or value not in get_args(kind):
        hint = checks.did_you_mean(value, get_args(kind))
        raise InvalidInputError(f"recipe: {field} must be one of {', '.join(get_args(kind))}, got {value!r}{hint}")
    return str(value)


def _checked_number(field: str, kind: type, value: Any) -> int | float:
    smallest, largest = _RANGES[field]
    number: int | float = math.nan
    if kind is float:
        number = checks.as_float(value)
    elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
    if smallest <= number <= largest and not (number == 0 and field in _NOT_ZERO):  # false for NaN
        return number
    what = "an integer" if kind is int else "a number"
    limits = f"above 0 and at most {largest}" if field in _NOT_ZERO else f"from {smallest} to {largest}"
    raise InvalidInputError(f"recipe: {field} must be {what} {limits}, got {value!r}")


def _checked_shares(field: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        shares = tuple(checks.as_float(share) for share in value)
        ascending = all(shorter < longer for shorter, longer in zip((0.0, *shares), shares, strict=False))
        if shares and ascending and shares[-1] == 1 and len(shares) <= _usae.MOST_PREFIXES:
            return shares
    raise InvalidInputError(
        f"recipe: {field} must be at most {_usae.MOST_PREFIXES} shares, ascending from above 0 to 1, got {value!r}"
    )
