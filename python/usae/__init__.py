"""Universal sparse autoencoders: one sparse code for the activations of several models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usae import _usae, recipes
from usae._base.config import set_num_threads, show_config
from usae._core.fitted import Screening, StepReport
from usae._data.shuffle_buffer import StreamReport
from usae._estimator.checkpoints import Checkpoints
from usae._estimator.codes import Codes
from usae._estimator.universal_sae import UniversalSAE, load
from usae.analysis.evaluation import EnergyFit, Evaluation
from usae.analysis.top_examples import TopExamples, top_examples
from usae.errors import (
    CheckpointError,
    CheckpointFileError,
    InvalidInputError,
    NotInitializedError,
    OtherProcessError,
    UsaeError,
    UsaeMemoryError,
)
from usae.maximization.image_models import FunctionModel
from usae.maximization.maximizer import Maximizer
from usae.maximization.objective import objective
from usae.recipes import Recipe

if TYPE_CHECKING:
    from usae import plot, synthetic
    from usae._data.store import ActivationStore
    from usae.analysis.baselines import LinearBaseline, SeedCeiling, ShuffledPairing
    from usae.analysis.consistency import Consistency, Matching, consistency, fit_independent
    from usae.analysis.controls import Controls, controls
    from usae.analysis.latent_scaling import LatentScaling, latent_scaling
    from usae.analysis.nulls import CofireNull
    from usae.interop.published import load_published
    from usae.interop.published_caches import import_published
    from usae.maximization.maximize import maximize
    from usae.maximization.result import Firing, Maximization

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
    "ActivationStore": "usae._data.store",
    "import_published": "usae.interop.published_caches",
    "load_published": "usae.interop.published",
    "CofireNull": "usae.analysis.nulls",
    "Consistency": "usae.analysis.consistency",
    "Controls": "usae.analysis.controls",
    "Firing": "usae.maximization.result",
    "Maximization": "usae.maximization.result",
    "maximize": "usae.maximization.maximize",
    "LatentScaling": "usae.analysis.latent_scaling",
    "LinearBaseline": "usae.analysis.baselines",
    "Matching": "usae.analysis.consistency",
    "SeedCeiling": "usae.analysis.baselines",
    "ShuffledPairing": "usae.analysis.baselines",
    "consistency": "usae.analysis.consistency",
    "controls": "usae.analysis.controls",
    "fit_independent": "usae.analysis.consistency",
    "latent_scaling": "usae.analysis.latent_scaling",
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
