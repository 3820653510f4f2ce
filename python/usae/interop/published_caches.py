"""Import of activations that the published code cached, one ``.npz`` file for each image and model, into a store.

``<folder>/<image>_<model>.npz`` holds "activation" [tokens, width], with class tokens first if the model has them, and "label".
``<folder>/<image>_combined.npz`` holds such an array for each model, under the model's name.
"""

from __future__ import annotations

import math
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data.activations import check_known, check_names
from usae._data.store import ActivationStore, DType
from usae._files import disk, npy_file
from usae.errors import CheckpointError, InvalidInputError

COMBINED = "combined"

_MOST_BYTES = 2**29  # of one image: 65,536 tokens of width 1,024 in float64


def import_published(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    models: Mapping[str, str],
    *,
    n_prefix_tokens: Mapping[str, int] | None = None,
    grid: tuple[int, int] | None = None,
    dtype: DType = "float16",
    shard_images: int = 256,
    progress: bool | None = None,
    tokens: Mapping[str, int] | None = None,
) -> ActivationStore:
    """Import activations that the published code has cached into a new store.

    Parameters
    ----------
    folder : path-like
        Folder with files ``<image>_<model>.npz`` or ``<image>_combined.npz``, at any depth.
    path : path-like
        Folder of the new store.
    models : mapping of str to str
        Each model's name in the store, and its name in the files: ``{"dinov2": "DinoV2", ...}``.
    n_prefix_tokens : mapping of str to int, optional
        Number of leading tokens, such as class tokens, that are dropped because they have no place in the image. Default: None,
        which drops none if all tokens of a model fill a square, and one if all but one do.
    grid : (int, int), optional
        Rows and columns to which the token grid of every model is resized, by antialiased bilinear interpolation.
        Default: None, which takes the smallest of the models' grids.
    dtype : "float16", "float32" or "bfloat16"
        Type in which the store keeps activations. Default: "float16".
    shard_images : int
        Images in one shard of the store. Default: 256.
    progress : bool or None
        Whether to show a progress bar. Default: None, which shows it in a terminal or a notebook.
    tokens : mapping of str to int, optional
        Deprecated: it is what `n_prefix_tokens` was called in version 0.1. Default: None.

    Returns
    -------
    ActivationStore
        The store. Its images have the names of the files, relative to `folder`, and are in the order of these names.

    Raises
    ------
    InvalidInputError
        If models have different images, of which the message names one, or if a model's tokens fill no square.
    CheckpointError
        If a file is damaged or is not such an ``.npz`` file.
    CheckpointFileError
        Also an OSError: a file cannot be read, or the store cannot be written.
    """
    root = disk.folder_of(folder)
    if not isinstance(models, Mapping) or not all(isinstance(source, str) and source for source in models.values()):
        raise InvalidInputError(f"models must be a mapping from names to names in the files, got {checks.shown(models)}")
    check_names(models, "models")
    if tokens is not None:
        n_prefix_tokens = _renamed_tokens(tokens, n_prefix_tokens)
    given = _checked_prefixes(n_prefix_tokens, models)
    common = None if grid is None else checks.grid(grid)
    size = checks.integer(shard_images, "shard_images", 1, 2**20)
    with disk.io_errors(root, "read", "the folder"):
        images = _images(root, models)
        first = {name: _read(*next(iter(_locations(root, images[:1], source))))[0] for name, source in models.items()}
        dropped = {name: _dropped(name, len(x), given.get(name)) for name, x in first.items()}
        sides = {name: math.isqrt(len(x) - dropped[name]) for name, x in first.items()}
        common = (min(sides.values()),) * 2 if common is None else common
        described = {name: {"width": x.shape[1], "source": "npz", "file": models[name]} for name, x in first.items()}
        store = ActivationStore.create(path, described, dtype=dtype, grid=common)
        with store, progress_bar(len(images), progress, desc="importing", unit="image") as bar:
            for start in range(0, len(images), size):
                some = images[start : start + size]
                store.append({name: _stacked(root, some, name, models, dropped, sides, common) for name in models}, some)
                bar.update(len(some))
    return store


def _renamed_tokens(tokens: Mapping[str, int], n_prefix_tokens: object) -> Mapping[str, int]:
    """Return what was given by its old name, with a warning that has the new one."""
    if n_prefix_tokens is not None:
        raise InvalidInputError(
            f"tokens must be None where n_prefix_tokens is given, got {disk.shortened(tokens)}; leave it out"
        )
    warnings.warn(
        "tokens, the numbers of tokens to drop, is now called n_prefix_tokens; the next version will not know tokens",
        DeprecationWarning,
        stacklevel=3,
    )
    return tokens


