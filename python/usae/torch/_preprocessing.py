"""How images are made for a network: scale, size, interpolation and cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._pixels import as_channels

Pair = tuple[int, int]
Crop = bool | Literal["own"]

HONOURED = ("bilinear", "bicubic")
"""Filters that resize antialiased here. Other networks' pictures are resized by the second, but for "box" and the like."""


class Cut(NamedTuple):
    """What a network's own preprocessing takes of a picture.

    Attributes
    ----------
    mode : "center", "squash" or "border"
        Whether the picture keeps its proportions and its centre is cut out, is stretched, or gets borders.
    share : float
        Side of what is taken, divided by that of the picture as it was resized, of which the shorter side counts in "center".
    rounds_down : bool
        Whether half a pixel beside what is taken is rounded down, as transformers does, or to even, as torchvision does.
    """

    mode: str
    share: float
    rounds_down: bool = False


class Preprocessing(NamedTuple):
    """A network's own preprocessing, as far as it is known. None: not known."""

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: Pair | None = None
    interpolation: str | None = None
    cut: Cut | None = None
    more: tuple[str, ...] = ()
    """Steps that are not done here."""

    def or_else(self, other: Preprocessing) -> Preprocessing:
        """Return this, with what is not known here from another one."""
        return other._replace(**{name: value for name, value in self._asdict().items() if value is not None})

    @property
    def filter(self) -> str:
        """Filter by which pictures are resized here."""
        if self.interpolation in (None, "bilinear", "nearest", "box", "hamming"):
            return "bilinear"
        return "bicubic"

    @property
    def differences(self) -> str:
        """What `Model.preprocess` does in another way by default, in one line; empty if nothing is known."""
        parts = []
        if self.cut is not None and self.cut[:2] != ("squash", 1.0):
            what = {
                "center": "takes the centre, as wide as",
                "squash": "stretches the picture and takes the centre, as wide as",
                "border": "adds borders and takes the centre, as wide as",
            }[self.cut.mode]
            remedy = "is not supported" if self.cut.mode == "border" else 'as crop="own" does'
            parts.append(f"{what} {self.cut.share:.4g} of the shorter side (crop_pct), {remedy}")
        parts += self.not_done
        return f"its own preprocessing {'; '.join(parts)}" if parts else ""

    @property
    def not_done(self) -> list[str]:
        """What `Model.preprocess` cannot do."""
        parts = []
        if self.interpolation not in (None, *HONOURED):
            parts.append(f"resizes by {self.interpolation}, here by {self.filter}")
        return parts + [f"has the step {step}, which is not done here" for step in self.more]


def resized(picture: Tensor, size: Pair, crop: Crop, own: Preprocessing | None = None, channels: int = 3) -> Tensor:
    """Resize a picture, [channels, H, W], antialiased.

    Parameters
    ----------
    picture : Tensor
        Floats in 0..1.
    size : (int, int)
        Height and width of the result.
    crop : bool or "own"
        Whether to cut out the picture's centre in the proportions of `size` first; "own": as `own.cut` says.
    own : Preprocessing, optional
        What says the filter. Default: None, which resizes bilinearly.
    channels : int
        Number of channels of the result. Default: 3.
    """
    own = Preprocessing() if own is None else own
    picture = as_channels(picture, channels)
    (height, width), (h, w) = picture.shape[1:], size
    if crop == "own":
        if own.cut is None or own.cut.mode == "border":
            raise _without_cut(own)
        tall, wide = _scaled((height, width), size, own.cut)
        picture = _interpolated(picture, (tall, wide), own.filter)
        rounded = math.floor if own.cut.rounds_down else round
        top, left = rounded((tall - h) / 2), rounded((wide - w) / 2)
        return picture[:, top : top + h, left : left + w]
    if crop:
        tall, wide = min(height, max(1, round(width * h / w))), min(width, max(1, round(height * w / h)))
        top, left = (height - tall) // 2, (width - wide) // 2
        picture = picture[:, top : top + tall, left : left + wide]
    return _interpolated(picture, size, own.filter)


def checked_crop(crop: object) -> Crop:
    """Return a value of `crop`. InvalidInputError for anything but True, False and "own"."""
    return "own" if isinstance(crop, str) and crop == "own" else checks.boolean(crop, "crop", ' or "own"')


def check_own_cut(own: Preprocessing) -> None:
    if own.cut is None or own.cut.mode == "border":
        raise _without_cut(own)


def _without_cut(own: Preprocessing) -> InvalidInputError:
    what = "borders are added" if own.cut else "this is not known"
    return InvalidInputError(
        f'crop must be True or False for a network of which {what}, got "own"; preprocessing= may be its image processor'
    )


def _scaled(picture: Pair, size: Pair, cut: Cut) -> Pair:
    """Return height and width to which a picture is resized before `size` is cut out, as timm and torchvision round them."""
    tall, wide = (max(side, math.floor(side / cut.share + 1e-6)) for side in size)
    if cut.mode == "squash":
        return tall, wide
    height, width = picture
    if tall == wide:
        return (tall, int(tall * width / height)) if height <= width else (int(wide * height / width), wide)
    scale = max(tall / height, wide / width)
    return max(size[0], round(height * scale)), max(size[1], round(width * scale))


def _interpolated(picture: Tensor, size: Pair, mode: str) -> Tensor:
    if tuple(picture.shape[1:]) == size:
        return picture
    result = F.interpolate(picture[None], size=size, mode=mode, antialias=True, align_corners=False)[0]
    return result if mode == "bilinear" else result.clamp_(0, 1)  # bicubic overshoots at edges
