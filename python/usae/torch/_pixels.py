"""Conversion of one picture of any kind (array, file, contents of a file, PIL image) to float32 values in 0..1.

Every kind is first brought to one form, an array of pixels as the camera was held, of one channel (grey), three (red, green and
blue), or as many as a network takes. So the same picture has the same pixels, however it comes.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usae._files import regular_files
from usae.errors import CheckpointError, InvalidInputError
from usae.torch._plain import plain, type_of

Draft = Callable[[Any], None]
"""A function that is given a PIL image that was opened and not read yet."""

ORIENTATION = 0x0112
"""EXIF's number for how the camera was held."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601), as Pillow's mode "L" has them."""


def from_file(path: str | os.PathLike[str], label: str, channels: Collection[int], draft: Draft | None = None) -> Tensor:
    """Read a picture file, [channels, height, width] in 0..1. InvalidInputError, with its name, whatever is wrong with it.

    `draft` may have it decoded at a smaller size, as for `from_contents`; see `_reduced`.
    """
    got = repr(printable(path))
    try:
        stream = regular_files.opened(path, "it")
    except Exception as error:  # it is missing, no name of a file, or for example a FIFO, which would be waited for
        reason = str(error).partition(";")[0] if isinstance(error, CheckpointError) else _reason(error)
        raise InvalidInputError(
            f"{label} must be a picture file that Pillow reads, got {got}: {reason}; replace it or leave it out"
        ) from error
    with stream:
        return _decoded(stream, label, got, channels, draft)


def from_contents(contents: Any, label: str, channels: Collection[int], draft: Draft | None = None) -> Tensor:
    """Read a picture from the contents of a file: bytes, or an open file, which is read from its beginning if it can seek."""
    got = f"the contents of one as {kind_of(contents)}"
    try:
        if hasattr(contents, "read"):
            if getattr(contents, "seekable", bool)():
                contents.seek(0)
            contents = contents.read()
        stream = io.BytesIO(contents)
    except Exception as error:  # a file object of another library may raise anything
        raise InvalidInputError(
            f"{label} must be a picture file that Pillow reads, got {got}: {_reason(error)}; open it for reading bytes"
        ) from error
    return _decoded(stream, label, got, channels, draft)


def from_pil(image: Any, label: str, channels: Collection[int]) -> Tensor:
    """Convert a PIL image."""
    try:
        array = _pixels_of(image, label)
    except InvalidInputError:
        raise
    except Exception as error:  # Pillow decodes the pixels of an opened file here
        name = getattr(image, "filename", "")
        what = f"{name!r}, which cannot be read" if name else f"mode {image.mode!r}"
        raise InvalidInputError(
            f"{label} must be a picture that Pillow reads, got {what}: {_reason(error)}; leave it out"
        ) from error
    return from_array(array, label, channels)


def from_array(array: Any, label: str, channels: Collection[int]) -> Tensor:
    """Convert [height, width], [height, width, channels] or [channels, height, width].

    If both of the last are possible, three channels go before others; then integers have channels last, and floats first.
    """
    array = plain(array, label)
    axis = check_array(array, label, channels)
    try:
        picture = _as_tensor(array, axis)
        return _checked_range(picture, label) if "float" in type_of(array) else picture
    except (InvalidInputError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # of a subclass, such as PyTorch's fake tensors
        raise InvalidInputError(
            f"{label} must be an array whose numbers can be read, got {kind_of(array)}: {_reason(error)}; make a plain one"
        ) from error


def check_array(array: Any, label: str, channels: Collection[int]) -> int:
    """Return which dimension of a picture has the channels (0 without), for the array of a picture or of many of them."""
    name, shape = type_of(array), list(array.shape)
    axis = _channel_axis(shape[1:] if len(shape) == 4 else shape, "float" not in name, channels)
    if axis is None or 0 in shape or not (name in ("bool", "uint8", "uint16") or "float" in name):
        raise InvalidInputError(f"{label} must be {expected_arrays(channels)}, got {name} {shape}; {_remedy(shape, name)}")
    return axis


def as_channels(picture: Tensor, channels: int, who: str = "the network") -> Tensor:
    """Return a picture with as many channels as a network takes. Grey is repeated, and colours become grey."""
    given = len(picture)
    if given == channels:
        return picture
    if given == 1 and channels == 3:
        return picture.expand(3, -1, -1)
    if given == 3 and channels == 1:
        if torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2]):
            return picture[:1]  # grey already, which the weighted sum would round
        return torch.einsum("c,chw->hw", torch.tensor(GREY), picture)[None]
    raise InvalidInputError(
        f"images must have the {channels} channels that {who} takes, got pictures of {given}; give arrays [n, {channels}, "
        f"height, width] in 0..1"
    )


def expected_arrays(channels: Collection[int]) -> str:
    more = ", or with as many channels as the networks take" if set(channels) - {1, 3} else ""
    return f"uint8 [n, H, W, 3] or floats [n, 3, H, W] in 0..1, grey with 1 channel{more}"


def printable(path: Any) -> str:
    """Return a path, or another text, such that it can be printed and stored, even if a file's name in it is not UTF-8."""
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode()


