"""Extraction into an `usae.ActivationStore`, which continues one that was interrupted."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usae._base import checks
from usae._base.progress import progress_bar
from usae._data import store_files
from usae._data.store import ActivationStore, DType
from usae._files import disk
from usae.errors import InvalidInputError
from usae.torch._extraction_plan import Plan
from usae.torch._images import Picture, named_pictures
from usae.torch._masks import PictureMasks
from usae.torch._model import LARGEST_SIDE, Model


def extract(
    plan: Plan,
    images: Any,
    dtype: DType | None,
    progress: bool | None,
    path: str | os.PathLike[str],
    shard_images: object,
    mask: Any,
) -> ActivationStore:
    """Extract into a store; see `usae.torch.extract`. No batch spans two shards, so interruptions do not change the result."""
    size = checks.integer(shard_images, "shard_images", 1, LARGEST_SIDE)
    named, n = named_pictures(images)
    masks = None if mask is None else PictureMasks(mask, plan.n_tokens, n)
    with _opened(path, plan, dtype) as store, progress_bar(n, progress, desc="extracting", unit="image") as bar:
        rest = _skipped(named, store, bar)
        _skip_masks(masks, store)
        names: list[str] = []
        while acts := _shard(plan, _loaded(itertools.islice(rest, size), names), size, store.dtype, bar):
            store.append(acts, image_names=names, mask=None if masks is None else masks.take(len(names)))
            names.clear()
        if masks is not None:
            masks.check_used_up()
        if not store.n_shards:
            raise InvalidInputError("images must hold at least one picture, got none")
        if not store.finished:
            store.finish()
    return store


def _shard(plan: Plan, rows: Iterator[Tensor], size: int, dtype: str, bar: Any) -> dict[str, np.ndarray]:
    """Return the activations of at most `size` pictures, or an empty mapping if there are none."""
    result: dict[str, np.ndarray] = {}
    done = 0
    for batch in plan.batches(rows, "float16" if dtype == "float16" else "float32"):
        n = len(next(iter(batch.values())))
        for name, x in batch.items():
            result.setdefault(name, np.empty((size, *x.shape[1:]), x.dtype))[done : done + n] = x
        done += n
        bar.update(n)
    return {name: x[:done] for name, x in result.items()}


def _loaded(shard: Iterator[Picture], names: list[str]) -> Iterator[Tensor]:
    """Yield the pictures, and append their names to `names`."""
    for name, load in shard:
        picture = load()
        names.append(_digest(picture) if name is None else name)
        yield picture


def _skipped(named: Iterator[Picture], store: ActivationStore, bar: Any) -> Iterator[Picture]:
    """Return the pictures after those in the store. The first pictures have to be those in the store."""
    for number, kept in enumerate(store.images):
        name, load = next(named, (None, None))
        if load is None:
            raise InvalidInputError(
                f"images must begin with those of the store {str(store.path)!r}, which has {len(store.images)}, got only "
                f"{number}; give all images, or another store"
            )
        got = _digest(load()) if name is None else name
        if got != kept:
            raise _different(store, f"images[{number}]", kept, got)
        bar.update()
    return named


def _skip_masks(masks: PictureMasks | None, store: ActivationStore) -> None:
    """Pass over the masks of the pictures in the store. They have to be those that the store has."""
    kept, where = store.mask, f"the store {str(store.path)!r}"
    if masks is None:
        if kept is not None and not store.finished:
            raise InvalidInputError(f"mask must be given, as when {where} was begun, got None; give it again, or another store")
        return
    for number in range(len(store.images)):
        given = masks.take(1)[0]
        if not np.array_equal(given, np.ones_like(given) if kept is None else kept[number]):
            raise InvalidInputError(
                f"mask[{number}] must be that of {where}, got another; give the mask with which it was begun, or another "
                f"store, or change it with store.set_mask(mask)"
            )


def _opened(path: str | os.PathLike[str], plan: Plan, dtype: DType | None) -> ActivationStore:
    """Open the store at `path`, which must have been made by the same plan, or make a new one."""
    models = {name: _described(model) for name, model in plan.models.items()}
    metadata = {"crop": plan.crop}
    folder = disk.folder_of(path)
    if not (folder / store_files.MANIFEST).exists():
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
    reader = model._reader
    return {
        "width": model.width,
        "source": model.source,
        "layer": model.layer,
        "network": type(model.module).__name__,
        "tokens_dropped": reader.n_prefix_tokens if reader.tokens is None else "by a function",
        "size": list(model.known_size),
        "mean": [float(value) for value in model.mean],
        "std": [float(value) for value in model.std],
        "autocast": None if model.autocast is None else str(model.autocast),
        "weights": _weights(model.module),
    }


def _weights(module: torch.nn.Module) -> str:
    """Return the SHA-256 of parameters and buffers with their names and types."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            sha256.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _digest(picture: Tensor) -> str:
    """Return a name for a picture without one: a hash of its contents."""
    return "sha256:" + hashlib.sha256(np.ascontiguousarray(picture.numpy()).data).hexdigest()[:32]
