"""The core together with its models: `fit`, `initialize` and `load` make it, and everything else works on it."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from usae import _usae
from usae._base import checks
from usae._base.config import thread_count
from usae._core import resolved_recipe, standardization
from usae._core.reports import Screening, StepReport, StreamReport
from usae._core.standardization import StandardizationReport
from usae._core.tensors import EFFECTIVE_DIMENSIONS, INTEGERS, PARAMETERS, RESTS, TENSORS, TRAINED, is_finite
from usae._data import shuffled_blocks
from usae._data.activations import Activations, are_stored, batch_for_core, check_known, natives
from usae._data.columns import Columns, Label
from usae.errors import InvalidInputError
from usae.recipes import PYTHON_FIELDS, Recipe

LONGEST_WAIT = 5.0
"""Seconds for which a save waits for the thread that trains to record the step that it has just done."""


class Autoencoder:
    """An initialised autoencoder: its core, its history, and the fields of its recipe that the core does not have.

    The core has the sizes, the seed, the models and the rest of the recipe. Reading these never waits for a step. They may
    differ from the arguments of `UniversalSAE`, which a user may change for the next `fit`.
    """

    def __init__(self, params: Mapping[str, Any], recipe: Recipe):
        """Check `params`, the arguments of `UniversalSAE`, and make the core. `recipe` is the resolved recipe."""
        n_concepts = checks.integer(params["n_concepts"], "n_concepts", 1, 2**24)
        k: float  # only BatchTopK's is a mean
        if recipe.selection == "batchtopk":
            k = checks.mean_count(params["k"], "k", 1, 2**24)
        else:
            k = checks.integer(params["k"], "k", 1, 2**24, ' (a fractional mean needs recipe.selection="batchtopk")')
        if k > n_concepts:
            raise InvalidInputError(f"k must be at most n_concepts = {n_concepts}, got {k}")
        seed = checks.integer(params["seed"], "seed", 0, 2**64 - 1)
        self.given_recipe: Recipe | None = params["recipe"]  # not resolved; a save keeps it as the argument of `UniversalSAE`
        self._python_fields = {name: getattr(recipe, name) for name in PYTHON_FIELDS}
        self._entries: dict[int, dict[str, Any]] = {}  # history by step, so that threads sharing the object add each step once
        self.lacks_training_state = False  # True if it was loaded from a trained save without training state
        self._steps_under_way = 0
        self.stream_report: StreamReport | None = None
        self.standardization: dict[str, StandardizationReport] | None = None
        self.column_labels: dict[str, tuple[Label, ...]] = {}  # of models that were given as data frames or labelled arrays
        self.standardized_types: dict[str, str] = {}  # types of the arrays that mean and scale come from
        self.watch: object | None = None  # the `Watch` of its training
        self.frozen: frozenset[str] = frozenset()  # models that steps leave as they are
        self.is_watched = True  # False in all but one of the processes that train together
        self.rounding_shares: dict[tuple[str, str], float] = {}  # what `rounding.check` found, by model and type
        n_threads = thread_count(params["n_threads"], "n_threads")
        if recipe.selection == "batchtopk" and recipe.k_max is not None and recipe.k_max < k:
            raise InvalidInputError(f"recipe: k_max, the most of one token, must be at least k = {k}, got {recipe.k_max}")
        self.core = _usae.Core(n_concepts, k, seed, n_threads, resolved_recipe.for_core(recipe))

    @property
    def n_concepts(self) -> int:
        return self.core.n_concepts

    @property
    def k(self) -> float:
        """An int if it is a whole number, as it always is with TopK."""
        return self.core.k

    @property
    def whole_k(self) -> int:
        """The most concepts of a token where no threshold is known: `k`, rounded up."""
        return math.ceil(self.core.k)

    @property
    def seed(self) -> int:
        return self.core.seed

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return Recipe(**self._python_fields, **self.core.recipe)

    @property
    def names(self) -> tuple[str, ...]:
        return self.core.names

    @property
    def widths(self) -> dict[str, int]:
        return dict(zip(self.core.names, self.core.widths, strict=True))

    @property
    def columns(self) -> dict[str, Columns]:
        """What is known of the columns of each model: activations have to fit it."""
        return {name: self._columns(name, width) for name, width in self.widths.items()}

    def _columns(self, name: str, width: int) -> Columns:
        return Columns(width, self.column_labels.get(name), "training", f"sae.feature_names_in_[{name!r}]")

    def remember_columns(self, acts: Mapping[str, Activations]) -> None:
        """Remember the labels of columns that were trained on. They were compared with what is known."""
        for name, x in acts.items():
            if x.labels is not None and x.labels is not self.column_labels.get(name):
                labels = self._columns(name, x.width).adding(x.labels).labels or x.labels
                self.column_labels = self.column_labels | {name: labels}  # a new one, for threads that read the old one

    def index(self, model: object, argument: str = "model") -> int:
        names = self.names
        check_known(model, names, argument)
        return names.index(model)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Entries of `UniversalSAE.history_` in order, including a step that Ctrl-C kept from being recorded."""
        self.record_last()
        return [dict(entry) for _, entry in sorted(self._entries.items(), key=operator.itemgetter(0))]

    @history.setter
    def history(self, history: list[dict[str, Any]]) -> None:
        self._entries = {entry["step"]: entry for entry in history}

    @property
    def optimizer_is_lost(self) -> bool:
        """Whether this was loaded without training state and has done no step since."""
        return self.lacks_training_state and self.core.last_report is None

    def step(self, acts: Mapping[str, Activations], rows: np.ndarray | None, encoder: int) -> StepReport:
        """Do one step on the models of `acts`. `rows` None: all; `encoder` is the first to encode, and -1 draws it."""
        self.record_last()
        self._steps_under_way += 1
        try:
            report = self.recorded(self.core.step(*batch_for_core(acts, rows, self.names), encoder))
            self.remember_columns(acts)
            return report
        except InvalidInputError as error:  # perhaps because of what an earlier step has done
            self.check_parameters(error)
            raise
        finally:
            self._steps_under_way -= 1

    def wait_for_record(self, step: int) -> None:
        """Wait until a step that another thread has done, and whose tensors can be read already, is in the history too."""
        end = time.monotonic() + LONGEST_WAIT
        while self._steps_under_way and _is_recorded(step) and step not in self._entries and time.monotonic() < end:
            time.sleep(1e-3)

    def gradients(self, acts: Mapping[str, Activations], encoder: int) -> tuple[StepReport, dict[tuple[int, str], np.ndarray]]:
        """Compute the gradients of a step on all rows, by the number of the model and the name of the tensor."""
        of_encoder = [name for name in self.parameter_names() if name in TRAINED]
        present = np.array([name in acts for name in self.names], np.int32)
        encoders = self.core.encoders(encoder, present)
        stepped = np.flatnonzero(present).tolist() if self.recipe.update == "all" else encoders
        wanted = [(model, name) for model in stepped for name in (of_encoder if model in encoders else ["dictionary"])]
        memory = {(model, name): np.empty(self.shape(model, name), np.float32) for model, name in wanted}
        tensors = [(model, TENSORS[f"{name}_gradient"], array) for (model, name), array in memory.items()]
        return self.report(self.core.gradients(*batch_for_core(acts, None, self.names), encoder, tensors)), memory

    def report(self, report: Mapping[str, Any]) -> StepReport:
        """Convert the core's report of a step: numbers of models become names."""
        screening, names = Screening(*report["screening"]), self.names
        encoders, losses = report["encoders"], report["losses"]
        means = [sum(column) / len(encoders) for column in zip(*losses, strict=True)]
        named = {
            "encoder": names[encoders[0]],
            "losses": dict(zip(names, means, strict=True)),
            "encoders": tuple(names[model] for model in encoders),
            "own_losses": {names[model]: row[model] for model, row in zip(encoders, losses, strict=True)},
            "screening": screening if screening.tokens else None,
        }
        return StepReport(**{**report, **named})

    def recorded(self, core_report: Mapping[str, Any]) -> StepReport:
        """Convert the core's report of a step, and record it."""
        report = self.report(core_report)
        self.record(report)
        return report

    def record(self, report: StepReport) -> None:
        """Add a report to the history: of each of the first 10,000 steps, and of every hundredth after them."""
        if _is_recorded(report.step):
            self._entry(report)

    def record_last(self) -> None:
        """Record the newest step if Ctrl-C came before that. Called before the next step and before the history is read."""
        last = self.core.last_report
        if last is not None and last["step"] not in self._entries:
            self.record(self.report(last))

    def _entry(self, report: StepReport) -> dict[str, Any]:
        """Return the history's entry of a step, which is added if there is none."""
        if report.step not in self._entries:
            self._entries.setdefault(report.step, report.to_dict())
        return self._entries[report.step]

    def add_validation(self, report: StepReport, validation: dict[str, Any]) -> None:
        """Add an evaluation of held-out activations to the entry of the step that was just done."""
        self._entry(report)["validation"] = validation

    def initialize(self, widths: Mapping[str, int]) -> None:
        """Initialise the parameters without data."""
        self.core.initialize(list(widths), list(widths.values()))

    def initialize_from(self, *parts: Mapping[str, Activations]) -> None:
        """Initialise the parameters. Standardisation and dictionaries come from the activations, or a sample of a store's.

        Each part has some models, and all parts together all. A model's standardisation comes from its rows in all parts.
        """
        total = sum(next(iter(part.values())).n_tokens for part in parts)
        parts = tuple(
            shuffled_blocks.sample(part, self.seed, total, least=self.n_concepts) if are_stored(part) else part
            for part in parts
        )
        names = list(dict.fromkeys(name for part in parts for name in part))
        self.core.initialize_from_parts(names, [array for part in parts for array in natives(part, names)])
        rows = {name: [part[name] for part in parts if name in part] for name in names}
        self.standardization = standardization.reports(self, rows)
        self.standardized_types = {name: standardization.coarsest_type(own) for name, own in rows.items()}
        for part in parts:
            self.remember_columns(part)

    def freeze(self, names: Iterable[str]) -> None:
        """Let steps leave these models as they are, until `unfreeze`. It is not saved."""
        for name in names:
            self.core.set_frozen(self.index(name), 1)
            self.frozen |= {name}

    def unfreeze(self) -> None:
        """Let steps train all models again."""
        for name in self.frozen:
            self.core.set_frozen(self.index(name), 0)
        self.frozen = frozenset()

    def check_finite(self, acts: Mapping[str, Activations]) -> None:
        """Raise an error that names the first element that is NaN or infinite.

        A store refuses such elements when it is written, so for a store only the checksums of its files are compared.
        """
        if are_stored(acts):
            for x in acts.values():
                x.array.verify()  # type: ignore[union-attr]
        else:
            self.core.check_finite(natives(acts, self.names))

    def check_parameters(self, cause: BaseException | None = None) -> None:
        """Raise an error, because of `cause`, if an update has left parameters that are not finite. It reads all of them."""
        for model in range(len(self.names)):
            for name in self.parameter_names():
                arrays, steps = self.read_all([(model, name)])
                check_finite(self.names, [(model, name)], arrays, steps, cause)

    def parameter_names(self, rests: Container[str] | None = None) -> tuple[str, ...]:
        """Return the names of the parameters.

        `rests` says which of `RESTS` are among them. Default: None, which takes those that are not 0.
        """
        recipe = self.recipe
        absent = set() if recipe.selection == "batchtopk" else {"threshold", "threshold_rest"}
        absent |= {name for name in RESTS if not (self.has_rest(name) if rests is None else name in rests)}
        if recipe.encoder != "batchnorm":
            absent |= {name for name in PARAMETERS if name.startswith("bn_")}
        return tuple(name for name in PARAMETERS if name not in absent)

    def parameters(self, model: str) -> dict[str, np.ndarray]:
        """Return copies of a model's parameters by name, float32."""
        index, names = self.index(model), self.parameter_names()
        return dict(zip(names, self.read_all((index, name) for name in names)[0], strict=True))

    def has_rest(self, name: str) -> bool:
        """Whether one of `RESTS` is not 0: float32 cannot hold the mean of some model, or concepts have own thresholds."""
        if name == "threshold_rest" and self.recipe.selection != "batchtopk":
            return False
        return any(self.read(model, name).any() for model in range(len(self.names)))

    def exact_mean(self, model: int) -> np.ndarray:
        """Return the mean of a model's activations, float64."""
        return self.read(model, "mean").astype(float) + self.read(model, "mean_rest")

    def training_state_names(self) -> tuple[str, ...]:
        trained = [name for name in self.parameter_names() if name in TRAINED]
        moments = [f"{name}_{moment}_moment" for name in trained for moment in ("first", "second")]
        return (*moments, *INTEGERS, EFFECTIVE_DIMENSIONS)

    def shape(self, model: int, tensor: str) -> tuple[int, ...]:
        return tuple(self.core.tensor_shape(model, TENSORS[tensor]))

    def read(self, model: int, tensor: str) -> np.ndarray:
        return self.read_all([(model, tensor)])[0][0]

    def read_all(self, tensors: Iterable[tuple[int, str]]) -> tuple[list[np.ndarray], int]:
        """Return tensors, given by model and name, as they are at one moment, and the number of steps done then."""
        tensors = list(tensors)
        arrays = [np.empty(self.shape(model, name), np.int64 if name in INTEGERS else np.float32) for model, name in tensors]
        steps = self.core.tensors_read(
            [(model, TENSORS[name], array) for (model, name), array in zip(tensors, arrays, strict=True)]
        )
        return arrays, steps

    def write(self, model: int, tensor: str, values: np.ndarray) -> None:
        self.write_all({(model, tensor): values})

    def write_all(self, tensors: Mapping[tuple[int, str], np.ndarray]) -> None:
        """Replace tensors, given by model and name: all at one moment, or none if one cannot be used."""
        self.core.tensors_write([(model, TENSORS[name], array) for (model, name), array in tensors.items()])
        self.rounding_shares.clear()


def check_finite(
    models: Sequence[str],
    places: Iterable[tuple[int, str]],
    arrays: Iterable[np.ndarray],
    steps: int,
    cause: BaseException | None = None,
) -> None:
    """Refuse tensors, given by model and name, that are not finite after so many steps."""
    for (model, name), values in zip(places, arrays, strict=True):
        if not is_finite(name, values):
            raise InvalidInputError(
                f"recipe: learning_rate, weight_decay and epsilon must keep parameters finite, got NaN or infinity in {name} "
                f"of model {models[model]!r} after step {steps}; lower the first two, or raise epsilon, and train again"
            ) from cause


def _is_recorded(step: int) -> bool:
    """Whether the history has an entry of this step."""
    return step <= 10_000 or step % 100 == 0
