"""A picture on which a transform is tried, so that what it does beside what it says is found too."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from usae.torch._preprocessing import Preprocessing, resized

TOLERANCE = 0.02
"""Mean difference, in 0..1, above which images are others. Rounding and other filters differ by less than half of it."""


def disagreement(given: Any, told: Preprocessing) -> float:
    """Return how far the images of a transform or image processor are from those that are made here of what it says.

    It is the mean difference of a picture's pixels, in 0..1; 0 if it is small, or if the two cannot be compared: that the
    transform takes no picture alone, for example.
    """
    given = getattr(given, "image_processor", given)
    cut, mean, std, size = told.cut, told.mean, told.std, told.size
    if not callable(given) or isinstance(given, Mapping) or mean is None or std is None or size is None or cut is None:
        return 0.0
    if cut.mode == "border":
        return 0.0
    try:
        with _kept_generators():
            theirs = _made_by(given)
        ours = resized(torch.from_numpy(_pixels()).permute(2, 0, 1) / 255, size, "own", told)
        if theirs.shape != ours.shape:
            return 0.0
        scale, shift = (torch.tensor(x, dtype=torch.float32)[:, None, None] for x in (std, mean))
        found = float((theirs * scale + shift - ours).abs().mean())
    except MemoryError:
        raise
    except Exception:  # of the transform's own code; it is only tried
        return 0.0
    return found if found > TOLERANCE else 0.0


def _made_by(given: Any) -> torch.Tensor:
    from PIL import Image

    picture = Image.fromarray(_pixels())
    made = given(picture, return_tensors="np")["pixel_values"] if hasattr(given, "image_mean") else given(picture)
    return torch.from_numpy(np.asarray(made, np.float32)).squeeze()


def _pixels() -> np.ndarray:
    """Return a smooth picture, uint8 [57, 90, 3], whose sides and colours differ."""
    y, x = np.mgrid[:57, :90]
    return np.stack([x * 2, y * 4, 100 + 80 * np.sin((x + 2 * y) / 25)], -1).astype(np.uint8)


@contextmanager
def _kept_generators() -> Iterator[None]:
    """Restore the states of generators of random numbers."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002  # a transform may draw from them
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])  # noqa: NPY002
