"""Errors that a network's own code raises, as errors that name the layer. They are kept as the causes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from usae.errors import InvalidInputError, UsaeError, UsaeMemoryError

OF_SHAPES = (RuntimeError, IndexError, AssertionError)
"""What PyTorch and networks raise for images of a size that they do not take."""


@contextmanager
def errors_of_forward(label: str, images: Tensor) -> Iterator[None]:
    """Turn what a network raises when it is given images into an InvalidInputError. `label` names the layer."""
    shape = list(images.shape)
    try:
        yield
    except Exception as error:
        pass_on(error, f"images {shape}, as computed up to {label},")
        if isinstance(error, OF_SHAPES) and not isinstance(error, RecursionError):
            raise InvalidInputError(
                f"images must be of a size that the network takes up to {label}, got {shape[2]} x {shape[3]} pixels: {error}; "
                f"is size=... right?"
            ) from error
        raise InvalidInputError(
            f"module must compute {label} from images {shape} alone, got {type(error).__name__}: {error}; correct it, or put "
            f"it into a module whose forward takes images"
        ) from error


@contextmanager
def errors_of_backward(label: str) -> Iterator[None]:
    """Turn what functions of the network's own, and operations without a derivative, raise into an InvalidInputError."""
    try:
        yield
    except Exception as error:
        pass_on(error, f"the gradient of {label}")
        raise InvalidInputError(
            f"{label} must depend on the images by differentiable operations, got {type(error).__name__}: {error}; choose an "
            f"earlier layer or correct that"
        ) from error


@contextmanager
def errors_of_memory(what: str) -> Iterator[None]:
    """Turn PyTorch's RuntimeError for memory that the CPU does not have into a UsaeMemoryError. `what` did not fit."""
    try:
        yield
    except RuntimeError as error:
        pass_on(error, what)
        raise


def pass_on(error: Exception, what: str) -> None:
    """Raise errors of this package, and such of memory, of which PyTorch tells by several types."""
    if isinstance(error, (UsaeError, MemoryError, torch.cuda.OutOfMemoryError)):
        raise error
    if isinstance(error, RuntimeError) and "out of memory" in str(error):  # on a GPU
        raise error
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):
        raise UsaeMemoryError(
            f"{what} must fit into memory, got {str(error).rpartition(': ')[2]}; take fewer images at a time, or smaller ones"
        ) from error
