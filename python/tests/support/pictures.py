"""One picture in every way in which users have it."""

import io

import numpy as np
from PIL import Image
from torch import nn

from support.extraction import IDENTITY
from usae.torch import Model

SIZE = (6, 8)
MODEL = Model(nn.Identity(), "", size=SIZE, channels_last=False, **IDENTITY)


def random_colours():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def pixels(images, model=MODEL):
    return model.preprocess(images)


def contents(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def every_way(image, tmp_path, format="PNG", **options):
    """One PIL image as a file, its contents, an open file, and what Pillow opens from each."""
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(contents(image, format=format, **options))
    data = path.read_bytes()
    opened = Image.open(path), [Image.open(io.BytesIO(data))]
    return [path, str(path), [path], data, bytearray(data), [data], io.BytesIO(data), *opened]
