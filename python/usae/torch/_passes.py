"""One pass of a network for all of its layers that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from usae.torch import _layer_output
from usae.torch._autocast import using_autocast
from usae.torch._evaluation_mode import EvaluationMode
from usae.torch._layer_output import Grid
from usae.torch._network_errors import errors_of_forward
from usae.torch._threads import using_threads
from usae.torch._unmasked import Unmasked

if TYPE_CHECKING:
    from usae.torch._model import Model

Activations = tuple[Tensor, Grid | None]
"""Tokens, [n_images, tokens, width], and their grid."""


class Pass:
    """Layers of one network that take the same images, and whose activations one forward pass gives.

    Attributes
    ----------
    models : dict of str to Model
        The layers by the names of their models. Network, preprocessing, autocast and threads are the same for all.
    """

    def __init__(self, models: dict[str, Model]):
        self.models = models
        self._evaluation = EvaluationMode(self.first.module, " and ".join(model._label for model in models.values()))

    @property
    def first(self) -> Model:
        """One of the models, to ask for what is the same for all."""
        return next(iter(self.models.values()))

    def activations(self, images: Tensor) -> dict[str, Activations]:
        """Return each model's activations of images in 0..1, as `Model.activations` does."""
        normalized = self.first.normalized(images)
        if len(self.models) == 1:
            (name,) = self.models
            return {name: self.first.activations(normalized)}
        found = one_pass(list(self.models.values()), self._evaluation, self.first._as_input(normalized))
        for model, (tokens, _) in zip(self.models.values(), found, strict=True):
            model._check_finite(tokens)
        return dict(zip(self.models, found, strict=True))


def passes(models: dict[str, Model]) -> list[Pass]:
    """Group models such that each group needs one pass, in the order of their first names."""
    groups: dict[Any, dict[str, Model]] = {}
    for name, model in models.items():
        mean, std = model.known_scale
        runner = model._runner.network if isinstance(model._runner, Unmasked) else model._runner
        network = id(model.module), id(runner), model.autocast, model.threads
        groups.setdefault((*network, model.input_kind, mean.tobytes(), std.tobytes()), {})[name] = model
    return [Pass(group) for group in groups.values()]


def one_pass(models: Sequence[Model], evaluation: EvaluationMode, images: Tensor) -> list[Activations]:
    """Return the activations of models of one network, of images on its device."""
    grids: list[Grid | None] = []

    def tokens_of(some: Tensor) -> list[Tensor]:
        outputs = _outputs(models, some)
        size = some.shape[2], some.shape[3]
        read = [model._reader.read(output, len(some), size) for model, output in zip(models, outputs, strict=True)]
        if not grids:
            grids.extend(grid for _, grid in read)
        return [tokens for tokens, _ in read]

    with using_threads(models[0].threads):
        return list(zip(evaluation.checked(tokens_of, images), grids, strict=True))


def _outputs(models: Sequence[Model], images: Tensor) -> list[Any]:
    """Return the outputs of the models' layers."""
    first, labels = models[0], [model._label for model in models]
    with using_autocast(images.device, first.autocast), errors_of_forward(" and ".join(labels), images):
        return _layer_output.run_to(first._runner, [model._layer for model in models], labels, images)
