"""A core together with its models: what `fit`, `initialize` and `load` make, and everything else works on."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from usae import _usae
from usae._base import checks
from usae._base.config import thread_count
from usae._core import resolved_recipe
from usae._data import shuffled_blocks
from usae._data.activations import Activations, are_stored, check_known
from usae._data.shuffle_buffer import StreamReport
from usae.analysis.evaluation import Evaluation
from usae.errors import InvalidInputError
from usae.recipes import Recipe

PARAMETERS = {
    "mean": _usae.MEAN,
    "scale": _usae.SCALE,
    "encoder_weight": _usae.ENCODER_WEIGHT,
    "encoder_bias": _usae.ENCODER_BIAS,
    "bn_weight": _usae.BN_WEIGHT,
    "bn_bias": _usae.BN_BIAS,
    "bn_running_mean": _usae.BN_RUNNING_MEAN,
    "bn_running_var": _usae.BN_RUNNING_VAR,
    "dictionary": _usae.DICTIONARY,
    "threshold": _usae.THRESHOLD,
}
TRAINED = ("encoder_weight", "encoder_bias", "bn_weight", "bn_bias", "dictionary")
INTEGERS = {"silent_tokens": _usae.SILENT_TOKENS, "counters": _usae.COUNTERS}

TENSORS = (
    PARAMETERS
    | {f"{name}_first_moment": PARAMETERS[name] + _usae.FIRST_MOMENT for name in TRAINED}
    | {f"{name}_second_moment": PARAMETERS[name] + _usae.SECOND_MOMENT for name in TRAINED}
    | {f"{name}_gradient": PARAMETERS[name] + _usae.GRADIENT for name in TRAINED}
    | INTEGERS
)
"""The core's number of each tensor of a model, by the name it has in Python and in files."""


class Screening(NamedTuple):
    """What screening with bytes left to do in a step; see "Screening" in docs/method.md."""

    tokens: int
    """Tokens whose pre-activations were estimated from bytes first."""
    candidates: int
    """Concepts that the estimates could not rule out, over all tokens."""
    computed: int
    """Pre-activations then computed in float32."""
    fallbacks: int
    """Tokens for which the estimates said nothing."""


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one training step did.

    Attributes
    ----------
    step : int
        Steps done, this one included.
    encoder : str
        The model that was encoded.
    loss : float
        The whole loss, auxiliary part included.
    auxiliary_loss : float
        Its auxiliary part, before the coefficient.
    l0 : float
        Mean number of active concepts in a token.
    learning_rate : float
        Of this step.
    gradient_norm : float
        Of the encoded model before clipping; NaN where the step does not need it.
    dead : int
        Concepts that were dead in the encoded model before this step.
    prefix : int
        Concepts that had to reconstruct: all, or the first of them where the recipe draws a prefix for each step; the losses
        are those of what they reconstruct.
    losses : dict of str to float
        Main loss of each decoded model.
    screening : Screening or None
        How the code was found. Not in `to_dict`: the code, and so the training, is the same either way.
    """

    step: int
    encoder: str
    loss: float
    auxiliary_loss: float
    l0: float
    learning_rate: float
    gradient_norm: float
    dead: int
    prefix: int
    losses: dict[str, float]
    screening: Screening | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as plain Python values, without `screening`."""
        values = dataclasses.asdict(self)
        del values["screening"]
        return values