def _checked_prefixes(n_prefix_tokens: object, models: Mapping[str, str]) -> Mapping[str, Any]:
    if n_prefix_tokens is None:
        return {}
    if not isinstance(n_prefix_tokens, Mapping):
        raise InvalidInputError(
            f"n_prefix_tokens must be a mapping of model names to numbers of tokens, got {disk.shortened(n_prefix_tokens)}; "
            f"write {{{next(iter(models))!r}: 1}} for one model"
        )
    for name in n_prefix_tokens:
        check_known(name, list(models), "n_prefix_tokens")
    return n_prefix_tokens


def _images(root: pathlib.Path, models: Mapping[str, str]) -> list[str]:
    """Return the names of the images. InvalidInputError, which names the first missing file, unless every model has them."""
    files = sorted(str(file.relative_to(root))[: -len(".npz")] for file in root.rglob("*.npz"))
    combined = [name.removesuffix(f"_{COMBINED}") for name in files if name.endswith(f"_{COMBINED}")]
    of_models = {
        name: {file.removesuffix(f"_{source}") for file in files if file.endswith(f"_{source}")}
        for name, source in models.items()
    }
    if not any(of_models.values()):
        if not combined:
            raise InvalidInputError(f"folder must hold files <image>_<model>.npz or <image>_combined.npz, got none in {root}")
        return combined
    everything = set().union(*of_models.values())
    for name, own in of_models.items():
        if missing := sorted(everything - own):
            raise InvalidInputError(
                f"models must have the same images, got no file {missing[0]}_{models[name]}.npz of {name!r} "
                f"({len(missing)} of {len(everything)} are missing)"
            )
    return sorted(everything)


def _locations(root: pathlib.Path, images: list[str], source: str) -> Iterator[tuple[pathlib.Path, str]]:
    """Yield the file of each image, and the key of the model's array in it."""
    for image in images:
        own = root / f"{image}_{source}.npz"
        yield (own, "activation") if own.exists() else (root / f"{image}_{COMBINED}.npz", source)


def _read(file: pathlib.Path, key: str) -> tuple[np.ndarray, pathlib.Path]:
    try:
        x = npy_file.from_archive(file, key, _MOST_BYTES)
    except KeyError:
        raise CheckpointError(f"{file}: there is no {key!r} in it; give the names that the files have") from None
    if x.ndim != 2 or x.dtype.kind != "f":
        raise CheckpointError(f"{file}: {key!r} must be floats [tokens, width], got {x.shape} {x.dtype}; save it again")
    return x, file


def _stacked(
    root: pathlib.Path,
    images: list[str],
    name: str,
    models: Mapping[str, str],
    dropped: Mapping[str, int],
    sides: Mapping[str, int],
    grid: tuple[int, int],
) -> np.ndarray:
    """Return activations of a model, [images, tokens, width], on the common grid."""
    rows = []
    for place in _locations(root, images, models[name]):
        x, file = _read(*place)
        if len(x) - dropped[name] != sides[name] ** 2:
            raise CheckpointError(
                f"{file}: must hold {dropped[name] + sides[name] ** 2} tokens, as the first file, got {len(x)}; save it again"
            )
        rows.append(_resized(x[dropped[name] :], (sides[name], sides[name]), grid))
    if len({x.shape for x in rows}) > 1:
        raise CheckpointError(f"{root}: the files of {models[name]!r} are of different widths; extract them with one model")
    return np.stack(rows)


def _dropped(name: str, n: int, given: Any) -> int:
    if given is not None:
        number = checks.integer(given, f"n_prefix_tokens[{name!r}]", 0, n - 1)
        if math.isqrt(n - number) ** 2 != n - number:
            raise InvalidInputError(f"n_prefix_tokens[{name!r}] must leave a square number of {n} tokens, got {number}")
        return number
    for number in (0, 1):
        if n > number and math.isqrt(n - number) ** 2 == n - number:
            return number
    raise InvalidInputError(
        f"n_prefix_tokens must say how many of the {n} tokens of {name!r} have no place, because they fill no square, got None"
    )


def _resized(x: np.ndarray, own: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Resize tokens, [rows * columns, width], from one grid to another."""
    if own == grid:
        return x
    places = x.astype(np.float32).reshape(*own, -1)
    rows, columns = weights(own[0], grid[0]), weights(own[1], grid[1])
    return np.einsum("ri,cj,ijw->rcw", rows, columns, places, optimize=True).reshape(grid[0] * grid[1], -1)


def weights(n: int, size: int) -> np.ndarray:
    """Return the matrix, float32 [size, n], of antialiased bilinear interpolation: triangles as wide as the larger step."""
    scale = n / size
    centres = (np.arange(size) + 0.5) * scale
    triangle = np.maximum(0, 1 - np.abs(np.arange(n) + 0.5 - centres[:, None]) / max(scale, 1))
    return (triangle / triangle.sum(1, keepdims=True)).astype(np.float32)
