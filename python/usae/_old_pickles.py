"""Module names of version 0.1, so that pickles written by that version still load.

A pickle stores the name of the module that defines each class and function. The modules of all public ones are listed.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

NEW_NAMES = {
    "usae._baselines": "usae.analysis.baselines",
    "usae._ceiling": "usae.synthetic._ceiling",
    "usae._checkpoints": "usae._estimator.checkpoints",
    "usae._codes": "usae._estimator.codes",
    "usae._config": "usae._base.config",
    "usae._consistency": "usae.analysis.consistency",
    "usae._controls": "usae.analysis.controls",
    "usae._errors": "usae.errors",
    "usae._evaluation": "usae.analysis.evaluation",
    "usae._examples": "usae.analysis.top_examples",
    "usae._fitted": "usae._core.reports",
    "usae._ground_truth": "usae.synthetic._ground_truth",
    "usae._image_models": "usae.maximization.image_models",
    "usae._latent_scaling": "usae.analysis.latent_scaling",
    "usae._maximization": "usae.maximization.result",
    "usae._maximization_plot": "usae.plot._maximization",
    "usae._maximize": "usae.maximization.maximize",
    "usae._maximizer": "usae.maximization.maximizer",
    "usae._npz": "usae.interop.published_caches",
    "usae._nulls": "usae.analysis.nulls",
    "usae._objective": "usae.maximization.objective",
    "usae._recovery": "usae.synthetic._recovery",
    "usae._sae": "usae._estimator.universal_sae",
    "usae._shared": "usae._training.shared_steps",
    "usae._store": "usae._data.store",
    "usae._stream": "usae._core.reports",
    "usae.published": "usae.interop.published",
    "usae.torch._layers": "usae.torch._layer_output",
}


class MovedModules:
    """Finder and loader of modules by their old names. It is last in `sys.meta_path`, so installed modules come first."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, MovedModules()) if name in NEW_NAMES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """None asks for an empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(NEW_NAMES[module.__name__])


def install() -> None:
    if not any(isinstance(finder, type) and finder.__name__ == MovedModules.__name__ for finder in sys.meta_path):
        sys.meta_path.append(MovedModules)
