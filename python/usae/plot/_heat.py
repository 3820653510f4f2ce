"""Pictures with the places at which a concept fires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from usae._base import checks
from usae._data.activations import as_aligned, of_models
from usae._estimator.universal_sae import UniversalSAE, checked_sae
from usae._explorer.pictures import Pictures, as_pictures, size_of
from usae.analysis.image_codes import Pool
from usae.analysis.images import images_of
from usae.analysis.top_examples import TopExamples
from usae.errors import InvalidInputError

SIDE = 224
"""Largest side of a picture in a figure, in pixels."""

GREY = 0.3
"""Share of a picture's brightness that is left where a concept does not fire."""


class Shown:
    """Images of a figure: their pictures, and the codes of a concept in each model.

    Attributes
    ----------
    names : tuple of str, [M]
    grid : (int, int) or None
    """

    def __init__(self, sae: UniversalSAE, acts: Mapping[str, Any], pictures: Any, top: TopExamples, crop: bool, mask: Any):
        autoencoder = checked_sae(sae)._initialized()
        self.names, self._crop = top.model_names, checks.boolean(crop, "crop")
        columns = {name: autoencoder.columns[name] for name in self.names}
        given = as_aligned(of_models(acts, self.names), "acts", columns, mask)
        of = images_of(given, top.grid)
        if not of.known:
            raise InvalidInputError(
                "grid must be given for figures of images, got None; use grid=(rows, columns), or activations "
                "[images, tokens, width]"
            )
        self._pool = Pool(autoencoder, given, of)
        self.grid = of.grid
        self.n_tokens = next(iter(given.values())).n_rows
        self._pictures: Pictures | None = as_pictures(pictures, acts, len(self._pool))
        rows, columns_of = of.grid or (1, 1)
        self._size = SIDE * rows // max(rows, columns_of), SIDE * columns_of // max(rows, columns_of)
        if self._pictures is not None:
            self._size = size_of(self._pictures, SIDE, of.grid)

    @property
    def aspect(self) -> float:
        """Width of a picture divided by its height."""
        return self._size[1] / self._size[0]

    def pictures(self, images: Iterable[int]) -> dict[int, np.ndarray]:
        """Return pictures by the numbers of their images, uint8 [height, width, 3]; grey ones where there is none to see."""
        numbers = sorted({int(image) for image in images})
        grey = np.full((*self._size, 3), 160, np.uint8)
        if self._pictures is None:
            return dict.fromkeys(numbers, grey)
        found = self._pictures.arrays(numbers, self._size, self._crop)
        pictures = {number: grey if picture is None else picture for number, picture in zip(numbers, found, strict=True)}
        self._pictures.tell()
        return pictures

    def maps(self, wanted: Mapping[int, Iterable[int]]) -> dict[tuple[int, int], np.ndarray]:
        """Return the codes of concepts in images, float32 [M, tokens], by (concept, image). `wanted` has images by concept."""
        pairs: dict[int, set[int]] = {}
        for concept, images in wanted.items():
            for image in images:
                pairs.setdefault(int(image), set()).add(concept)
        found = {}
        for codes in self._pool.chunks(np.array(sorted(pairs), np.int64)):
            for place, image in enumerate(codes.numbers.tolist()):
                for concept in pairs[image]:
                    there = codes.concepts[:, place] == concept
                    found[concept, image] = np.where(there, codes.values[:, place], 0).sum(-1)
        return found


def examples_of(
    sae: UniversalSAE, acts: Mapping[str, Any], concepts: Sequence[int], top: object, n: int, **options: Any
) -> TopExamples:
    """Return `top`, which is checked, or look for examples. `concepts` are those that are drawn."""
    from usae.analysis.top_examples import top_examples

    autoencoder = checked_sae(sae)._initialized()
    if top is None:
        return top_examples(sae, acts, n, one_per_image=True, **options)
    if not isinstance(top, TopExamples):
        raise InvalidInputError(f"top must be what usae.top_examples returns, got {checks.shown(top)}")
    if top.tokens.shape[1] != autoencoder.n_concepts or not set(top.model_names) <= set(autoencoder.names):
        raise InvalidInputError(
            f"top must be of this autoencoder, with {autoencoder.n_concepts} concepts of {', '.join(autoencoder.names)}, got "
            f"{top.tokens.shape[1]} of {', '.join(top.model_names)}"
        )
    return top


def spotlight(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Fade an image to dark grey where `heat` is low.

    Parameters
    ----------
    image : ndarray of uint8, [H, W, 3]
        The image.
    heat : ndarray of float, [rows, columns]
        Values from 0 to 1 of a grid over the image. It does not fade where the value is a half or more.

    Returns
    -------
    ndarray of float, [H, W, 3]
        The faded image, from 0 to 1.
    """
    height, width = image.shape[:2]
    light = _stretch(_stretch(np.clip(2 * heat, 0, 1), height).T, width).T[..., None]
    colour = image / 255
    dark = GREY * colour.mean(2, keepdims=True)
    return light * colour + (1 - light) * dark


def _stretch(values: np.ndarray, length: int) -> np.ndarray:
    """Interpolate the rows of [n, ...] linearly to `length` rows. The value of a row belongs to the centre of its cell."""
    n = len(values)
    place = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
    low = np.minimum(place.astype(int), n - 2) if n > 1 else np.zeros(length, int)
    share = (place - low)[:, None] if n > 1 else np.zeros((length, 1))
    return (1 - share) * values[low] + share * values[np.minimum(low + 1, n - 1)]
