"""What activation maximization needs of a network: the size and scale of its images, activations and their gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from usae._base import checks
from usae.errors import InvalidInputError

Pull = Callable[[np.ndarray], np.ndarray]


class ImageModel(Protocol):
    """A network as `maximize` uses it; `usae.torch.Model` and `FunctionModel` are such models."""

    size: Any
    """Height and width of its images, in pixels."""
    mean: Any
    """Mean of each channel of images in 0..1. The network takes ``(image - mean) / std``."""
    std: Any
    """Standard deviation of each channel of images in 0..1."""

    def vjp(self, images: np.ndarray, /) -> tuple[np.ndarray, Pull]:
        """Return activations, [n, tokens, width], of images, [n, 3, height, width], and their vector-Jacobian product.

        The latter is a function from the gradient with respect to the activations to that with respect to the images.
        """
        ...


class FunctionModel:
    """A network as two functions of NumPy arrays, for frameworks other than PyTorch.

    Parameters
    ----------
    forward : callable
        Function from normalised images, float32 [n, 3, height, width], to activations, [n, tokens, width].
    vjp : callable
        Vector-Jacobian product: ``vjp(images, gradient)`` returns the gradient with respect to the images,
        [n, 3, height, width], for a gradient with respect to the activations, [n, tokens, width].
    size : int or (int, int)
        Height and width of the images, in pixels.
    mean, std : float or three floats
        Mean and standard deviation of each channel of images in 0..1. Default: 0.0 and 1.0.

    Raises
    ------
    InvalidInputError
        For an argument that cannot be used.

    Examples
    --------
    >>> model = usae.FunctionModel(jax_forward, lambda x, g: np.asarray(jax.vjp(jax_forward, x)[1](g)[0]), size=224)
    """

    def __init__(
        self,
        forward: Callable[[np.ndarray], Any],
        vjp: Callable[[np.ndarray, np.ndarray], Any],
        *,
        size: int | tuple[int, int],
        mean: Any = 0.0,
        std: Any = 1.0,
    ):
        for name, function in (("forward", forward), ("vjp", vjp)):
            if not callable(function):
                raise InvalidInputError(f"{name} must be a function, got {type(function).__name__}")
        self._forward, self._vjp = forward, vjp
        self.size = sides(size, "size")
        self.mean, self.std = three(mean, "mean"), deviations(std, "std")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return activations, [n, tokens, width], of images, [n, 3, height, width]."""
        found = self._forward(images)
        activations = _as_array(found, "forward")
        if activations.ndim != 3 or len(activations) != len(images) or activations.dtype.kind != "f":
            raise InvalidInputError(
                f"forward must give floats [{len(images)}, tokens, width], got {type(found).__name__} of shape "
                f"{list(activations.shape)}"
            )
        return activations

    def vjp(self, images: np.ndarray) -> tuple[np.ndarray, Pull]:
        """Return the activations, and the function from their gradient to that of the images."""
        return self(images), lambda gradient: _as_array(self._vjp(images, gradient), "vjp")

    def __repr__(self) -> str:
        return f"FunctionModel(size={self.size[0]}x{self.size[1]}, mean={self.mean}, std={self.std})"


def _as_array(found: Any, function: str) -> np.ndarray:
    """Return what a function gave as an array. What the function itself raises is the user's."""
    try:
        return np.asarray(found)
    except MemoryError:
        raise
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(f"{function} must give an array of NumPy, got {type(found).__name__}: {error}") from error


def as_image_models(models: object, argument: str = "models") -> dict[str, ImageModel]:
    """Return the models by name. PyTorch modules become `usae.torch.Model`. InvalidInputError for anything unsuitable."""
    if not isinstance(models, Mapping) or not models:
        raise InvalidInputError(f"{argument} must map names of models to networks, got {type(models).__name__}")
    return {name: _as_image_model(model, f"{argument}[{name!r}]") for name, model in models.items()}


def _as_image_model(model: Any, label: str) -> ImageModel:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from usae.torch import Model

        model = Model(model)
    missing = [name for name in ("size", "mean", "std", "vjp") if not _has(model, name)]
    if missing:
        raise InvalidInputError(
            f"{label} must be a usae.torch.Model, a PyTorch module or a usae.FunctionModel, got {type(model).__name__}, which "
            f"has no {missing[0]}"
        )
    check_input_known(model, label)
    return model


def _has(model: object, name: str) -> bool:
    try:
        return hasattr(model, name)
    except Exception:  # of the object's own method
        return False


def check_input_known(model: Any, label: str) -> None:
    """Refuse a model that does not tell the size and scale of its images, or whose images have no three colours."""
    if model.size is None:
        raise InvalidInputError(f"size of {label} must be known, got None; give it: usae.torch.Model(module, size=224)")
    for name in ("mean", "std"):
        if getattr(model, name) is None:
            raise InvalidInputError(
                f"{name} of {label} must be known, or images would be on another scale than those that it was trained on, got "
                f"None; give it: usae.torch.Model(module, mean=0.5, std=0.5), or preprocessing= its image processor"
            )
    getattr(model, "known_scale", None)  # of a `usae.torch.Model`, which warns if it is assumed
    if (channels := getattr(model, "channels", 3)) != 3:
        raise InvalidInputError(
            f"{label} must take images of 3 channels, got a network that takes {channels}; put a layer before it that makes "
            f"them from colours"
        )


def sides(value: Any, name: str) -> tuple[int, int]:
    """Return height and width. One number means a square."""
    try:
        pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    except Exception:  # of the value's own methods
        pair = ()
    if len(pair) != 2:
        raise InvalidInputError(f"{name} must be one number of pixels or height and width, got {checks.shown(value)}")
    height, width = (checks.integer(side, name, 1, 8192) for side in pair)
    return height, width


def three(value: Any, name: str) -> tuple[float, float, float]:
    """Return a number for each of three channels. One number means the same for all."""
    try:
        red, green, blue = np.broadcast_to(np.asarray(value, float), 3).tolist()
    except Exception as error:  # of NumPy, or of the value's own methods
        raise InvalidInputError(f"{name} must be a number or three, got {checks.shown(value)}") from error
    if not all(map(math.isfinite, (red, green, blue))):
        raise InvalidInputError(f"{name} must be finite, got {checks.shown(value)}")
    if max(red, green, blue) > 1:
        raise InvalidInputError(
            f"{name} must be of images in 0..1, so 1 at most, got {checks.shown(value)}; if it is of images in 0..255, divide "
            f"mean and std by 255"
        )
    return red, green, blue


def deviations(value: Any, name: str) -> tuple[float, float, float]:
    """Like `three`, for standard deviations, which must be above 0."""
    found = three(value, name)
    if min(found) <= 0:
        raise InvalidInputError(f"{name} must be above 0, got {checks.shown(value)}; it is of pixels between 0 and 1")
    return found
