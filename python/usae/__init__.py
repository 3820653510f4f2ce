"""Universal sparse autoencoders: one sparse code for the activations of several models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usae import _usae, recipes, synthetic
from usae._codes import Codes
from usae._config import set_num_threads, show_config
from usae._errors import (
    CheckpointError,
    CheckpointFileError,
    InvalidInputError,
    NotInitializedError,
    UsaeError,
    UsaeMemoryError,
)
from usae._evaluation import Evaluation
from usae._fitted import Screening, StepReport
from usae._sae import UniversalSAE, load
from usae.recipes import Recipe

if TYPE_CHECKING:
    from usae.published import load_published

__version__ = _usae.version()

__all__ = [
    "CheckpointError",
    "CheckpointFileError",
    "Codes",
    "Evaluation",
    "InvalidInputError",
    "NotInitializedError",
    "Recipe",
    "Screening",
    "StepReport",
    "UniversalSAE",
    "UsaeError",
    "UsaeMemoryError",
    "__version__",
    "load",
    "load_published",
    "recipes",
    "set_num_threads",
    "show_config",
    "synthetic",
]


def __getattr__(name: str) -> Any:
    """What few programs need is imported when it is asked for."""
    if name == "load_published":
        from usae.published import load_published

        return load_published
    raise AttributeError(f"module 'usae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
