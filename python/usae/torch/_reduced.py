"""Decoding JPEG files at 1/2, 1/4 or 1/8 of their size, which the format makes cheap, where twice what networks take is left.

The decoder averages pixels as it goes; the network's own filter then resizes by the rest. With less than twice the network's
size left, or with pixels left over at an edge, which would shift the others, the result would differ by more than compression
does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from usae.torch._pixels import ORIENTATION, Draft
from usae.torch._preprocessing import Crop, Pair, _scaled

if TYPE_CHECKING:
    from usae.torch._model import Model

SCALES = (8, 4, 2)
"""What sides are divided by, in the decoder's steps."""

LEFT = 2
"""How many times the network's size is left at least."""

FORMATS = ("JPEG", "MPO")
"""Pillow's names; the second is a JPEG with more pictures behind it, as some cameras write them."""


def draft_for(models: Iterable[Model], crop: Crop) -> Draft:
    """Return a function that has a PIL image decoded at a smaller size where that leaves enough pixels for all models."""
    kinds = list({model.input_kind: model for model in models}.values())

    def draft(image: Any) -> None:
        if image.format not in FORMATS:
            return
        width, height = image.size
        if image.getexif().get(ORIENTATION, 1) > 4:  # it will be turned by 90 degrees
            width, height = height, width
        wholes = [_whole((height, width), model, crop) for model in kinds]
        scale = _scale((height, width), (max(tall for tall, _ in wholes), max(wide for _, wide in wholes)))
        if scale > 1:
            image.draft(None, (image.size[0] // scale, image.size[1] // scale))

    return draft


def _whole(picture: Pair, model: Model, crop: Crop) -> Pair:
    """Return height and width that a whole picture has for a model, of which `crop` may cut out a part."""
    (height, width), (h, w), cut = picture, model.known_size, model.preprocessing.cut
    if crop == "own" and cut is not None:
        return _scaled(picture, (h, w), cut)
    if crop:
        larger = max(h / height, w / width)
        return math.ceil(height * larger), math.ceil(width * larger)
    return h, w


def _scale(picture: Pair, whole: Pair) -> int:
    """Return the largest divisor of a picture's sides that leaves enough for `whole`, or 1."""
    for scale in SCALES:
        if all(side % scale == 0 and side // scale >= LEFT * wanted for side, wanted in zip(picture, whole, strict=True)):
            return scale
    return 1
