"""The C extension: `usae.h` for Python, nothing more. Everything public is built on it in Python.

Arrays go in as objects with the buffer protocol. Activations are 2-D or 3-D (images, tokens, width) with float16, float32
or float64 elements and any strides, or a pair `(uint16 array, "bfloat16")`. Outputs are written into C-contiguous arrays
that the caller allocates. Errors of the core arrive as the classes of `usae.errors`, with the core's text unchanged.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import typing_extensions

Buffer = np.ndarray | typing_extensions.Buffer  # numpy says that its arrays are buffers only from Python 3.12 on

Activations = Buffer | tuple[Buffer, str]

class Core:
    def __init__(self, n_concepts: int, k: int, seed: int, n_threads: int, recipe: Mapping[str, Any]) -> None:
        """`recipe` has one entry for each of `recipe_fields`; a missing or unknown one is a TypeError. Choices are names; where
        "zero_is_none" is true, None is 0."""
    def initialize(self, names: Sequence[str], widths: Sequence[int]) -> None: ...
    def initialize_from(self, names: Sequence[str], inputs: Sequence[Activations]) -> None: ...
    def set_plan(self, total_steps: int, dead_tokens: int) -> None: ...
    def step(self, inputs: Sequence[Activations], rows: Buffer | None, encoder: int, gradients: bool) -> dict[str, Any]:
        """Keys: the fields of `usae_step_report`, those of screening as one tuple, and "losses": list by target model."""
    def shared_begin(self, inputs: Sequence[Activations], rows: Buffer | None, encoder: int) -> dict[str, int]:
        """Keys: "encoder", "step", "tokens", "fingerprint"."""
    def shared_agree(self, tokens: Buffer, rank: int) -> list[tuple[int, int, int, bool, int]]:
        """`tokens` int64 [n_processes]. Kind, model, tensor, whether its sum is awaited, and count of each exchange."""
    def shared_fill(self, number: int, out: Buffer) -> None: ...
    def shared_take(self, number: int, sum: Buffer) -> None: ...
    def shared_finish(self, sums: Sequence[Buffer | None]) -> dict[str, Any]:
        """As `step`."""
    def shared_abandon(self) -> None: ...
    def check_finite(self, inputs: Sequence[Activations]) -> None: ...
    def encode(self, model: int, x: Activations, values: Buffer, indices: Buffer) -> None: ...
    def decode(self, model: int, values: Buffer, indices: Buffer, out: Buffer) -> None: ...
    def preactivations(self, model: int, x: Activations, out: Buffer) -> None: ...
    def evaluate(self, inputs: Sequence[Activations], threshold: float, outputs: Mapping[str, Buffer]) -> None:
        """`outputs`: arrays by the names of `usae_evaluation`'s fields; those left out are not computed."""
    def top_examples(self, model: int, x: Activations, tokens_per_image: int, values: Buffer, tokens: Buffer) -> None: ...
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
    def tensor_read(self, model: int, tensor: int, out: Buffer) -> None: ...
    def tensor_write(self, model: int, tensor: int, data: Buffer) -> None: ...
    @property
    def n_concepts(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def names(self) -> tuple[str, ...]:
        """Like all of these it does not wait for a step that is under way; empty before the core has models."""
    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def recipe(self) -> dict[str, Any]:
        """As the constructor takes it, with what `set_plan` has changed since."""
    @property
    def step_count(self) -> int: ...
    @step_count.setter
    def step_count(self, value: int) -> None: ...
    @property
    def last_report(self) -> dict[str, Any] | None:
        """What the newest `step` that trained, or `shared_finish`, returned; None before the first, and after `step_count` was
        set or models were given. Ctrl-C may come when a step is done and what it returned is not in any variable yet."""

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
    """float32 [planes, height, width] to twice [planes, height, width // 2 + 1], as `numpy.fft.rfft2`. `n_threads` 0: the
    default."""

def irfft2(re: Buffer, im: Buffer, image: Buffer, n_threads: int) -> None:
    """The reverse, as `numpy.fft.irfft2` with `s=(height, width)`."""

class RecipeField(TypedDict):
    kind: Literal["choice", "switch", "count", "number", "shares"]
    choices: tuple[str, ...]
    zero_is_none: bool
    smallest: float
    largest: float

def recipe_fields() -> dict[str, RecipeField]:
    """What the core knows of each field of a recipe, in the order of `usae_recipe`."""

def recipe_preset(preset: int) -> dict[str, Any]:
    """A recipe that the core brings, as `Core.recipe` gives it."""

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
FIRST_MOMENT: int
SECOND_MOMENT: int
GRADIENT: int
SILENT_TOKENS: int
COUNTERS: int
