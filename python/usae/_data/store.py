"""`usae.ActivationStore`: activations in a folder. `store_files.py` reads and writes the files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from usae import _usae
from usae._base import checks, html
from usae._base.float_types import widened
from usae._data import masks, shuffled_blocks, store_files
from usae._data.activations import Activations, as_aligned, check_known, check_names, columns_of, mask_of
from usae._data.chunks import rows_of
from usae._data.columns import Columns
from usae._data.narrowing import FEWEST_ROWS, Rounding, narrowed
from usae._data.store_files import DTYPES, Manifest
from usae._data.stored_array import StoredArray
from usae._files import checksummed_json, disk, locks
from usae.errors import CheckpointError, InvalidInputError

DType = Literal["float16", "float32", "bfloat16"]


class ActivationStore(Mapping[str, StoredArray]):
    """Activations of several models over the same images, in a folder of ``.npy`` files and a manifest.

    It is a mapping from model names to arrays for `UniversalSAE.fit`, `UniversalSAE.evaluate` and `usae.controls`, which read
    it piece by piece, so that memory does not grow with the store. It is written shard by shard. A writer that is stopped at
    any moment leaves whole shards, and the next writer continues after them.

    Parameters
    ----------
    path : path-like
        Folder of an existing store. `create` makes a new one.

    Raises
    ------
    CheckpointError
        If the folder is not a store, was written by a newer version, or lacks a file or a part of one. Changed bytes are found
        by `verify`, which `UniversalSAE.fit` calls.
    CheckpointFileError
        Also an OSError: the folder cannot be read.

    Examples
    --------
    >>> with usae.ActivationStore.create("acts", grid=(16, 16)) as store:
    ...     for batch, names in my_batches:
    ...         store.append(batch, image_names=names)
    >>> sae = usae.UniversalSAE(n_concepts=6144, k=32).fit(usae.ActivationStore("acts"))
    """

    def __init__(self, path: str | os.PathLike[str]):
        given = disk.folder_of(path)
        self._prepare()
        with disk.io_errors(given, "read", "the store"):
            self._folder = pathlib.Path(os.path.realpath(given))
            self._manifest = store_files.read_manifest(self._folder)
            store_files.check_sizes(self._folder, self._manifest)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        models: Mapping[str, int | Mapping[str, Any]] | None = None,
        *,
        dtype: DType = "float16",
        grid: tuple[int, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ActivationStore:
        """Make an empty store and open it for writing.

        Parameters
        ----------
        path : path-like
            A folder that is empty or does not exist yet. Its parents are made.
        models : mapping of str to int or mapping, optional
            Width of each model; or for each model a mapping with "width" and, optionally, "source", "layer" and other values
            that JSON can represent, which are kept in `models`. Default: None, which takes the models of the first shard.
        dtype : "float16", "float32" or "bfloat16"
            Type in which activations are stored. An activation beyond its range, 65504 for float16, is an error, and so is a
            model of whose variance rounding to the type would be more than a tenth, as where a mean is large against the
            spread; more than a thousandth is a warning. The files hold bfloat16 as uint16. Default: "float16".
        grid : (int, int), optional
            Rows and columns of the tokens of an image. Default: None, which means that they are not known.
        metadata : mapping, optional
            Your own values, which JSON can represent, for `metadata`. Default: None, which means none.

        Raises
        ------
        InvalidInputError
            For an argument that cannot be used.
        CheckpointFileError
            Also an OSError: the folder is not empty or cannot be written.
        """
        folder = disk.folder_of(path)
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise InvalidInputError(f'dtype must be "float16", "float32" or "bfloat16", got {disk.shortened(dtype)}')
        if grid is not None:
            grid = checks.grid(grid)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidInputError(f"metadata must be a mapping, got {checks.shown(metadata)}")
        manifest = {
            "format": store_files.FORMAT,
            "format_version": store_files.FORMAT_VERSION,
            "package_version": _usae.version(),
            "dtype": dtype,
            "models": [] if models is None else _described(models),
            "grid": None if grid is None else list(grid),
            "tokens": None if grid is None else grid[0] * grid[1],
            "metadata": store_files.checked_json(dict(metadata or {}), "metadata"),
            "finished": False,
            "shards": [],
        }
        return cls._created(folder, manifest)

    @classmethod
    def _created(cls, given: pathlib.Path, manifest: Manifest) -> ActivationStore:
        self = cls.__new__(cls)
        self._prepare()
        self._manifest = manifest
        with disk.io_errors(given, "write", "the store"):
            disk.make_parents(given)
            given.mkdir(exist_ok=True)
            self._folder = pathlib.Path(os.path.realpath(given))
            store_files.check_free(self._folder)  # before the lock file is made in it
            self._lock = store_files.locked(self._folder)
            try:
                store_files.check_free(self._folder)  # and again, because another process may have made a store meanwhile
                store_files.write_manifest(self._folder, manifest)
            except BaseException:
                self.close()
                raise
        return self

    def _prepare(self) -> None:
        self._lock: locks.Lock | None = None
        self._guard = locks.Guard("the store")
        self._rounding: dict[str, Rounding] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs for reading. A writer's lock stays with the writer."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_guard", "_rounding")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._prepare()
        self.__dict__.update(state)

    # --- Contents ----------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> StoredArray:
        manifest = self._manifest  # once, because another thread may append
        widths = {model["name"]: model["width"] for model in manifest["models"]}
        check_known(name, list(widths), "store")
        model = list(widths).index(name)
        kept, item_shape = manifest["dtype"], (*_shape(manifest), widths[name])
        return StoredArray(
            _lengths(manifest),
            item_shape,
            DTYPES[kept],
            kept == "bfloat16",
            manifest["finished"],
            self._folder,
            lambda: _images_of(manifest),
            functools.partial(_open_shard, self._folder, manifest, model, item_shape),
            functools.partial(_verify_model, self._folder, manifest, model),
            lambda: [shard["files"][model]["sha256"] for shard in manifest["shards"]],
            functools.partial(_read_mask, self._folder, manifest),
            self._columns(manifest, name).labels,
            _grid(manifest),
        )

    @staticmethod
    def _columns(manifest: Manifest, name: str) -> Columns:
        width = next(model["width"] for model in manifest["models"] if model["name"] == name)
        labels = manifest.get("column_labels", {}).get(name)
        return Columns(width, None if labels is None else tuple(labels), "the store")

    def __iter__(self) -> Iterator[str]:
        return iter(self.model_names)

    def __len__(self) -> int:
        """Number of models."""
        return len(self.model_names)

    def __contains__(self, name: object) -> bool:
        return name in self.model_names

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def path(self) -> pathlib.Path:
        """The store's folder, with symbolic links resolved."""
        return self._folder

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models, in the order of the files."""
        return tuple(model["name"] for model in self._manifest["models"])

    @property
    def widths(self) -> dict[str, int]:
        """Width of each model."""
        return {model["name"]: model["width"] for model in self._manifest["models"]}

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """A mapping for each model with "width", "source", "layer" and the other values that `create` was given."""
        keys = ("width", "source", "layer")
        return {model["name"]: {key: model[key] for key in keys} | model["details"] for model in self._manifest["models"]}

    @property
    def dtype(self) -> str:
        """Type in which activations are stored: "float16", "float32" or "bfloat16"."""
        return self._manifest["dtype"]

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the tokens of an image; None if they are not known."""
        return _grid(self._manifest)

    @property
    def n_tokens(self) -> int:
        """Number of rows of each model, over all images, whether they count or not."""
        manifest = self._manifest
        return sum(_lengths(manifest)) * (manifest["tokens"] or 1)

    @property
    def mask(self) -> np.ndarray | None:
        """Which rows count, bool [images, tokens] or [rows]; None if all do. It is read from the files each time."""
        return _read_mask(self._folder, self._manifest)

    @property
    def n_shards(self) -> int:
        """Number of shards. Each has one file for each model."""
        return len(self._manifest["shards"])

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images in order. Empty if the store has rows that belong to no image."""
        return _images_of(self._manifest)

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the metadata that `create` was given."""
        return store_files.checked_json(self._manifest["metadata"], "metadata")

    @property
    def finished(self) -> bool:
        """Whether its writer has called `finish`. Training and evaluation refuse a store that is not finished."""
        return self._manifest["finished"]

    def _repr_html_(self) -> str:
        """Return the models as a table, for notebooks."""
        keys = ("width", "source", "layer")
        rows = [[name, *(str(of[key] or "") for key in keys)] for name, of in self.models.items()]
        return html.table(repr(self), ["model", *keys], rows)

    def __repr__(self) -> str:
        widths = ", ".join(f"{name}: {width}" for name, width in self.widths.items()) or "no models yet"
        state = ", masked" if any("mask" in shard for shard in self._manifest["shards"]) else ""
        state += "" if self.finished else ", not finished"
        return f"ActivationStore({str(self._folder)!r}; {widths}; {self.n_tokens} tokens, {self.dtype}{state})"

    def verify(self) -> None:
        """Read every file and compare it with its checksum (SHA-256).

        Raises
        ------
        CheckpointError
            If files are missing, cut short or changed. The message names them.
        """
        with disk.io_errors(self._folder, "read", "the store"):
            store_files.verify(self._folder, self._manifest)

    def batches(self, batch_size: int, *, seed: int = 0, position: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yield batches of rows in random order. The next rows are read in the background.

        Parameters
        ----------
        batch_size : int
            Number of rows in a batch. The last batch may be smaller.
        seed : int
            The order is a pure function of the seed and the epoch. It is the same on any computer, however rows are split into
            files. Default: 0.
        position : int
            Row of the endless sequence of epochs at which to begin. Batches end where the epoch ends. ``n_tokens``, less the
            rows that the store's mask leaves out, is the start of the second epoch, which has another order. Default: 0.

        Yields
        ------
        dict of str to ndarray
            Activations of each model, [n, width], in the type of the store, or float32 if that is bfloat16. Row t of every
            model is the same place in the same image. Rows that do not count by the store's mask are in no batch.

        Raises
        ------
        InvalidInputError
            For an argument that cannot be used, and for a store that is not finished.
        """
        seed = checks.integer(seed, "seed", 0, 2**64 - 1)
        batch_size = checks.integer(batch_size, "batch_size", 1, 2**24)
        position = checks.integer(position, "position", 0, 2**53)
        return self._batches(as_aligned(self, "store"), seed, batch_size, position)

    def _batches(
        self, acts: dict[str, Activations], seed: int, batch_size: int, position: int
    ) -> Iterator[dict[str, np.ndarray]]:
        n_tokens = next(iter(acts.values())).n_tokens
        left = n_tokens - position % n_tokens
        with contextlib.closing(shuffled_blocks.shuffled_batches(acts, seed, batch_size, position)) as batches:
            for batch, rows in batches:
                some = np.arange(batch_size)[:left] if rows is None else rows[:left]
                yield {name: rows_of(x, some) for name, x in batch.items()}
                left -= len(some)
                if not left:
                    return

    # --- Writing -----------------------------------------------------------------------------------------------------

    def append(self, acts: Mapping[str, Any], image_names: Sequence[str] | None = None, *, mask: Any = None) -> None:
        """Write one shard. The store contains it when this returns, even if the computer stops then, and not earlier.

        Parameters
        ----------
        acts : mapping of str to array, each [images, tokens, width] or each [rows, width]
            Activations of every model, as for `UniversalSAE.fit`. Hundreds of images at a time keep the number of files small.
        image_names : sequence of str, optional
            A name for each image. Default: None, which takes the images' numbers in the store.
        mask : array of bool, or mapping of str to array of bool, optional
            Rows that count, as for `MaskedActivations`. It is kept in the store, and whatever reads the store leaves the other
            rows out. They are stored too, as they are; of numbers that are not finite in the type of the store, as 0. A shard
            may have no row that counts. Default: None, which means all.

        Raises
        ------
        InvalidInputError
            If models, shapes or names do not fit the store or each other, or if activations are not finite in the type of the
            store, or lost in its rounding. Nothing is written then.
        CheckpointFileError
            Also an OSError: the disk is full or cannot be written, or another writer has the store open.
        """
        with self._guard:
            self._append(acts, image_names, mask)

    def _append(self, acts: Mapping[str, Any], image_names: Sequence[str] | None, mask: Any) -> None:
        with disk.io_errors(self._folder, "write", "the store"):
            self._open_for_writing()
        manifest = dict(self._manifest)
        known = {name: self._columns(manifest, name) for name in self.model_names}
        given = as_aligned(acts, "acts", known or None, mask, empty=True)
        given = {
            name: dataclasses.replace(x, array=np.asarray(x.array), bfloat16=False) if x.stored else x
            for name, x in given.items()
        }
        if not known:
            manifest["models"] = _described({name: x.width for name, x in given.items()})
            known = columns_of(given)
        labels = {name: list(each) for name, x in given.items() if (each := known[name].adding(x.labels).labels) is not None}
        manifest |= {"column_labels": labels} if labels else {}
        n, manifest["tokens"] = _common_shape(given, manifest)
        names = self._names(image_names, n, manifest["tokens"])
        counts = mask_of(given)
        arrays, checks_of_rounding = [], {}
        for (name, x), model in zip(given.items(), manifest["models"], strict=True):
            kept, floats = narrowed(x, manifest["dtype"], model["layer"])
            arrays.append(kept)
            if floats.dtype != kept.dtype:
                read = widened(kept, manifest["dtype"] == "bfloat16")
                checks_of_rounding[name] = self._sample(name).with_rows(floats, read, x.rows)
                checks_of_rounding[name].check(x.label, name, manifest["dtype"])
        with disk.io_errors(self._folder, "write", "the store"):
            try:
                files = [store_files.write_shard(self._folder, self.n_shards, i, x) for i, x in enumerate(arrays)]
                shard: dict[str, Any] = {"n": n, "images": names, "files": files}
                if counts is not None:
                    shard["mask"] = store_files.write_mask(self._folder, self.n_shards, counts.reshape(_shape(manifest, n)))
                self._replace(manifest | {"finished": False, "shards": [*manifest["shards"], shard]})
                self._rounding |= checks_of_rounding
            except BaseException:
                with contextlib.suppress(OSError, CheckpointError):
                    self._manifest = store_files.read_manifest(self._folder)  # this may be the new manifest
                    store_files.remove_leftovers(self._folder, self._manifest)
                raise

    def set_mask(self, mask: Any) -> None:
        """Replace the mask of the whole store, also of one that is finished. Activations are neither read nor changed.

        Parameters
        ----------
        mask : array of bool, mapping of str to array of bool, or None
            Rows that count, as for `MaskedActivations`. None means all.

        Raises
        ------
        InvalidInputError
            If the mask has another shape than the store, or no row that counts. Nothing is written then.
        CheckpointFileError
            Also an OSError: the disk is full or cannot be written, or another writer has the store open.

        Examples
        --------
        >>> store.set_mask(np.linalg.norm(store["vit"][:], axis=-1) < 100)
        """
        with self._guard:
            with disk.io_errors(self._folder, "write", "the store"):
                self._open_for_writing()
            lengths = _lengths(self._manifest)
            shape = _shape(self._manifest, sum(lengths))
            counts = masks.combined(masks.by_model(mask, "mask", self.model_names), [shape])
            if counts is not None:
                masks.numbers(counts, "mask")
            parts = np.split(np.ones(shape, bool) if counts is None else counts.reshape(shape), np.cumsum(lengths)[:-1])
            with disk.io_errors(self._folder, "write", "the store"):
                shards = [{key: value for key, value in shard.items() if key != "mask"} for shard in self._manifest["shards"]]
                for number, (shard, part) in enumerate(zip(shards, parts, strict=True)):
                    if not part.all():
                        shard["mask"] = store_files.write_mask(self._folder, number, part)
                self._replace(self._manifest | {"shards": shards})
                store_files.remove_leftovers(self._folder, self._manifest)

    def finish(self) -> None:
        """Mark the store as finished. Leaving ``with`` without an error does so too, and closes the store."""
        with self._guard, disk.io_errors(self._folder, "write", "the store"):
            self._open_for_writing()
            if not self.finished:
                self._replace(self._manifest | {"finished": True})

    def close(self) -> None:
        """Allow other writers to write. The store can still be read, and `append` opens it for writing again."""
        with self._guard:
            self._unlock()

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._lock is not None and self._lock.held:  # in a forked process it is not
            self.finish()
        self.close()

    # --- Private -----------------------------------------------------------------------------------------------------

    def _open_for_writing(self) -> None:
        """Lock the store for this writer, and read the manifest again, because another writer may have changed it."""
        if self._lock is None or not self._lock.held:
            self._lock = store_files.locked(self._folder)
            try:
                self._manifest = store_files.read_manifest(self._folder)
                store_files.remove_leftovers(self._folder, self._manifest)
            except BaseException:
                self._unlock()
                raise

    def _sample(self, name: str) -> Rounding:
        """Return what this writer knows of the spread of a model, or some of the rows that the store holds."""
        known = self._rounding.get(name, Rounding())
        if name in self._rounding or not self.n_tokens:
            return known
        mask = self.mask
        numbers = np.arange(self.n_tokens) if mask is None else np.flatnonzero(mask)
        if not len(numbers):
            return known
        stored = self[name]
        some = numbers[:: -(-len(numbers) // (2 * FEWEST_ROWS))]
        return known.with_rows(widened(stored.rows(some), stored.bfloat16), None)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _replace(self, manifest: Manifest) -> None:
        store_files.write_manifest(self._folder, manifest)
        self._manifest = manifest

    def _names(self, image_names: object, n: int, tokens: int | None) -> list[str] | None:
        if tokens is None:
            if image_names is not None:
                raise InvalidInputError(
                    f"image_names must be None for rows that belong to no image, got {disk.shortened(image_names)}"
                )
            return None
        if image_names is None:
            first = sum(_lengths(self._manifest))
            return [str(number) for number in range(first, first + n)]
        if isinstance(image_names, (str, bytes)) or not isinstance(image_names, Sequence):
            raise InvalidInputError(f"image_names must be a list of names, got {disk.shortened(image_names)}")
        if len(image_names) != n or not all(isinstance(name, str) for name in image_names):
            raise InvalidInputError(f"image_names must hold text for each of {n} images, got {disk.shortened(image_names)}")
        for name in image_names:
            if not checksummed_json.is_kept(name):
                raise InvalidInputError(
                    f"image_names must be text or names of files as Python reads them, got {disk.shortened(name)}; leave "
                    f"out half characters (surrogates)"
                )
        return [str(name) for name in image_names]


def _lengths(manifest: Manifest) -> list[int]:
    return [shard["n"] for shard in manifest["shards"]]


def _images_of(manifest: Manifest) -> tuple[str, ...]:
    return tuple(name for shard in manifest["shards"] for name in shard["images"] or ())


def _grid(manifest: Manifest) -> tuple[int, int] | None:
    return tuple(manifest["grid"]) if manifest["grid"] else None


def _shape(manifest: Manifest, *n: int) -> tuple[int, ...]:
    """Return `n` images and their tokens, or `n` rows if there are no images."""
    return n if manifest["tokens"] is None else (*n, manifest["tokens"])


def _read_mask(folder: pathlib.Path, manifest: Manifest) -> np.ndarray | None:
    with disk.io_errors(folder, "read", "the store"):
        return store_files.read_mask(folder, manifest)


def _open_shard(folder: pathlib.Path, manifest: Manifest, model: int, item_shape: tuple[int, ...], shard: int) -> np.ndarray:
    """Open a file of the store as a memory map."""
    file = folder / store_files.shard_name(shard, model)
    with disk.io_errors(folder, "read", "the store"):
        return store_files.open_shard(file, (manifest["shards"][shard]["n"], *item_shape), DTYPES[manifest["dtype"]])


def _verify_model(folder: pathlib.Path, manifest: Manifest, model: int) -> None:
    with disk.io_errors(folder, "read", "the store"):
        store_files.verify(folder, manifest, model)


def _described(models: object) -> list[dict[str, Any]]:
    """Return the manifest's entries of models."""
    if not isinstance(models, Mapping):
        raise InvalidInputError(f"models must be a mapping from names to widths, got {checks.shown(models)}")
    check_names(models, "models")
    result = []
    for name, value in models.items():
        known = dict(value) if isinstance(value, Mapping) else {"width": value}
        width = checks.integer(known.pop("width", None), f"models[{name!r}]: width", 1, 2**20)
        model = {"name": name, "width": width, "source": known.pop("source", None), "layer": known.pop("layer", None)}
        model["details"] = store_files.checked_json(known, f"models[{name!r}]")
        if not store_files.is_model(model):
            raise InvalidInputError(f"models[{name!r}]: source and layer must be text, got {checks.shown(value)}")
        result.append(model)
    return result


def _common_shape(given: Mapping[str, Activations], manifest: Manifest) -> tuple[int, int | None]:
    """Return the number of images and their tokens, or of rows and None. All models and the store have to agree on them."""
    shapes = {x.array.shape[:-1] for x in given.values()}
    if len(shapes) > 1:
        found = ", ".join(f"{name}: {list(x.array.shape)}" for name, x in given.items())
        raise InvalidInputError(f"acts: every model must have the same images and tokens, got {found}")
    shape = shapes.pop()
    tokens = shape[1] if len(shape) == 2 else None
    if tokens != manifest["tokens"] and (manifest["shards"] or manifest["grid"]):
        kept = "rows, [rows, width]" if manifest["tokens"] is None else f"images of {manifest['tokens']} tokens"
        raise InvalidInputError(f"acts must be {kept}, as the store has them, got {list(shape)} before the width")
    return shape[0], tokens