class Fitted:
    """A core, the names and widths of its models, and what it was made with."""

    def __init__(self, params: Mapping[str, Any], recipe: Recipe, widths: Mapping[str, int]):
        """Checks `params` (the arguments of `UniversalSAE`); `recipe` is the resolved one."""
        self.n_concepts = checks.integer(params["n_concepts"], "n_concepts", 1, 2**24)
        self.k = checks.integer(params["k"], "k", 1, 2**24)
        if self.k > self.n_concepts:
            raise InvalidInputError(f"k must not exceed n_concepts = {self.n_concepts}, got {self.k}")
        self.seed = checks.integer(params["seed"], "seed", 0, 2**64 - 1)
        self.given_recipe: Recipe | None = params["recipe"]
        self.recipe = recipe
        self.widths = dict(widths)
        self.names = tuple(widths)
        self._entries: dict[int, dict[str, Any]] = {}  # of the history, by step: threads that share the object add each once
        self.lacks_training_state = False  # as it was loaded
        self.stream_report: StreamReport | None = None
        n_threads = thread_count(params["n_threads"], "n_threads")
        if recipe.selection == "batchtopk" and recipe.k_max is not None and recipe.k_max < self.k:
            raise InvalidInputError(f"recipe: k_max, the most of one token, must be at least k = {self.k}, got {recipe.k_max}")
        self.core = _usae.Core(self.n_concepts, self.k, self.seed, n_threads, resolved_recipe.for_core(recipe))

    def index(self, model: object, argument: str = "model") -> int:
        check_known(model, self.names, argument)
        return self.names.index(model)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Entries of `UniversalSAE.history_`, by step, with that of a step that Ctrl-C kept from being recorded."""
        self.record_last()
        return [entry for _, entry in sorted(self._entries.items(), key=operator.itemgetter(0))]

    @history.setter
    def history(self, history: list[dict[str, Any]]) -> None:
        self._entries = {entry["step"]: entry for entry in history}

    @property
    def optimizer_is_lost(self) -> bool:
        """Whether this was loaded without training state, and no step done since."""
        return self.lacks_training_state and self.core.last_report is None

    def step(self, acts: Mapping[str, Activations], rows: np.ndarray | None, encoder: int, gradients: bool) -> StepReport:
        """One step on some rows (None: all); encoder -1: drawn."""
        self.record_last()
        return self.report(self.core.step([x.native for x in acts.values()], rows, encoder, gradients))

    def report(self, report: Mapping[str, Any]) -> StepReport:
        """What the core says of a step, with the models' names."""
        screening = Screening(*report["screening"])
        named = {
            "encoder": self.names[report["encoder"]],
            "losses": dict(zip(self.names, report["losses"], strict=True)),
            "screening": screening if screening.tokens else None,
        }
        return StepReport(**{**report, **named})

    def record(self, report: StepReport) -> None:
        """Keep the report of each of the first 10,000 steps and of every hundredth after them."""
        if report.step <= 10_000 or report.step % 100 == 0:
            self._entry(report)

    def record_last(self) -> None:
        """Record the newest step, before another or before somebody looks, where Ctrl-C came before `record`."""
        last = self.core.last_report
        if last is not None and last["step"] not in self._entries:
            self.record(self.report(last))

    def _entry(self, report: StepReport) -> dict[str, Any]:
        """That of a step in the history. Where there is none it is made."""
        return self._entries.setdefault(report.step, report.to_dict())

    def record_validation(self, report: StepReport, acts: Mapping[str, Activations]) -> None:
        """Evaluate held-out activations into the history of the step that was just done."""
        evaluation = self.evaluate(acts, 0.0)
        self._entry(report)["validation"] = {
            "n_tokens": evaluation.n_tokens,
            "r2": evaluation.r2.tolist(),
            "l0": evaluation.l0.tolist(),
        }

    def evaluate(self, acts: Mapping[str, Activations], threshold: float) -> Evaluation:
        if are_stored(acts):
            from usae._core import evaluation_by_parts

            return evaluation_by_parts.evaluate(self, acts, threshold)
        n_models, pairs = len(self.names), (len(self.names), len(self.names))
        concepts = (n_models, self.n_concepts)
        outputs: dict[str, np.ndarray] = {
            "r2": np.empty(pairs),
            "r2_standardized": np.empty(pairs),
            "r2_scalar_mean": np.empty(pairs),
            "mse": np.empty(pairs),
            "l0": np.empty(n_models),
            "firing_counts": np.empty(concepts, np.int64),
            "pair_cofire_counts": np.empty((*pairs, self.n_concepts), np.int64),
            "cofire_counts": np.empty(self.n_concepts, np.int64),
            "union_counts": np.empty(self.n_concepts, np.int64),
            "mean_activation": np.empty(concepts),
            "max_activation": np.empty(concepts, np.float32),
            "code_products": np.empty((*pairs, self.n_concepts)),
        }
        self.core.evaluate([x.native for x in acts.values()], threshold, outputs)
        n_tokens = next(iter(acts.values())).n_tokens
        return Evaluation(model_names=self.names, n_tokens=n_tokens, threshold=threshold, **outputs)

    def initialize_from(self, acts: Mapping[str, Activations]) -> None:
        """Seed parameters, with standardisation and dictionaries from the activations; from a sample of those of a store."""
        if are_stored(acts):
            acts = shuffled_blocks.sample(acts, self.seed)
        self.core.initialize_from(list(acts), [x.native for x in acts.values()])

    def check_finite(self, acts: Mapping[str, Activations]) -> None:
        """Let the core look at every element and name the first that is NaN or infinite.

        A store has none, so it is enough that its files are as they were written.
        """
        if are_stored(acts):
            for x in acts.values():
                x.array.verify()  # type: ignore[union-attr]
        else:
            self.core.check_finite([x.native for x in acts.values()])

    def parameter_names(self) -> tuple[str, ...]:
        absent = set() if self.recipe.selection == "batchtopk" else {"threshold"}
        if self.recipe.encoder != "batchnorm":
            absent |= {name for name in PARAMETERS if name.startswith("bn_")}
        return tuple(name for name in PARAMETERS if name not in absent)

    def training_state_names(self) -> tuple[str, ...]:
        trained = [name for name in self.parameter_names() if name in TRAINED]
        moments = [f"{name}_{moment}_moment" for name in trained for moment in ("first", "second")]
        return (*moments, *INTEGERS)

    def shape(self, model: int, tensor: str) -> tuple[int, ...]:
        return tuple(self.core.tensor_shape(model, TENSORS[tensor]))

    def read(self, model: int, tensor: str) -> np.ndarray:
        out = np.empty(self.shape(model, tensor), np.int64 if tensor in INTEGERS else np.float32)
        self.core.tensor_read(model, TENSORS[tensor], out)
        return out

    def write(self, model: int, tensor: str, values: np.ndarray) -> None:
        self.core.tensor_write(model, TENSORS[tensor], values)
