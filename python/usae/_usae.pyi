"""The C extension, which makes the functions of `usae.h` available in Python. The public interface is written in Python.

Array arguments are objects with the buffer protocol. Activations are 2-D or 3-D (images, tokens, width) with float16, float32
or float64 elements and any strides, or a pair `(uint16 array, "bfloat16")`. A pair of such activations and an int64 array has
only the rows with these increasing numbers; the others are never read, and errors number rows as in the array. Outputs are
written to C-contiguous arrays that the caller allocates. Errors of the core are raised as the classes of `usae.errors`, with
the core's message unchanged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import typing_extensions

Buffer = np.ndarray | typing_extensions.Buffer  # NumPy's stubs declare arrays as buffers only from Python 3.12 on

Activations = Buffer | tuple[Buffer, str] | tuple[Buffer | tuple[Buffer, str], Buffer]

class Core:
    def __init__(self, n_concepts: int, k: float, seed: int, n_threads: int, recipe: Mapping[str, Any]) -> None:
        """`recipe` has one entry for each of `recipe_fields`. A missing or unknown entry raises TypeError. Choices are names.
        If "zero_is_none" is true, None stands for 0."""
    def initialize(self, names: Sequence[str], widths: Sequence[int]) -> None: ...
    def initialize_from_parts(self, names: Sequence[str], inputs: Sequence[Activations | None]) -> None:
        """The same, with standardisation and dictionaries from a part of the data, or several. `inputs` are by part and model,
        part after part; None for models that a part lacks."""
    def describe_sample(self, model: int, center: Buffer, deviation: Buffer) -> tuple[int, int, int, int, float, float] | None:
        """Returns the numbers of `usae_sample` in its order, and writes its arrays, float64 [width]. None: no sample."""
    def set_plan(self, total_steps: int, dead_tokens: int) -> None: ...
    def set_frozen(self, model: int, frozen: int) -> None:
        """Says whether steps leave a model as it is: 1, or 0. It is not saved."""
    def encoders(self, encoder: int, present: Buffer) -> list[int]:
        """Returns the numbers of the models that the next step encodes. `encoder` is the first; -1 draws it. `present` is int32
        [n_models]: 1 for the models that its batch has, else 0."""
    def step(self, inputs: Sequence[Activations | None], rows: Buffer | None, encoder: int) -> dict[str, Any]:
        """Returns the fields of `usae_step_report`, with those of screening as one tuple and the numbers of the encoded models
        as "encoders", and "losses", a list for each encoded model by decoded model. An input that is None says that the batch
        lacks the model, whose losses are NaN."""
    def gradients(
        self,
        inputs: Sequence[Activations | None],
        rows: Buffer | None,
        encoder: int,
        tensors: Sequence[tuple[int, int, Buffer]],
    ) -> dict[str, Any]:
        """Returns the same as `step`, which is not done, and copies its gradients out as `tensors_read` does."""
    def shared_begin(self, inputs: Sequence[Activations | None], rows: Buffer | None, encoder: int) -> dict[str, int]:
        """Returns the fields of `usae_shared_opening`: "encoder", "step", "tokens", "fingerprint" and "present"."""
    def shared_agree(self, tokens: Buffer, rank: int) -> list[tuple[int, int, int, bool, int]]:
        """`tokens` is int64 [n_processes]. Returns for each exchange its kind, model, tensor, whether the sum has to be taken
        before the next exchange, and the number of elements."""
    def shared_fill(self, number: int, out: Buffer) -> None: ...
    def shared_take(self, number: int, sum: Buffer) -> None: ...
    def shared_finish(self, sums: Sequence[Buffer | None]) -> dict[str, Any]:
        """Returns the same as `step`."""
    def shared_abandon(self) -> None: ...
    def check_finite(self, inputs: Sequence[Activations | None]) -> None: ...
    def encode(self, model: int, x: Activations, values: Buffer, indices: Buffer) -> None: ...
    def decode(self, model: int, values: Buffer, indices: Buffer, out: Buffer) -> None: ...
    def preactivations(self, model: int, x: Activations, out: Buffer) -> None: ...
    def evaluate(
        self,
        inputs: Sequence[Activations],
        threshold: float,
        outputs: Mapping[str, Buffer],
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """`outputs` has arrays by the names of `usae_evaluation`'s fields. Fields that are not in it are not computed.
        `progress` is called with the number of rows that are done, after each part of them; what it raises ends the call. It
        must not call what waits for this object."""
    def top_examples(
        self,
        model: int,
        x: Activations,
        tokens_per_image: int,
        values: Buffer,
        tokens: Buffer,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        """`progress` is as of `evaluate`."""
    def objective(
        self,
        model: int,
        concept: int,
        objective: int,
        power: float,
        token: int,
        n_views: int,
        x: Activations,
        values: Buffer,
        gradient: Buffer,
    ) -> None: ...
    def tensor_shape(self, model: int, tensor: int) -> tuple[int, ...]: ...
    def tensors_read(self, tensors: Sequence[tuple[int, int, Buffer]]) -> int:
        """`tensors` are model, tensor and output. Copies them as they are at one moment, and returns the steps done then."""
    def tensors_write(self, tensors: Sequence[tuple[int, int, Buffer]]) -> None: ...
    @property
    def n_concepts(self) -> int: ...
    @property
    def k(self) -> float:
        """An int if it is a whole number."""
    @property
    def slots(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models; empty before there are any. No property of the core waits for a step in another thread."""
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe in the form that the constructor takes, with the changes of `set_plan`."""
    @property
    def step_count(self) -> int: ...
    @step_count.setter
    def step_count(self, value: int) -> None: ...
    @property
    def last_report(self) -> dict[str, Any] | None:
        """The result of the newest training `step` or `shared_finish`. None before the first one, and after `step_count` was
        set or the models were initialised. It is kept because Ctrl-C may come before a step's result is in a variable."""

