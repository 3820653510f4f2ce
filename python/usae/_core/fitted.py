"""A core together with its models: what `fit`, `initialize` and `load` make, and everything else works on."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from usae import _usae
from usae._base import checks
from usae._base.config import thread_count
from usae._core import resolved_recipe
from usae._core.reports import Screening, StepReport, StreamReport
from usae._core.tensors import INTEGERS, PARAMETERS, TENSORS, TRAINED
from usae._data import shuffled_blocks
from usae._data.activations import Activations, are_stored, check_known
from usae.errors import InvalidInputError
from usae.recipes import PYTHON_FIELDS, Recipe


class Fitted:
    """A core, and what the core does not know: history, and the fields of the recipe that are for Python alone.

    Sizes, seed, models and the rest of the recipe are the core's, which is asked for them each time; it never waits then. The
    arguments of `UniversalSAE` are another thing: they are what was asked for, and count for the next `fit`.
    """

    def __init__(self, params: Mapping[str, Any], recipe: Recipe):
        """Checks `params` (the arguments of `UniversalSAE`); `recipe` is the resolved one."""
        n_concepts = checks.integer(params["n_concepts"], "n_concepts", 1, 2**24)
        k = checks.integer(params["k"], "k", 1, 2**24)
        if k > n_concepts:
            raise InvalidInputError(f"k must not exceed n_concepts = {n_concepts}, got {k}")
        seed = checks.integer(params["seed"], "seed", 0, 2**64 - 1)
        self.given_recipe: Recipe | None = params["recipe"]  # before it was resolved: the argument of one that is loaded
        self._python_fields = {name: getattr(recipe, name) for name in PYTHON_FIELDS}
        self._entries: dict[int, dict[str, Any]] = {}  # of the history, by step: threads that share the object add each once
        self.lacks_training_state = False  # as it was loaded
        self.stream_report: StreamReport | None = None
        n_threads = thread_count(params["n_threads"], "n_threads")
        if recipe.selection == "batchtopk" and recipe.k_max is not None and recipe.k_max < k:
            raise InvalidInputError(f"recipe: k_max, the most of one token, must be at least k = {k}, got {recipe.k_max}")
        self.core = _usae.Core(n_concepts, k, seed, n_threads, resolved_recipe.for_core(recipe))

    @property
    def n_concepts(self) -> int:
        return self.core.n_concepts

    @property
    def k(self) -> int:
        return self.core.k

    @property
    def seed(self) -> int:
        return self.core.seed

    @property
    def recipe(self) -> Recipe:
        """The resolved one."""
        return Recipe(**self._python_fields, **self.core.recipe)

    @property
    def names(self) -> tuple[str, ...]:
        return self.core.names

    @property
    def widths(self) -> dict[str, int]:
        return dict(zip(self.core.names, self.core.widths, strict=True))

    def index(self, model: object, argument: str = "model") -> int:
        names = self.names
        check_known(model, names, argument)
        return names.index(model)

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
        screening, names = Screening(*report["screening"]), self.names
        named = {
            "encoder": names[report["encoder"]],
            "losses": dict(zip(names, report["losses"], strict=True)),
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

    def add_validation(self, report: StepReport, validation: dict[str, Any]) -> None:
        """Put an evaluation of held-out activations beside the report of the step that was just done."""
        self._entry(report)["validation"] = validation

    def initialize(self, widths: Mapping[str, int]) -> None:
        """Seed parameters without data."""
        self.core.initialize(list(widths), list(widths.values()))

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
        recipe = self.recipe
        absent = set() if recipe.selection == "batchtopk" else {"threshold"}
        if recipe.encoder != "batchnorm":
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
