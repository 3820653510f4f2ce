"""Universal sparse autoencoders: one sparse code for the activations of several models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usae import _usae, recipes
from usae._checkpoints import Checkpoints
from usae._codes import Codes
from usae._config import set_num_threads, show_config
from usae._errors import (
    CheckpointError,
    CheckpointFileError,
    InvalidInputError,
    NotInitializedError,
    OtherProcessError,
    UsaeError,
    UsaeMemoryError,
)
from usae._evaluation import EnergyFit, Evaluation
from usae._examples import TopExamples, top_examples
from usae._fitted import Screening, StepReport
from usae._image_models import FunctionModel
from usae._maximizer import Maximizer
from usae._objective import objective
from usae._sae import UniversalSAE, load
from usae._stream import StreamReport
from usae.recipes import Recipe

if TYPE_CHECKING:
    from usae import plot, synthetic
    from usae._baselines import LinearBaseline, SeedCeiling, ShuffledPairing
    from usae._consistency import Consistency, Matching, consistency, fit_independent
    from usae._controls import Controls, controls
    from usae._latent_scaling import LatentScaling, latent_scaling
    from usae._maximization import Firing, Maximization
    from usae._maximize import maximize
    from usae._npz import import_published
    from usae._nulls import CofireNull
    from usae._store import ActivationStore
    from usae.published import load_published

__version__ = _usae.version()

__all__ = [
    "ActivationStore",
    "CheckpointError",
    "CheckpointFileError",
    "Checkpoints",
    "Codes",
    "CofireNull",
    "Consistency",
    "Controls",
    "EnergyFit",
    "Evaluation",
    "Firing",
    "FunctionModel",
    "InvalidInputError",
    "LatentScaling",
    "LinearBaseline",
    "Matching",
    "Maximization",
    "Maximizer",
    "NotInitializedError",
    "OtherProcessError",
    "Recipe",
    "Screening",
    "SeedCeiling",
    "ShuffledPairing",
    "StepReport",
    "StreamReport",
    "TopExamples",
    "UniversalSAE",
    "UsaeError",
    "UsaeMemoryError",
    "__version__",
    "consistency",
    "controls",
    "fit_independent",
    "import_published",
    "latent_scaling",
    "load",
    "load_published",
    "maximize",
    "objective",
    "plot",
    "recipes",
    "set_num_threads",
    "show_config",
    "synthetic",
    "top_examples",
    "torch",
]


_ON_DEMAND = {
    "ActivationStore": "usae._store",
    "import_published": "usae._npz",
    "load_published": "usae.published",
    "CofireNull": "usae._nulls",
    "Consistency": "usae._consistency",
    "Controls": "usae._controls",
    "Firing": "usae._maximization",
    "Maximization": "usae._maximization",
    "maximize": "usae._maximize",
    "LatentScaling": "usae._latent_scaling",
    "LinearBaseline": "usae._baselines",
    "Matching": "usae._consistency",
    "SeedCeiling": "usae._baselines",
    "ShuffledPairing": "usae._baselines",
    "consistency": "usae._consistency",
    "controls": "usae._controls",
    "fit_independent": "usae._consistency",
    "latent_scaling": "usae._latent_scaling",
}

_MODULES = ("plot", "synthetic", "torch")  # torch is not in the public list: `from usae import *` would hide the other


def __getattr__(name: str) -> Any:
    """What few programs need is imported when it is asked for."""
    import importlib

    if name in _ON_DEMAND:
        return getattr(importlib.import_module(_ON_DEMAND[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"usae.{name}")
    raise AttributeError(f"module 'usae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