class Maximizer:
    def __init__(
        self,
        parametrization: int,
        optimizer: int,
        height: int,
        width: int,
        steps: int,
        views: int,
        learning_rate: float,
        first_crop: float,
        last_crop: float,
        noise: float,
        total_variation: float,
        l2: float,
        contrast: float,
        decorrelate: bool,
        seed: int,
        n_threads: int,
        magnitude: Buffer | None,
        start: Buffer | None,
    ) -> None: ...
    def views(self, out: Buffer, mean: Sequence[float], std: Sequence[float]) -> None: ...
    def add_gradient(self, gradient: Buffer, mean: Sequence[float], std: Sequence[float], weight: float) -> float: ...
    def advance(self) -> None: ...
    def image(self, out: Buffer) -> None: ...
    def attribution(self, out: Buffer) -> None: ...
    def boxes(self, out: Buffer) -> None: ...
    def gradients(self, colours: Buffer, planes: Buffer) -> None: ...
    @property
    def step_count(self) -> int: ...

def crop_resize(
    image: Buffer, boxes: Buffer, out: Buffer, mean: Sequence[float], std: Sequence[float], n_threads: int
) -> None: ...
def shuffled_rows(seed: int, n_rows: int, position: int, out: Buffer) -> None: ...
def rfft2(image: Buffer, re: Buffer, im: Buffer, n_threads: int) -> None:
    """Transforms `image`, float32 [planes, height, width], to `re` and `im`, each [planes, height, width // 2 + 1], as
    `numpy.fft.rfft2`. `n_threads` 0 means the default."""

def irfft2(re: Buffer, im: Buffer, image: Buffer, n_threads: int) -> None:
    """Inverts `rfft2`, as `numpy.fft.irfft2` with `s=(height, width)`."""

class RecipeField(TypedDict):
    kind: Literal["choice", "switch", "count", "number", "shares"]
    choices: tuple[str, ...]
    zero_is_none: bool
    smallest: float
    largest: float

def recipe_fields() -> dict[str, RecipeField]:
    """Returns kind, choices and limits of each field of a recipe, in the order of `usae_recipe`."""

def recipe_preset(preset: int) -> dict[str, Any]:
    """Returns a preset recipe of the core, in the form of `Core.recipe`."""

def set_threads(n_threads: int) -> None: ...
def threads() -> int: ...
def kernels() -> str: ...
def blas() -> str: ...
def version() -> str: ...

# Enumerators of usae.h, without prefix.
MOST_PREFIXES: int
PRESET_DEFAULT: int
PRESET_PUBLISHED: int
IMAGE_PHASE: int
IMAGE_SPECTRUM: int
IMAGE_PIXELS: int
ASCENT_NADAM: int
ASCENT_ADAM: int
OBJECTIVE_ALIGNMENT: int
OBJECTIVE_PREACTIVATION: int
OBJECTIVE_CODE: int
OBJECTIVE_LOG_SUM_EXP: int
EXCHANGE_MEANS: int
EXCHANGE_COVARIANCE: int
EXCHANGE_RESIDUAL_MEANS: int
EXCHANGE_SPREADS: int
EXCHANGE_RESTARTS: int
EXCHANGE_GRADIENT: int
EXCHANGE_SUMMARY: int
EXCHANGE_UPPER_HALVES: int
EXCHANGE_LOWER_HALVES: int
EXCHANGE_TIES: int
MEAN: int
SCALE: int
ENCODER_WEIGHT: int
ENCODER_BIAS: int
BN_WEIGHT: int
BN_BIAS: int
BN_RUNNING_MEAN: int
BN_RUNNING_VAR: int
DICTIONARY: int
THRESHOLD: int
MEAN_REST: int
THRESHOLD_REST: int
EFFECTIVE_DIMENSIONS: int
FIRST_MOMENT: int
SECOND_MOMENT: int
GRADIENT: int
SILENT_TOKENS: int
COUNTERS: int
