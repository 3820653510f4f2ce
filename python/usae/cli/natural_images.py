"""Natural images to draw beside optimised ones, from a store and the pictures that it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import usae
from usae.cli import process
from usae.errors import InvalidInputError

EXAMPLES = 4
THUMBNAIL = 128
"""Height and width of a picture, in pixels."""


def top_examples_in(
    sae: usae.UniversalSAE, acts: Mapping[str, Any], mask: Any, folder: Path, concepts: Sequence[int]
) -> tuple[usae.TopExamples, np.ndarray]:
    """Find the images that fire these concepts most. Returns examples and their pictures, for `usae.plot.maximization`."""
    if not isinstance(acts, usae.ActivationStore) or acts.grid is None or not acts.images:
        raise InvalidInputError(
            "--acts must be a store that usae extract made where --images is given, got one without a grid, or files"
        )
    top = usae.top_examples(sae, acts, EXAMPLES, grid=acts.grid, one_per_image=True, mask=mask)
    chosen = top.images[:, list(concepts)]
    needed = np.unique(chosen[chosen >= 0])
    pictures = [_thumbnail(folder / acts.images[i]) for i in needed]
    unreadable = [f"{acts.images[i]} ({problem})" for i, (_, problem) in zip(needed, pictures, strict=True) if problem]
    if len(unreadable) == len(needed) > 0:
        raise InvalidInputError(
            f"--images must have the pictures that the store was made of, got {str(folder)!r}, where none can be read: "
            f"{unreadable[0]}"
        )
    if unreadable:  # one picture must not cost hours of optimising; it is drawn grey
        process.tell(f"--images: {len(unreadable)} of {len(needed)} pictures cannot be read: {', '.join(unreadable[:10])}")
    shown = np.array([picture for picture, _ in pictures], np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3)
    return _among(top, concepts, needed), shown


def _among(top: usae.TopExamples, concepts: Sequence[int], needed: np.ndarray) -> usae.TopExamples:
    """Keep the examples of these concepts, and renumber their images to the needed ones."""
    rows, columns = top.known_grid()
    per_image = rows * columns
    tokens = np.full_like(top.tokens, -1)
    kept = list(concepts)
    of_image = np.searchsorted(needed, top.images[:, kept])
    tokens[:, kept] = np.where(top.tokens[:, kept] < 0, -1, of_image * per_image + top.tokens[:, kept] % per_image)
    return usae.TopExamples(top.model_names, len(needed) * per_image, top.grid, tokens, top.values)


def _thumbnail(path: Path) -> tuple[np.ndarray, str]:
    """Return a picture in the size in which it is drawn, and what is wrong if it cannot be read; it is grey then."""
    from PIL import Image

    try:
        if not path.is_file():
            return _grey(), "there is no such file"
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)), ""
    except Exception as error:  # a damaged picture is one of many kinds of errors in Pillow
        return _grey(), f"{type(error).__name__}: {error}"


def _grey() -> np.ndarray:
    return np.full((THUMBNAIL, THUMBNAIL, 3), 128, np.uint8)
