"""Whether a network computes as in evaluation mode: the same for the same images, and without a trace in the network.

Parts that are known to differ in training mode are refused before anything runs. For all others the condition itself is
checked: random numbers that are drawn show in the states of the generators. Running statistics show in buffers, and anything
else in a comparison with evaluation mode; both are looked at once for a module that has parts in training mode.
"""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usae.errors import InvalidInputError

N_COMPARED = 2
"""Number of images that are computed again, or in evaluation mode too, where there is a reason for it."""


class EvaluationMode:
    """Runs a network, and refuses it unless it computes as in evaluation mode."""

    def __init__(self, module: nn.Module, label: str):
        self._module = module
        self._label = label
        self._agreed: frozenset[int] = frozenset()

    def checked(self, forward: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
        """Return ``forward(images)``, tensors whose first dimension is that of the images."""
        check_evaluating(self._module)
        training = [part for part in self._module.modules() if part.training]
        ids = frozenset(map(id, training))
        is_new = not ids <= self._agreed
        buffers = [_Buffer(part, name) for part in training for name in part._buffers] if is_new else []
        some = images[:N_COMPARED].detach().clone()  # before a network changes its images in place
        before = _generators(images.device)
        tokens = forward(images)
        if before != _generators(images.device):  # by this network or, meanwhile, by another thread
            with torch.no_grad():
                again = forward(some.clone())
            if not _all_alike(tokens, again):
                raise InvalidInputError(
                    f"module must give the same activations whenever it is given an image, got different ones at "
                    f"{self._label}: it draws random numbers, for example for dropout or a mask; call .eval() on it, or "
                    f"take that part out"
                )
        if is_new:
            if [buffer for buffer in buffers if buffer.was_changed_back()]:
                raise self._in_training(training, "changes its buffers")
            with torch.no_grad(), _evaluating(training):
                expected = forward(some)
            if not _all_alike(tokens, expected):
                raise self._in_training(training, "gives other activations")
            self._agreed |= ids
        return tokens

    def _in_training(self, training: list[nn.Module], what: str) -> InvalidInputError:
        kinds = ", ".join(sorted({type(part).__name__ for part in training})[:5])
        return InvalidInputError(
            f"module must be in evaluation mode, got {type(self._module).__name__} that {what} in training mode, in which "
            f"{len(training)} parts are ({kinds}); call .eval() on it"
        )


class _Buffer:
    """A buffer as it was."""

    def __init__(self, part: nn.Module, name: str):
        self._part, self._name = part, name
        self._tensor = part._buffers[name]
        self._copy = None if self._tensor is None else self._tensor.detach().clone()

    def was_changed_back(self) -> bool:
        """Return whether it was changed or replaced; it is as it was then."""
        now = self._part._buffers.get(self._name)
        if self._tensor is None or self._copy is None:
            return False  # what is made in the first call is a cache
        if now is not None and now.shape == self._copy.shape and torch.equal(now, self._copy):
            return False
        with torch.no_grad():
            self._tensor.copy_(self._copy)
        self._part._buffers[self._name] = self._tensor
        return True


def check_evaluating(module: nn.Module) -> None:
    """Refuse BatchNorm and dropout in training mode, which would be updated by the images or draw random numbers."""
    for name, part in module.named_modules():
        if part.training and _differs_in_training(part):
            raise InvalidInputError(
                f"module must be in evaluation mode, got {type(module).__name__} whose {name or 'whole'!r} "
                f"({type(part).__name__}) is in training mode; call .eval() on it"
            )


def _differs_in_training(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return True
    # Rates of dropout, stochastic depth (torchvision, timm and transformers) and attention (PyTorch and transformers).
    rates = (getattr(part, name, 0) for name in ("p", "drop_prob", "dropout", "attention_dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


@contextmanager
def _evaluating(parts: list[nn.Module]) -> Iterator[None]:
    """Put parts in evaluation mode for a moment. A single call of C changes all, so that Ctrl-C never comes between two."""
    attributes = [vars(part) for part in parts]
    try:
        deque(map(operator.setitem, attributes, repeat("training"), repeat(False)), maxlen=0)
        yield
    finally:
        deque(map(operator.setitem, attributes, repeat("training"), repeat(True)), maxlen=0)


def _generators(device: torch.device) -> tuple[Any, ...]:
    """Return the states of the generators that a network may draw from."""
    numbers: Any = np.random.get_state(legacy=False)["state"]  # noqa: NPY002  # only looked at
    of_numpy = [x.tobytes() if isinstance(x, np.ndarray) else x for x in numbers.values()]
    states = [torch.get_rng_state().numpy().tobytes(), *of_numpy, random.getstate()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    return tuple(states)


def _all_alike(tokens: list[Tensor], again: list[Tensor]) -> bool:
    return all(_alike(one[:N_COMPARED], other) for one, other in zip(tokens, again, strict=True))


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two results are equal up to rounding: kernels differ between modes, and on GPUs between calls."""
    if one.shape != other.shape:
        return False
    one, other = one.detach().float(), other.detach().float()
    if not (one.isfinite().all() and other.isfinite().all()):
        return True  # an error of its own, which names the layer
    return bool((one - other).abs().max() <= 0.02 * one.abs().max())
