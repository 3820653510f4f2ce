"""Universal sparse autoencoders: one sparse code for the activations of several models.

This module lists the public names. Each is imported when it is first accessed, so that ``import usae`` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usae import _old_pickles, _usae

if TYPE_CHECKING:
    from usae import demo, errors, plot, recipes, synthetic
    from usae._base.config import set_num_threads, show_config
    from usae._core.reports import Screening, StepReport, StreamReport
    from usae._core.standardization import StandardizationReport
    from usae._data.activations import MaskedActivations
    from usae._data.store import ActivationStore
    from usae._data.text_activations import DroppedTokens, TextActivations
    from usae._data.text_rows import TextContext, TextRows
    from usae._data.token_alignment import TokenAlignment, align_tokens
    from usae._data.weakly_paired import WeaklyPaired
    from usae._estimator.checkpoints import Checkpoints
    from usae._estimator.codes import Codes
    from usae._estimator.universal_sae import UniversalSAE, load
    from usae._exchange.exporting import Export
    from usae._explorer.labels import Label, Labels, read_labels
    from usae._explorer.make import explorer
    from usae._explorer.result import Explorer
    from usae.analysis.agreement import AgreementCeiling
    from usae.analysis.baselines import LinearBaseline, SeedCeiling, ShuffledPairing
    from usae.analysis.consistency import Consistency, Matching, consistency, fit_independent
    from usae.analysis.controls import Controls, controls
    from usae.analysis.evaluation import EnergyFit, Evaluation
    from usae.analysis.label_scores import LabelScores
    from usae.analysis.latent_scaling import LatentScaling, latent_scaling
    from usae.analysis.nulls import CofireNull
    from usae.analysis.outlying_rows import outlying_rows
    from usae.analysis.partners import Partners
    from usae.analysis.top_examples import TopExamples, top_examples
    from usae.analysis.vision_measures import VisionMeasures
    from usae.errors import (
        CheckpointError,
        CheckpointFileError,
        InvalidInputError,
        NotInitializedError,
        OtherProcessError,
        UsaeError,
        UsaeMemoryError,
    )
    from usae.interop.importing import import_sae
    from usae.interop.published import load_published
    from usae.interop.published_caches import import_published
    from usae.maximization.image_models import FunctionModel
    from usae.maximization.maximize import maximize
    from usae.maximization.maximizer import Maximizer
    from usae.maximization.objective import objective
    from usae.maximization.result import Firing, Maximization
    from usae.recipes import Recipe

__version__ = _usae.version()

_old_pickles.install()

_MODULE_OF = {
    "ActivationStore": "_data.store",
    "AgreementCeiling": "analysis.agreement",
    "CheckpointError": "errors",
    "CheckpointFileError": "errors",
    "Checkpoints": "_estimator.checkpoints",
    "Codes": "_estimator.codes",
    "CofireNull": "analysis.nulls",
    "Consistency": "analysis.consistency",
    "Controls": "analysis.controls",
    "DroppedTokens": "_data.text_activations",
    "EnergyFit": "analysis.evaluation",
    "Evaluation": "analysis.evaluation",
    "Explorer": "_explorer.result",
    "Export": "_exchange.exporting",
    "Firing": "maximization.result",
    "FunctionModel": "maximization.image_models",
    "InvalidInputError": "errors",
    "Label": "_explorer.labels",
    "LabelScores": "analysis.label_scores",
    "Labels": "_explorer.labels",
    "LatentScaling": "analysis.latent_scaling",
    "LinearBaseline": "analysis.baselines",
    "MaskedActivations": "_data.activations",
    "Matching": "analysis.consistency",
    "Maximization": "maximization.result",
    "Maximizer": "maximization.maximizer",
    "NotInitializedError": "errors",
    "OtherProcessError": "errors",
    "Partners": "analysis.partners",
    "Recipe": "recipes",
    "Screening": "_core.reports",
    "SeedCeiling": "analysis.baselines",
    "ShuffledPairing": "analysis.baselines",
    "StandardizationReport": "_core.standardization",
    "StepReport": "_core.reports",
    "StreamReport": "_core.reports",
    "TextActivations": "_data.text_activations",
    "TextContext": "_data.text_rows",
    "TextRows": "_data.text_rows",
    "TokenAlignment": "_data.token_alignment",
    "TopExamples": "analysis.top_examples",
    "UniversalSAE": "_estimator.universal_sae",
    "UsaeError": "errors",
    "UsaeMemoryError": "errors",
    "VisionMeasures": "analysis.vision_measures",
    "WeaklyPaired": "_data.weakly_paired",
    "align_tokens": "_data.token_alignment",
    "consistency": "analysis.consistency",
    "controls": "analysis.controls",
    "explorer": "_explorer.make",
    "fit_independent": "analysis.consistency",
    "import_published": "interop.published_caches",
    "import_sae": "interop.importing",
    "latent_scaling": "analysis.latent_scaling",
    "load": "_estimator.universal_sae",
    "load_published": "interop.published",
    "maximize": "maximization.maximize",
    "objective": "maximization.objective",
    "outlying_rows": "analysis.outlying_rows",
    "read_labels": "_explorer.labels",
    "set_num_threads": "_base.config",
    "show_config": "_base.config",
    "top_examples": "analysis.top_examples",
}

_PUBLIC_MODULES = ("demo", "errors", "plot", "recipes", "synthetic", "torch")

# The module torch is not listed, because `from usae import *` would shadow the name `torch`.
__all__ = [
    "ActivationStore",
    "AgreementCeiling",
    "CheckpointError",
    "CheckpointFileError",
    "Checkpoints",
    "Codes",
    "CofireNull",
    "Consistency",
    "Controls",
    "DroppedTokens",
    "EnergyFit",
    "Evaluation",
    "Explorer",
    "Export",
    "Firing",
    "FunctionModel",
    "InvalidInputError",
    "Label",
    "LabelScores",
    "Labels",
    "LatentScaling",
    "LinearBaseline",
    "MaskedActivations",
    "Matching",
    "Maximization",
    "Maximizer",
    "NotInitializedError",
    "OtherProcessError",
    "Partners",
    "Recipe",
    "Screening",
    "SeedCeiling",
    "ShuffledPairing",
    "StandardizationReport",
    "StepReport",
    "StreamReport",
    "TextActivations",
    "TextContext",
    "TextRows",
    "TokenAlignment",
    "TopExamples",
    "UniversalSAE",
    "UsaeError",
    "UsaeMemoryError",
    "VisionMeasures",
    "WeaklyPaired",
    "__version__",
    "align_tokens",
    "consistency",
    "controls",
    "demo",
    "errors",
    "explorer",
    "fit_independent",
    "import_published",
    "import_sae",
    "latent_scaling",
    "load",
    "load_published",
    "maximize",
    "objective",
    "outlying_rows",
    "plot",
    "read_labels",
    "recipes",
    "set_num_threads",
    "show_config",
    "synthetic",
    "top_examples",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"usae.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # so that the next access costs nothing
        return value
    if name in _PUBLIC_MODULES:
        return importlib.import_module(f"usae.{name}")
    raise AttributeError(f"module 'usae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PUBLIC_MODULES})
