"""Errors that a network's own code raises, as errors that name the layer. They are kept as the causes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from usae.errors import InvalidInputError, UsaeError

OF_SHAPES = (RuntimeError, IndexError, AssertionError)
"""What PyTorch and networks raise for images of a size that they do not take."""


@contextmanager
def errors_of_forward(label: str, images: Tensor) -> Iterator[None]:
    """Turn what a network raises when it is given images into an InvalidInputError. `label` names the layer."""
    shape = list(images.shape)
    try:
        yield
    except Exception as error:
        if _passes(error):
            raise
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
        if _passes(error):
            raise
        raise InvalidInputError(
            f"{label} must depend on the images by differentiable operations, got {type(error).__name__}: {error}; choose an "
            f"earlier layer or correct that"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory, on a GPU or for the CPU, of which PyTorch tells by several types of errors."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and re.search("out of memory|allocate memory", str(error)) is not None


def _passes(error: Exception) -> bool:
    return isinstance(error, UsaeError) or is_out_of_memory(error)
