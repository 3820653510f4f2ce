"""What the steps of a transform of torchvision, timm or open_clip say of how a network's images are made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from usae.torch._preprocessing import Cut, Pair, Preprocessing
from usae.torch._readings import Unreadable, as_sides, name_of_filter, numbers_of

RANDOM = re.compile(
    r"^_?[Rr]and|Augment|AugMix|Jitter|(?<!De)Noise|Mix[uU]p|CutMix|Elastic|Erasing|Dropout|Shuffle|OneOf|SomeOf|OneOrOther"
)
"""What occurs in the names of steps that draw random numbers."""

DEEPEST = 32
"""Levels of transforms within transforms."""

Scale = tuple[list[float], list[float]]


def steps_within(step: Any) -> list[Any] | None:
    """Return the steps of a transform that applies them one after the other; None for any other object."""
    if isinstance(step, nn.Sequential):
        return list(step)
    within = getattr(step, "transforms", None)
    return list(within) if isinstance(within, (list, tuple, nn.ModuleList)) else None


def flat(step: Any, depth: int = 0) -> Iterator[Any]:
    """Yield a step, or the steps within it, at any depth. None of them may be random."""
    if depth > DEEPEST:
        raise Unreadable("it holds transforms within transforms without end")
    if _is_random(step):
        raise _random(_name_of(step))
    within = steps_within(step)
    if within is None:
        yield step
        return
    for inner in within:
        yield from flat(inner, depth + 1)


def _random(name: str) -> Unreadable:
    return Unreadable(
        f"its step {name} draws random numbers, so images would differ each time they are made; give the transform with which "
        f"the network is evaluated"
    )


def _is_random(step: Any) -> bool:
    if any(map(RANDOM.search, [_name_of(step), *(cls.__name__ for cls in type(step).__mro__)])):
        return True
    said = getattr(step, "__dict__", {})
    for name, value in said.items():
        if isinstance(value, (int, float)) and (
            (name in ("p", "prob") and 0 < value < 1) or (name.startswith("random_") and name.endswith("_prob") and value > 0)
        ):
            return True
    ranges = [said.get(name) for name in ("sigma", "quality")]  # of GaussianBlur and JPEG
    return any(isinstance(value, (tuple, list)) and len(set(value)) > 1 for value in ranges)


def _name_of(step: Any) -> str:
    return str(getattr(step, "__name__", type(step).__name__))


def of_steps(steps: Sequence[Any], told: Sequence[str]) -> Preprocessing:
    """From the steps of a transform of torchvision, timm or open_clip, in their order."""
    places, scale, more = _Places(), _Scaling(), list[str]()
    for step in steps:
        name = _name_of(step)
        if not (places.took(name, step) or scale.took(name, step) or _only_makes_rgb(name) or name == "Identity"):
            more.append(name)
    if scale.found is None and not {"mean", "std"} <= set(told):
        raise Unreadable(
            "it has no step Normalize, so the scale of its images is not known; give mean= and std= beside it, which are 0 and "
            "1 for images in 0..1"
        )
    mean, std = scale.found or (None, None)
    size, cut = places.result()
    return Preprocessing(mean, std, size, places.interpolation, cut, (*places.more, *more))


def _only_makes_rgb(name: str) -> bool:
    return name.lower().endswith("rgb") and "bgr" not in name.lower()


class _Places:
    """Which part of a picture is taken, by resizing once and then cutting out the centre once."""

    def __init__(self) -> None:
        self.more: list[str] = []
        self.interpolation: str | None = None
        self._edges: Any = None
        self._keeps = True
        self._size: Pair | None = None
        self._pads = self._is_other = self._is_ratio = False

    def took(self, name: str, step: Any) -> bool:
        """Read a step if it is one of these."""
        if name in ("Resize", "ResizeKeepRatio"):
            self._resize(name, step)
        elif name in ("CenterCrop", "CenterCropOrPad"):
            if self._size is not None:
                self._other("a second CenterCrop")
            self._size = as_sides(step.size)
        else:
            return False
        return True

    def _resize(self, name: str, step: Any) -> None:
        if self._edges is not None or self._size is not None:
            self._other("a second Resize" if self._edges is not None else "Resize after CenterCrop")
            self._size = None
        self._edges = step.size
        self._is_ratio = name == "ResizeKeepRatio"
        self._keeps = self._is_ratio or isinstance(step.size, int) or len(step.size) == 1
        self._pads = bool(getattr(step, "longest", 0))
        if isinstance(step.interpolation, (tuple, list)):
            raise _random(name)
        self.interpolation = name_of_filter(step.interpolation)
        if getattr(step, "max_size", None) is not None:
            self._other("Resize with max_size")
        if getattr(step, "antialias", None) is False:
            self.more.append("Resize without antialiasing")

    def _other(self, what: str) -> None:
        self.more.append(what)
        self._is_other = True

    def result(self) -> tuple[Pair | None, Cut | None]:
        """Return size and cut. The cut is None if it is of another kind, which is then said in `more`."""
        if self._edges is None or self._is_other:
            if self._size is not None and not self._is_other:
                self.more.append("CenterCrop without Resize")
            return self._size or (None if self._edges is None else as_sides(self._edges)), None
        edges = as_sides(self._edges)
        size = self._size or edges
        if self._size is None and self._keeps and not self._pads:
            self.more.append("Resize of the shorter side without CenterCrop")
            return size, None
        shares = [side / edge for side, edge in zip(size, edges, strict=True)]
        fits = all(math.floor(side / min(shares) + 1e-6) == edge for side, edge in zip(size, edges, strict=True))
        if not fits and not self._is_ratio:
            self.more.append("CenterCrop of another shape than Resize")
            return size, None
        if self._keeps:
            return size, Cut("border" if self._pads else "center", min(size) / min(edges))
        return size, Cut("squash", min(shares))


class _Scaling:
    """Mean and standard deviation of images in 0..1 that several steps amount to."""

    def __init__(self) -> None:
        self.found: Scale | None = None
        self._is_in_bytes = False

    def took(self, name: str, step: Any) -> bool:
        """Read a step if it is one of these."""
        if name == "Normalize":
            self._normalize(step)
        elif name in ("ToTensor", "MaybeToTensor"):
            self._is_in_bytes = False
        elif name in ("PILToTensor", "MaybePILToTensor", "ToImage", "ToNumpy", "ToPILImage"):
            self._is_in_bytes = True
        elif name == "ConvertImageDtype" or (name == "ToDtype" and getattr(step, "scale", False)):
            types = step.dtype.values() if isinstance(step.dtype, Mapping) else (step.dtype,)
            self._is_in_bytes = not any(isinstance(x, torch.dtype) and x.is_floating_point for x in types)
        else:
            return name in ("ToDtype", "ToPureTensor")
        return True

    def _normalize(self, step: Any) -> None:
        if getattr(step, "max_pixel_value", 255) not in (None, 255) or getattr(step, "normalization", "standard") != "standard":
            raise Unreadable("its step Normalize is of another kind (max_pixel_value, normalization)")
        mean, std = numbers_of(step.mean), numbers_of(step.std)
        if self.found is not None:  # ((x - m) / s - mean) / std
            before = self.found
            n = max(map(len, (mean, std, *before)))
            mean, std, first_mean, first_std = (_repeated(x, n) for x in (mean, std, *before))
            mean = [m + s * x for m, s, x in zip(first_mean, first_std, mean, strict=True)]
            std = [s * x for s, x in zip(first_std, std, strict=True)]
        elif self._is_in_bytes:
            mean, std = [x / 255 for x in mean], [x / 255 for x in std]
        self.found = mean, std


def _repeated(values: list[float], n: int) -> list[float]:
    return values * n if len(values) == 1 else values