def is_pil(image: object) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)


def kind_of(x: object) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")


# --- Private ----------------------------------------------------------------------------------------------------------


def _decoded(source: Any, label: str, got: str, channels: Collection[int], draft: Draft | None) -> Tensor:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ImportError(f"reading picture files needs Pillow ({error}): pip install 'usae[torch]'") from error
    try:
        with Image.open(source) as image:
            if draft is not None:
                draft(image)
            array = _pixels_of(image, label)
    except (InvalidInputError, MemoryError):
        raise
    except Exception as error:  # Pillow raises exceptions of many types for files that are damaged, or too large
        raise InvalidInputError(
            f"{label} must be a picture file that Pillow reads, got {got}: {_reason(error)}; replace it or leave it out"
        ) from error
    return from_array(array, label, channels)


def _pixels_of(image: Any, label: str) -> np.ndarray:
    """Return the pixels of the current frame: uint8 [height, width, 3], or uint16 or floats [height, width]."""
    from PIL import ImageOps

    from_png = image.format == "PNG"
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and from_png):  # older Pillows give 16 bits of PNG as 32
        return np.asarray(image).astype(np.uint16)  # in this machine's byte order
    if mode == "F":
        return np.asarray(image)
    if mode == "I":  # Pillow would clip its values at 255
        raise InvalidInputError(
            f"{label} must have 8 or 16 bits a channel, or floats in 0..1, got mode 'I', whose range is not known; give floats "
            f"in 0..1, [3, H, W], instead"
        )
    # With an alpha channel or a transparent colour of the palette, colours are taken as they are, as torchvision does.
    if mode in ("RGBa", "La"):
        image = image.convert(mode[:-1] + "A")
    elif mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _as_tensor(array: Any, axis: int) -> Tensor:
    """Convert to float32 [channels, height, width]; `axis` is what `check_array` returns."""
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array.numpy()
    picture = array if isinstance(array, Tensor) else torch.from_numpy(_as_floats(array, axis))
    picture = picture[None] if picture.ndim == 2 else picture.movedim(2, 0) if axis == 2 else picture
    return picture.float()


def _channel_axis(shape: list[int], is_integer: bool, channels: Collection[int]) -> int | None:
    """Return which dimension of a picture has the channels; 0 for a picture without, and None for what is no picture."""
    if len(shape) == 2:
        return 0
    if len(shape) != 3:
        return None
    order = (2, 0) if is_integer else (0, 2)
    of_colours = [axis for axis in order if shape[axis] == 3]
    possible = of_colours or [axis for axis in order if shape[axis] in (1, *channels)]
    return possible[0] if possible else None


def _as_floats(array: np.ndarray, axis: int) -> np.ndarray:
    """Convert to floats, and integers and booleans to 0..1. A copy, because PyTorch does not take every array of NumPy."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.name == "uint16":  # of either byte order
        if array.ndim == 2 or array.shape[axis] == 1:
            return (array / np.float64(65535)).astype(np.float32)
        array = (array >> 8).astype(np.uint8)  # as Pillow reads colours of 16 bits
    return array.astype(np.float32) / np.float32(1 if array.dtype == bool else 255)


def _checked_range(picture: Tensor, label: str) -> Tensor:
    low, high = picture.aminmax()
    if not (low >= 0 and high <= 1):  # so that NaN is refused too
        raise InvalidInputError(
            f"{label} must hold floats in 0..1, got {low:.4g} to {high:.4g}; divide 0..255 by 255, and give pictures that are "
            f"normalised already to the model itself, model(images)"
        )
    return picture


def _remedy(shape: list[int], name: str) -> str:
    if len(shape) == 1:
        return "contents of a file are given as bytes, x.tobytes()"
    if 0 in shape:
        return "give at least one picture, and one pixel and one channel of each"
    if "float" not in name and name not in ("bool", "uint8", "uint16"):
        return "integers in 0..255 become x.astype('uint8')"
    if len(shape) in (3, 4) and 4 in (shape[-3], shape[-1]):
        return "of red, green, blue and alpha give the first three, x[..., :3]; other four are for networks that take four"
    return "grey pictures [n, H, W] become x[..., None]"


def _reason(error: Exception) -> str:
    text = printable(re.sub(r" <(_io\.[^>]*|[^>]* object at 0x\w+)>", "", str(error).partition("\n")[0]))
    known = isinstance(error, (OSError, ValueError)) and text
    return text if known else f"{type(error).__name__}{f': {text}' if text else ''}"
