"""Extraction into an `usae.ActivationStore`, which continues one that was interrupted."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data import store_files
from usae._data.narrowing import Rounding
from usae._data.store import ActivationStore, DType
from usae._files import disk
from usae.errors import InvalidInputError
from usae.torch._extraction_plan import Inputs, Plan
from usae.torch._feeder import Feeder, Feeding, Outcome, kept
from usae.torch._images import Picture, named_pictures
from usae.torch._layer_output import images_first
from usae.torch._masks import PictureMasks
from usae.torch._model import Model
from usae.torch._model_arguments import LARGEST_SIDE
from usae.torch._pixels import as_channels
from usae.torch._reader import Reader


def extract(
    plan: Plan,
    images: Any,
    dtype: DType | None,
    progress: bool | None,
    path: str | os.PathLike[str],
    shard_images: object,
    mask: Any,
    reader: Reader,
    feeding: Feeding,
) -> ActivationStore:
    """Extract into a store; see `usae.torch.extract`. No batch spans two shards, so interruptions do not change the result."""
    size = checks.integer(shard_images, "shard_images", 1, LARGEST_SIDE)
    named, n = named_pictures(images, plan.channels)
    masks = None if mask is None else PictureMasks(mask, plan.n_tokens, n)
    with (
        _opened(path, plan, dtype) as store,
        progress_bar(n, progress, desc="extracting", unit="image") as bar,
        Feeder(feeding, plan, lambda picture, pixels: _prepared(plan, picture, pixels)) as feeder,
    ):
        names: list[str] = []
        numbers: list[int] = []
        rest = kept(feeder.outcomes(_after_those_in(store, plan, named, reader, numbers, bar)), reader)
        _check_masks(masks, store, numbers)
        numbers.clear()
        rounding: dict[str, Rounding] = {}  # of all shards, so that it is warned of once
        while acts := _shard(
            plan, _inputs(itertools.islice(rest, size), reader, names, numbers), size, store.dtype, bar, rounding
        ):
            store.append(acts, image_names=names, mask=None if masks is None else masks.of(numbers))
            names.clear()
            numbers.clear()
        if masks is not None:
            masks.check_used_up(reader.number + 1)
        reader.check_some(len(store.images), stacklevel=4)
        if not store.finished:
            store.finish()
    return store


def _shard(
    plan: Plan, rows: Iterator[Inputs], size: int, dtype: str, bar: Any, rounding: dict[str, Rounding]
) -> dict[str, np.ndarray]:
    """Return the activations of at most `size` pictures, or an empty mapping if there are none."""
    result: dict[str, np.ndarray] = {}
    done = 0
    for batch in plan.batches(rows, "float16" if dtype == "float16" else "float32", rounding):
        n = len(next(iter(batch.values())))
        for name, x in batch.items():
            result.setdefault(name, np.empty((size, *x.shape[1:]), x.dtype))[done : done + n] = x
        done += n
        bar.update(n)
    return {name: x[:done] for name, x in result.items()}


def _prepared(plan: Plan, picture: Picture, pixels: Tensor) -> Outcome:
    return Outcome(picture, plan.inputs_of(pixels), _name_of(picture, pixels))


def _inputs(shard: Iterator[Outcome], reader: Reader, names: list[str], numbers: list[int]) -> Iterator[Inputs]:
    """Yield pictures as networks take them, and append the pictures' names and numbers to `names` and `numbers`."""
    for outcome in shard:
        names.append(str(outcome.name))
        numbers.append(reader.number)
        yield outcome.inputs


def _after_those_in(
    store: ActivationStore, plan: Plan, named: Iterator[Picture], reader: Reader, numbers: list[int], bar: Any
) -> Iterator[Picture]:
    """Return the pictures after those in the store, and append the numbers of those in it to `numbers`.

    The first pictures have to be those in the store. Others may lie between them if they cannot be read, because they could
    not be read either when the store was made.
    """
    parts: deque[Picture] = deque()
    for number, name in enumerate(store.images):
        while True:
            if not parts:
                parts.extend(next((picture.parts() for picture in named), ()))
            picture = parts.popleft() if parts else None
            if picture is None:
                raise InvalidInputError(
                    f"images must begin with those of the store {str(store.path)!r}, which has {len(store.images)}, got only "
                    f"{number}; give all images, or another store"
                )
            if picture.name == name:
                reader.pass_over()
                break
            pixels = reader.try_to_load(picture, plan.draft) if reader.skips or picture.name is None else None
            got = picture.name if pixels is None else _name_of(picture, pixels)
            if got == name:
                break
            if pixels is not None or not reader.skips:
                raise _different(store, f"images[{number}]", name, got)
        numbers.append(reader.number)
        bar.update()
    return itertools.chain(parts, named)


