"""Recipes: everything that decides how a universal sparse autoencoder is trained.

`default` was the best in our own measurements (docs/recipes.md). `matryoshka` finds more concepts at some cost. `agreeing`
makes models agree in their codes. `published` is the recipe of Thasarathan et al. (ICML 2025, arXiv 2502.03714) as their code
trains it. `Recipe.replace` makes variants::

    recipe = usae.recipes.default(batch_size=4096)
    recipe = usae.recipes.published(total_steps=20_000).replace(update="all")
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from usae import _usae
from usae._base import checks, html
from usae.errors import InvalidInputError

__all__ = ["Recipe", "agreeing", "default", "matryoshka", "published"]

STEPS_PER_IMAGENET_EPOCH = 40_037  # 1,281,167 training images, 32 in a batch
IMAGENET_EPOCHS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a universal sparse autoencoder is trained; docs/method.md has the formulas.

    A recipe is frozen and can be written to JSON and read back. Its defaults are those of `default`.

    Parameters
    ----------
    name : str
        Label for people; nothing depends on it. Default: "default".
    encoder : "linear" or "batchnorm"
        Pre-activations are W x + b, or BatchNorm(W x + b). ReLU and the selection of k concepts follow in both cases.
        Default: "linear".
    selection : "topk" or "batchtopk"
        "topk" keeps the k largest pre-activations of each token. "batchtopk" (Bussmann et al., arXiv 2412.06410) keeps, in
        training, the n_tokens * k largest of the batch, rounded down, which is k for each token on average and may be
        fractional. Outside training it keeps those above a threshold, a running mean that training has updated, so that a
        token's code does not depend on other tokens. Default: "topk".
    k_max : int or None
        With "batchtopk", the largest number of active concepts of one token, at least k. What a token would have beyond that
        goes to other tokens. Default: None, which means 4 k, rounded up.
    initialization : "random", "tied" or "data"
        "random" initialises the encoder as PyTorch's Linear and the dictionary from a normal distribution. "tied" draws
        dictionary rows of norm 1 and starts the encoder equal to the dictionary. "data" does the same with the activations of
        some tokens as dictionary rows; the tokens are the same in every model, so that the dictionaries are aligned from the
        first step. Default: "data".
    loss : "mse" or "l1"
        Mean over the elements of the squared or the absolute residual, summed over the decoded models. Default: "mse".
    update : "all" or "encoder"
        "all" updates the encoder of the encoded model and the dictionary of every model. "encoder" updates only the encoder
        and the dictionary of the encoded model. Default: "all".
    center, scale : "scalar" or "dimension"
        Whether the mean and the scale of the standardisation are one number for each model, or one for each dimension of a
        model. Default: "dimension" and "scalar".
    scale_epsilon : float
        Number that is added to the standard deviation. If the deviation of a model is below 1/4, it is 4 times the product of
        the two, so that small units change nothing. Default: 1e-5.
    statistics_tokens : int or None
        Number of rows from which mean and scale are computed. None: all rows. Default: 200_000.
    outlier_multiple : float or None
        A row is outlying in a model if its distance from the mean is more than this multiple of the median distance, as that of
        attention sinks is. Outlying rows do not count for mean and scale, if they are at most 5 % of the rows; and training
        shortens their tokens to a typical length, so that they cannot outweigh all others. Encoding and evaluation change no
        row. None: no row is outlying. Default: 5.0.
    renormalize : bool
        Whether dictionary rows are set back after each step to the norm that `dictionary_norm` lets them have. Default: True.
    dictionary_epsilon : float
        Number that is added to the norm of a dictionary row when the row is divided by its norm, with
        ``dictionary_norm="unit"``. Default: 1e-8.
    dictionary_norm : "unit" or "bounded"
        How long the rows are that codes are decoded by. "unit": 1 in every model. "bounded": at most 1, so that a concept adds
        less to the models that have less of it, and nothing to those that do not have it; a row whose norm is above 1 is
        divided by its norm. Default: "bounded".
    aux : "none", "unchosen" or "dead"
        Concepts that have to reconstruct the residual (AuxK). "dead" (Gao et al., arXiv 2406.04093) takes the dead concepts
        with the largest positive pre-activations. "unchosen", the published AuxK, takes those of all concepts that are not in
        the code. "none" means no auxiliary loss. Default: "dead".
    aux_k : int or None
        Largest number of such concepts for each token. Default: None, which means half of all concepts with "unchosen" and 2 k
        with "dead".
    aux_every : int
        With "dead", one token in so many has such concepts, drawn in each step from each `aux_every` tokens of the batch that
        follow each other. 1: every token, as in Gao et al.; a step with a tenth of the concepts dead then takes twice as long.
        With "unchosen", every token has them, whatever this says. Default: 8.
    aux_coefficient : float
        Weight of the auxiliary loss. Default: 1 / 32.
    aux_scale : "none" or "residual"
        "residual" divides the auxiliary loss by the loss of predicting the residual's batch mean. "none" does not.
        Default: "residual".
    aux_detach : bool
        Whether the residual is a constant in the auxiliary loss. Default: True.
    dead_share : float
        A concept is dead in a model once the model has encoded this share of all tokens planned for it without the concept
        firing. Default: 0.05.
    dead_tokens : int or None
        The same as a number of tokens; it overrides `dead_share`. 0: a concept is never dead. Default: None, which takes
        `dead_share`, or 1,000,000 tokens if the length of the run is unknown.
    batch_size : int
        Tokens in a step of `UniversalSAE.fit`. Where a step encodes several models (`encoded_models`), the number of encodings:
        tokens times encoded models. Default: 2048.
    learning_rate : float or None
        Learning rate between warm-up and decay. Default: None, which derives it for each model from its activations:
        min(7e-3, 0.15 sqrt(D) / d), and with ``prefix_loss="mean"`` min(5e-3, 0.15 sqrt(D) / d), where d is the width and D the
        number of effective dimensions, or 32 if that is more. A number is the rate of every model, but for `step_limit`.
    step_limit : float or None
        How far a step may move pre-activations: the rate of a model is min(learning_rate, step_limit sqrt(D) / d). The
        effective dimensions D are the participation ratio (sum of v)^2 / (sum of v^2) of the variances v of the standardised
        activations' principal components, and at least 32. Default: None, which takes 0.15 where `learning_rate` is None, and
        no limit otherwise.
    warmup_learning_rate, final_learning_rate : float
        Learning rates at the start of the warm-up and at the end of the decay. Default: 0.0 for both.
    warmup_steps : int
        Length of the linear warm-up. If `total_steps` is None, `fit` uses at most a tenth of its steps. Default: 100.
    total_steps : int or None
        Number of steps of the whole run. Default: None, which lets `fit` fill it in; without `fit` the learning rate then stays
        constant after the warm-up.
    schedule : "constant", "cosine" or "linear"
        Shape of the learning rate's decay. Default: "linear".
    decay_share : float
        Share of the run, at its end, in which the learning rate decays. 1: from the end of the warm-up on. Default: 0.2.
    clock : "global" or "model"
        "global" has one schedule for the run. "model" has a schedule for each model, which advances when the model is encoded.
        Default: "global".
    first_step_full : bool
        Whether the first step of a schedule has the full learning rate, before the warm-up goes on from its second step. The
        published code does so, because it sets the rate after a step. Default: False.
    warmup_inclusive : bool
        Whether the last step of the warm-up has the full learning rate, as in the published code, and not the step after it.
        Default: False.
    beta1, beta2, epsilon, weight_decay : float
        Parameters of AdamW, as in PyTorch. Default: 0.9, 0.999, 1e-8 and 0.0.
    clip_norm : float or None
        Largest norm of one model's gradients, all tensors together. Default: None, which means no clipping.
    prefixes : tuple of float or None
        Nested prefixes of the concepts (Matryoshka, Bussmann et al., arXiv 2503.17547), as at most 16 ascending shares of
        which the last is 1, such as ``(1 / 16, 1 / 4, 1)``. For each share s, the active concepts among the first
        s * n_concepts have to reconstruct without the others, so that the first concepts learn general features. Shares that
        come to the same number of concepts count once. None: only the whole code has to. Default: (0.25, 0.5, 0.75, 1.0).
    prefix_loss : "drawn" or "mean"
        "drawn" takes the loss of one prefix, drawn for each step: all concepts in half of the steps and a shorter prefix in
        the others (nested dropout, Rippel et al., 2014). "mean" takes the mean over all prefixes, which needs more time and
        memory. With "drawn" the loss changes from step to step with the prefix, which is `StepReport.prefix`.
        Default: "drawn".
    merge_cosine : float or None
        Two concepts are duplicates, and are merged, if the cosine of their dictionary rows is larger than this in every model.
        Encoders often use one of the two in one model and the other in another, so that neither is universal. One of the two
        keeps, for each model, the encoder row that is in use; the other is initialised again from a token. None: nothing is
        merged. Default: 0.8.
    merge_every : int
        Number of steps between two searches for duplicate concepts. They take place after the warm-up, in the first 19/20 of
        the run. Default: 50.
    encoded_models : "one", "two" or "all"
        How many models encode each token of a step: one or two that are drawn, or all. The loss is the mean over them. A step
        has `batch_size` encodings in any case, and so takes about as long. Default: "two".
    agreement : float
        Weight of the agreement term, which the loss has where a step encodes several models. It is the mean, over tokens and
        pairs i, j of these models, of the sum over c of (p_i,c - p_j,c)^2 / s, where c are the concepts that i or j selects for
        the token. It makes the same concept fire for the same token in every model, which nothing else in the loss asks for.
        The literature calls that concept consistency (CoSAE, arXiv 2606.09653); the term is our own. 0: there is none.
        Default: 0.03.
    agreement_on : "preactivations" or "codes"
        Whether the p are pre-activations, so that an encoder also learns where it should have selected a concept, or codes,
        which are 0 where a concept is not selected. Default: "preactivations".
    agreement_scale : float or None
        The fixed number s. None: the mean width of the models. Default: 100.0.
    agreement_start, agreement_full : float
        Shares of the run. The weight rises from 0 to `agreement` between them: dictionaries first settle on what each model
        needs. A run whose length is unknown has the whole weight from its first step. Default: 0.3 and 0.8.
    input_noise : float or None
        Standard deviation of the noise that is added in training to the standardised activations that encoders read; what has
        to be reconstructed has none. It keeps encoders from learning few independent tokens, such as the patches of a thousand
        photographs, by heart: with noise of variance v a linear map becomes a ridge regression with a penalty of v for each
        token (Bishop, 1995), and an encoder does much the same. 0: there is none. Default: None, which `UniversalSAE.fit`
        derives: 1.5 times the root of the penalty for each token with which ridge regressions between the models predict best
        rows that they were not fitted to, in a sample of blocks of rows, and 1 at most; 0 for one model alone, and in
        `partial_fit`.
    same_model_weight : float
        Weight of the encoded model's own reconstruction in the loss, where that of each other model is 1; all are then divided
        by their mean. More of it gives more R2 of the same model and less of other models. From 0.001 to 1000. Default: 1.0.

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
    outlier_multiple: float | None = 5.0
    renormalize: bool = True
    dictionary_epsilon: float = 1e-8
    aux: Literal["none", "unchosen", "dead"] = "dead"
    aux_k: int | None = None
    aux_every: int = 8
    aux_coefficient: float = 1 / 32
    aux_scale: Literal["none", "residual"] = "residual"
    aux_detach: bool = True
    dead_share: float = 0.05
    dead_tokens: int | None = None
    batch_size: int = 2048
    learning_rate: float | None = None
    step_limit: float | None = None
    warmup_learning_rate: float = 0.0
    final_learning_rate: float = 0.0
    warmup_steps: int = 100
    total_steps: int | None = None
    schedule: Literal["constant", "cosine", "linear"] = "linear"
    decay_share: float = 0.2
    clock: Literal["global", "model"] = "global"
    first_step_full: bool = False
    warmup_inclusive: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    prefixes: tuple[float, ...] | None = (0.25, 0.5, 0.75, 1.0)
    prefix_loss: Literal["mean", "drawn"] = "drawn"
    merge_cosine: float | None = 0.8
    merge_every: int = 50
    encoded_models: Literal["one", "two", "all"] = "two"
    agreement: float = 0.03
    agreement_on: Literal["preactivations", "codes"] = "preactivations"
    agreement_scale: float | None = 100.0
    agreement_start: float = 0.3
    agreement_full: float = 0.8
    dictionary_norm: Literal["unit", "bounded"] = "bounded"
    input_noise: float | None = None
    same_model_weight: float = 1.0

    def __post_init__(self) -> None:
        for field, kind in _KINDS.items():
            object.__setattr__(self, field, _checked(field, kind, getattr(self, field)))
        if self.total_steps is not None and self.warmup_steps > self.total_steps:
            raise InvalidInputError(
                f"recipe: warmup_steps must be at most total_steps = {self.total_steps}, got {self.warmup_steps}"
            )

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed. An unknown field raises InvalidInputError."""
        return Recipe.from_dict(self.to_dict() | changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Recipe:
        """Invert `to_dict`. Missing fields have their default; an unknown field raises InvalidInputError."""
        if not isinstance(fields, Mapping):
            raise InvalidInputError(f"fields must be a mapping of fields to values, got {type(fields).__name__}")
        for field in fields:
            if not isinstance(field, str) or field not in _KINDS:
                raise InvalidInputError(f"recipe: unknown field {checks.shown(field)}{checks.did_you_mean(field, _KINDS)}")
        return cls(**fields)

    def _repr_html_(self) -> str:
        """Return the fields as a table, for notebooks; those that differ from the default's are marked."""
        default = type(self)()
        rows = [
            [name, str(value), "" if value == getattr(default, name) else str(getattr(default, name))]
            for name, value in self.to_dict().items()
        ]
        return html.table("", ["field", "value", "in place of"], rows)

    def to_json(self) -> str:
        """Return the fields as the text of a JSON object."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Invert `to_json`. Text that is not such an object raises InvalidInputError."""
        if not isinstance(text, (str, bytes, bytearray)):
            raise InvalidInputError(
                f"text must be the text of a JSON object, got {type(text).__name__}; for a mapping use from_dict"
            )
        try:
            fields = checks.parsed_json(text)
        except ValueError as error:
            raise InvalidInputError(f"text must be a JSON object, got text that is not JSON: {error}") from None
        return cls.from_dict(fields)


def default(**changes: Any) -> Recipe:
    """Return the recommended recipe, with some fields changed."""
    return Recipe().replace(**changes)


def matryoshka(**changes: Any) -> Recipe:
    """Return the recipe with the mean loss over all prefixes in every step, with some fields changed.

    Compared with the default it finds as many shared concepts, more private concepts where these are hard to find, and leaves
    fewer concepts dead in short runs. A step takes more time and memory (docs/recipes.md).
    """
    return Recipe(name="matryoshka", prefix_loss="mean").replace(**changes)


def agreeing(**changes: Any) -> Recipe:
    """Return the recipe whose codes agree most from model to model, with some fields changed.

    The agreement term has ten times the default's weight. The same concept fires more often for the same token, and R2 of other
    models is as high or higher; R2 of the same model is lower, and concepts that only one model has are lost where these are
    hard to find (docs/recipes.md, "Codes that agree").
    """
    return Recipe(name="agreeing", agreement=0.3).replace(**changes)


def published(*, total_steps: int | None = None, warmup_steps: int | None = None) -> Recipe:
    """Return the recipe of Thasarathan et al. (ICML 2025) as their code trains it, quirks included.

    Parameters
    ----------
    total_steps : int or None
        Number of steps of the run. Default: None, which takes theirs: 30 epochs of ImageNet, 1,201,110 steps of 6,272 tokens.
    warmup_steps : int or None
        Number of warm-up steps. Default: None, which takes one epoch of thirty; with their run 40,037 steps.

    Notes
    -----
    Each quirk can be switched off by a field:

    * Only the encoder and dictionary of the encoded model are updated (off: ``update="all"``).
    * A model's schedule advances only when the model is encoded, so that the learning rate never gets low (off:
      ``clock="global"``).
    * A model's very first step has the full rate (off: ``first_step_full=False``), and its warm-up is a step shorter (off:
      ``warmup_inclusive=False``).
    * AuxK takes half of all concepts that are not in the code, not only dead ones (off: ``aux="dead"``), and the residual is
      not a constant in its loss (off: ``aux_detach=True``).
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
        outlier_multiple=None,
        renormalize=False,
        aux="unchosen",
        aux_every=1,
        aux_coefficient=0.1,
        aux_scale="none",
        aux_detach=False,
        input_noise=0.0,
        batch_size=6272,
        learning_rate=3e-4,
        warmup_learning_rate=1e-6,
        final_learning_rate=1e-6,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        schedule="cosine",
        decay_share=1.0,
        clock="model",
        first_step_full=True,
        warmup_inclusive=True,
        weight_decay=1e-5,
        clip_norm=1.0,
        encoded_models="one",
        agreement=0.0,
        agreement_scale=None,
        dictionary_norm="unit",
    )


_KINDS: dict[str, Any] = get_type_hints(Recipe)

CORE_FIELDS = _usae.recipe_fields()
"""Choices and limits of the fields that the core has too, by name, as the core defines them."""

PYTHON_FIELDS = tuple(name for name in _KINDS if name not in CORE_FIELDS)
"""The other fields: the name, and those that are converted to numbers of tokens or steps for the core."""

# The smallest and the largest value of each number, and the fields that must not be 0. In the core, 0 stands for their None.
_RANGES: dict[str, tuple[float, float]] = {"dead_share": (0, 1), "batch_size": (1, 2**24)}
_RANGES |= {name: (field["smallest"], field["largest"]) for name, field in CORE_FIELDS.items()}
_NOT_ZERO = {"dead_share"} | {name for name, field in CORE_FIELDS.items() if field["zero_is_none"]}


def _checked(field: str, kind: Any, value: Any) -> Any:
    """Return `value` as a plain Python value of the field's kind. InvalidInputError if it is not of that kind."""
    if type(None) in get_args(kind):
        if value is None:
            return None
        kind = get_args(kind)[0]
    if kind is str:
        if not isinstance(value, str) or not checks.is_unicode(value):
            raise InvalidInputError(f"recipe: {field} must be text that can be saved as UTF-8, got {checks.shown(value)}")
        return str(value)
    if kind is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidInputError(f"recipe: {field} must be True or False, got {checks.shown(value)}")
        return bool(value)
    if get_origin(kind) is tuple:
        return _checked_shares(field, value)
    if kind in (int, float):
        return _checked_number(field, kind, value)
    if not isinstance(value, str) or value not in get_args(kind):
        hint = checks.did_you_mean(value, get_args(kind))
        raise InvalidInputError(f"recipe: {field} must be one of {', '.join(get_args(kind))}, got {checks.shown(value)}{hint}")
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
    raise InvalidInputError(f"recipe: {field} must be {what} {limits}, got {checks.shown(value)}")


def _checked_shares(field: str, value: Any) -> tuple[float, ...]:
    expected = f"at most {_usae.MOST_PREFIXES} shares, ascending from above 0 to 1"
    shares = tuple(checks.as_float(share) for share in checks.listed(value, f"recipe: {field}", expected))
    ascending = all(shorter < longer for shorter, longer in zip((0.0, *shares), shares, strict=False))
    if shares and ascending and shares[-1] == 1 and len(shares) <= _usae.MOST_PREFIXES:
        return shares
    raise InvalidInputError(f"recipe: {field} must be {expected}, got {checks.shown(value)}")
