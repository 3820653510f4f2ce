"""How images are made for a network: scale, size, interpolation and cut, as its library or its image processor says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from usae._base import checks
from usae.errors import InvalidInputError
from usae.torch._pixels import as_channels, kind_of

Pair = tuple[int, int]
Crop = bool | Literal["own"]

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names of Pillow's filters by their numbers, with which image processors of transformers name them."""

HONOURED = ("bilinear", "bicubic")
"""Filters that resize antialiased here. Other networks' pictures are resized by the second, but for "box" and the like."""

WITHOUT_EFFECT = ("ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToImage", "ToDtype", "ConvertImageDtype")
"""Steps of torchvision and timm that only change how a picture is kept."""


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
        if self.interpolation not in (None, *HONOURED):
            parts.append(f"resizes by {self.interpolation}, here by {self.filter}")
        parts += [f"has the step {step}, which is not done here" for step in self.more]
        return f"its own preprocessing {'; '.join(parts)}" if parts else ""


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


# --- What libraries say -----------------------------------------------------------------------------------------------


def of_timm(cfg: Mapping[str, Any]) -> Preprocessing:
    """From `pretrained_cfg` of a network of timm, or what `timm.data.resolve_model_data_config` makes of it."""
    size = tuple(cfg.get("input_size") or ())[1:]
    share = cfg.get("crop_pct")
    return Preprocessing(
        mean=cfg.get("mean"),
        std=cfg.get("std"),
        size=as_sides(size) if size else None,
        interpolation=cfg.get("interpolation") or None,
        cut=Cut(cfg.get("crop_mode") or "center", float(share)) if share else None,
    )


def of(given: Any) -> Preprocessing:
    """From what a user gives as `preprocessing`. InvalidInputError for anything else."""
    if isinstance(given, Preprocessing):
        return given
    given = getattr(given, "image_processor", given)  # a processor for pictures and text
    try:
        if isinstance(given, Mapping):
            found = of_timm(given) if "input_size" in given or "crop_pct" in given or "mean" in given else None
        elif hasattr(given, "image_mean"):
            found = _of_processor(given)
        elif hasattr(given, "resize_size") and hasattr(given, "crop_size"):
            found = _of_torchvision(given)
        elif hasattr(given, "transforms"):
            found = _of_steps(list(given.transforms))
        else:
            found = None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InvalidInputError(
            f"preprocessing must say sizes and scales as those libraries do, got {kind_of(given)}: "
            f"{checks.shown(error)}; give mean=, std= and size= instead"
        ) from error
    if found is None:
        raise InvalidInputError(
            f"preprocessing must be an image processor of transformers, weights.transforms() of torchvision, a transform or a "
            f"data config of timm, got {kind_of(given)}; give mean=, std= and size= instead"
        )
    return found


def _of_processor(processor: Any) -> Preprocessing:
    """From an image processor of transformers."""

    def said(name: str, default: Any = None) -> Any:
        value = getattr(processor, name, None)
        return default if value is None else value

    # The processor multiplies 0..255 by a factor and then normalises; mean and std here are of 0..1.
    factor = 255 * (said("rescale_factor", 1 / 255) if said("do_rescale", True) else 1)
    mean, std = (said("image_mean"), said("image_std")) if said("do_normalize", True) else (0.0, 1.0)
    mean, std = ([x / factor for x in (y if isinstance(y, Sequence) else [y] * 3)] for y in (mean, std))
    sides: Pair | None
    cut: Cut | None
    size, crop = _sides_of(said("size", {})), _sides_of(said("crop_size", {})) if said("do_center_crop", False) else {}
    if (share := said("crop_pct")) and "shortest_edge" in size:  # ConvNeXt
        edge = size["shortest_edge"]
        cut, sides = Cut("center", float(share), True) if edge < 384 else Cut("squash", 1.0), (edge, edge)
    elif "shortest_edge" in size:
        sides = (crop["height"], crop["width"]) if crop else None
        cut = Cut("center", min(sides) / size["shortest_edge"], True) if sides else None
    elif "height" in size:
        sides = (crop["height"], crop["width"]) if crop else (size["height"], size["width"])
        cut = Cut("squash", min(sides[0] / size["height"], sides[1] / size["width"]), True)
    else:
        sides, cut = None, None
    number = said("resample")
    flags = ("do_flip_channel_order", "do_pad", "do_crop_margin", "do_thumbnail", "do_align_long_axis", "rescale_offset")
    return Preprocessing(
        mean=mean,
        std=std,
        size=sides,
        interpolation=None if number is None else _name_of_filter(number),
        cut=cut if said("do_resize", True) else None,
        more=tuple(flag for flag in flags if said(flag, False)),
    )


def _sides_of(size: Any) -> dict[str, int]:
    if isinstance(size, int):
        return {"height": size, "width": size}
    if isinstance(size, (tuple, list)):
        return {"height": int(size[0]), "width": int(size[1])}
    names = ("height", "width", "shortest_edge")
    found = {name: size.get(name) if isinstance(size, Mapping) else getattr(size, name, None) for name in names}
    return {name: int(value) for name, value in found.items() if value is not None}


def _of_torchvision(preset: Any) -> Preprocessing:
    """From ``weights.transforms()`` of torchvision."""
    resized_to, size = preset.resize_size, as_sides(preset.crop_size)
    edge = resized_to[0] if isinstance(resized_to, (list, tuple)) else resized_to
    return Preprocessing(
        mean=list(preset.mean),
        std=list(preset.std),
        size=size,
        interpolation=_name_of_filter(preset.interpolation),
        cut=Cut("center", min(size) / edge),
    )


def _of_steps(steps: Sequence[Any]) -> Preprocessing:
    """From a transform of torchvision, timm or open_clip, step by step."""
    found = Preprocessing()
    edges: Any = None
    keeps = True
    for step in steps:
        name = getattr(step, "__name__", type(step).__name__)
        if name in ("Resize", "ResizeKeepRatio"):
            edges, keeps = step.size, name == "ResizeKeepRatio" or isinstance(step.size, int) or len(step.size) == 1
            if getattr(step, "longest", 0):
                found = found._replace(more=(*found.more, "borders"))
            interpolation = step.interpolation
            if not isinstance(interpolation, (tuple, list)):
                found = found._replace(interpolation=_name_of_filter(interpolation))
        elif name in ("CenterCrop", "CenterCropOrPad"):
            found = found._replace(size=as_sides(step.size))
        elif name == "Normalize":
            mean, std = (torch.as_tensor(x).flatten().tolist() for x in (step.mean, step.std))
            found = found._replace(mean=mean, std=std)
        elif name not in WITHOUT_EFFECT and "rgb" not in name.lower():
            found = found._replace(more=(*found.more, name))
    if edges is None:
        return found
    size = found.size or as_sides(edges)
    shares = [side / edge for side, edge in zip(size, as_sides(edges), strict=True)]
    share = min(size) / min(as_sides(edges)) if keeps else min(shares)
    return found._replace(size=size, cut=None if share > 1 else Cut("center" if keeps else "squash", share))


def _name_of_filter(value: Any) -> str:
    if isinstance(value, int):
        return RESAMPLING[value]
    return str(getattr(value, "value", value)).lower()


def as_sides(value: Any) -> Pair:
    """Return (height, width) from one integer or two."""
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[-1]))