def _check_masks(masks: PictureMasks | None, store: ActivationStore, numbers: list[int]) -> None:
    """Refuse masks of the pictures in the store, which have these numbers, unless they are those that the store has."""
    kept, where = store.mask, f"the store {str(store.path)!r}"
    if masks is None:
        if kept is not None and not store.finished:
            raise InvalidInputError(
                f"mask must be given, as when {where} was started, got None; give it again, or another store"
            )
        return
    for place, number in enumerate(numbers):
        given = masks.of([number])[0]
        if not np.array_equal(given, np.ones_like(given) if kept is None else kept[place]):
            raise InvalidInputError(
                f"mask[{number}] must be that of {where}, got another; give the mask with which it was started, or another "
                f"store, or change it with store.set_mask(mask)"
            )


def _opened(path: str | os.PathLike[str], plan: Plan, dtype: DType | None) -> ActivationStore:
    """Open the store at `path`, which must have been made by the same plan, or make a new one."""
    models = {name: _described(model) for name, model in plan.models.items()}
    metadata: dict[str, Any] = {"crop": plan.crop}
    if plan.draft is not None:  # which stores of earlier versions do not have
        metadata["reduce"] = True
    folder = disk.folder_of(path)
    if not (dtype is None or isinstance(dtype, str)):
        raise InvalidInputError(f"dtype must be the name of a type or None, got {checks.shown(dtype)}")
    if not os.path.exists(folder / store_files.MANIFEST):  # False too for what can be no path, of which `create` tells
        return ActivationStore.create(path, models, dtype=dtype or "float16", grid=plan.grid, metadata=metadata)
    store = ActivationStore(path)
    if dtype not in (None, store.dtype):
        raise _different(store, "dtype", store.dtype, dtype)
    if list(store.model_names) != list(models):
        raise _different(store, "models", ", ".join(store.model_names), ", ".join(models))
    if store.grid != plan.grid:
        raise _different(store, "grid", store.grid, plan.grid)
    for name, model in models.items():
        _check_same(store, f"models[{name!r}]", store.models[name], model)
    _check_same(store, "", store.metadata, metadata)
    return store


def _check_same(store: ActivationStore, where: str, kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for key in (*given, *(key for key in kept if key not in given)):
        if kept.get(key) != given.get(key):
            raise _different(store, f"{where}: {key}" if where else key, kept.get(key), given.get(key))


def _different(store: ActivationStore, what: str, kept: object, given: object) -> InvalidInputError:
    return InvalidInputError(
        f"{what} must be {kept!r}, with which the store {str(store.path)!r} was made, got {given!r}; give another store"
    )


def _described(model: Model) -> dict[str, Any]:
    """Describe everything that determines the activations of a model, including its weights, as JSON values."""
    reader, (mean, std) = model._reader, model.known_scale
    described = {
        "width": model.width,
        "source": model.source,
        "layer": model.layer,
        "network": type(model.module).__name__,
        "tokens_dropped": reader.n_prefix_tokens if reader.tokens in (None, images_first) else "by a function",
        "size": list(model.known_size),
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "autocast": None if model.autocast is None else str(model.autocast),
        "weights": _weights(model.module),
    }
    # Stores of earlier versions have none of these, and theirs were as here if left out.
    if model.channels != 3:
        described["channels"] = model.channels
    if model.preprocessing.filter != "bilinear":
        described["filter"] = model.preprocessing.filter
    return described


def _weights(module: torch.nn.Module) -> str:
    """Return the SHA-256 of parameters and buffers with their names and types."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            sha256.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _name_of(picture: Picture, pixels: Tensor) -> str:
    """Return a picture's name, or a hash of its contents for one without."""
    if picture.name is not None:
        return picture.name
    pixels = as_channels(pixels, 3) if len(pixels) == 1 else pixels
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(pixels.numpy()).data).hexdigest()[:32]
