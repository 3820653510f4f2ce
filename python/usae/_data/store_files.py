"""The files of an activation store: ``usae-store.json``, the manifest, and one ``shard-000000-0.npy`` for each shard and model.
A shard with rows that do not count has a mask too, ``shard-000000-mask-`` and the beginning of its checksum.

A shard belongs to the store once the manifest names it. Each file is written under another name, synced to disk and renamed.
The manifest is replaced last. So a computer that stops at any point leaves the store as it was before the shard or after it,
and the next writer removes leftover files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import pathlib
import re
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from usae import _usae
from usae._data.columns import are_labels
from usae._files import checksummed_json, disk, locks, npy_file, regular_files
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError

FORMAT = "usae-store"
FORMAT_VERSION = 2
"""2 has a checksum of the manifest, and may have masks."""
MANIFEST = "usae-store.json"
DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}

_CHECKSUM_SINCE = 2
_MOST_BYTES = 2**32  # some 100 million names of images
_MOST_VALUES = 2**28

_OURS = re.compile(r"shard-\d{6,}-(\d+|mask-[0-9a-f]{16})\.npy(\.new)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Manifest = dict[str, Any]


def shard_name(shard: int, model: int) -> str:
    return f"shard-{shard:06}-{model}.npy"


def mask_name(shard: int, described: dict[str, Any]) -> str:
    """The name follows from the contents, so that a new mask can be written beside the one that it replaces."""
    return f"shard-{shard:06}-mask-{described['sha256'][:16]}.npy"


# --- Writing -----------------------------------------------------------------------------------------------------------


def write_shard(folder: pathlib.Path, shard: int, model: int, array: np.ndarray) -> dict[str, Any]:
    """Write one file atomically and return the manifest's entry of it."""
    return _write_array(folder / shard_name(shard, model), array)


def write_mask(folder: pathlib.Path, shard: int, mask: np.ndarray) -> dict[str, Any]:
    """Write the mask of a shard, [images, tokens] or [rows], like `write_shard`."""
    hashing = _Hashing(io.BytesIO())
    np.lib.format.write_array(hashing, mask, version=(1, 0), allow_pickle=False)
    return _write_array(folder / mask_name(shard, hashing.described), mask)


def _write_array(file: pathlib.Path, array: np.ndarray) -> dict[str, Any]:
    folder = file.parent
    beside = folder / f"{file.name}.new"
    with regular_files.created(beside) as stream:
        hashing = _Hashing(stream)
        np.lib.format.write_array(hashing, array, version=(1, 0), allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)
    return hashing.described


class _Hashing:
    """A file that computes size and checksum of what is written to it: `described`, the manifest's entry of it."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.n_bytes = 0

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self.sha256.update(data)
        self.n_bytes += len(data)

    @property
    def described(self) -> dict[str, Any]:
        return {"bytes": self.n_bytes, "sha256": self.sha256.hexdigest()}


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
    disk.sync(folder)  # the renamed shards have to be on the disk before a manifest names them
    new = folder / f"{MANIFEST}.new"
    disk.write_text(new, _to_json(manifest))
    new.replace(folder / MANIFEST)
    disk.sync(folder)


def _to_json(manifest: Manifest) -> str:
    """Return indented JSON with one line for each shard, for people to read, and with its checksum."""
    shards = ",\n    ".join(json.dumps(shard, ensure_ascii=False, allow_nan=False) for shard in manifest["shards"])
    last = {key: manifest[key] for key in ("column_labels", "shards") if key in manifest}
    first = {key: value for key, value in manifest.items() if key not in last}
    empty = {key: type(value)() for key, value in last.items()}
    text = json.dumps(first | empty, indent=2, ensure_ascii=False, allow_nan=False)
    end = '"shards": []\n}'
    if "column_labels" in manifest:
        labels = json.dumps(manifest["column_labels"], ensure_ascii=False)
        text = text.replace('"column_labels": {}', f'"column_labels": {labels}', 1)
    whole = text.removesuffix(end) + f'"shards": [\n    {shards}\n  ]\n}}' if shards else text
    return checksummed_json.with_checksum(whole + "\n")


def remove_leftovers(folder: pathlib.Path, manifest: Manifest) -> None:
    """Remove files of a writer that was stopped: those with a shard's name that the manifest does not list."""
    listed = {file.name for file, _ in files_of(folder, manifest)}
    for path in folder.iterdir():
        if path.name == f"{MANIFEST}.new" or (_OURS.fullmatch(path.name) and path.name not in listed):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def check_free(folder: pathlib.Path) -> None:
    """Refuse to make a store in a folder that is not empty. The files of a `create` that was stopped are allowed."""
    names = {path.name for path in folder.iterdir()}
    if not names <= {locks.LOCK, f"{MANIFEST}.new"}:
        words = "open it with ActivationStore(path), or " if MANIFEST in names else ""
        raise CheckpointFileError(
            errno.EEXIST, f"cannot make a store there: the folder is not empty; {words}choose another path", str(folder)
        )


def locked(folder: pathlib.Path) -> locks.Lock:
    return locks.locked(folder / locks.LOCK, "the store")


# --- Reading -----------------------------------------------------------------------------------------------------------


def read_manifest(folder: pathlib.Path) -> Manifest:
    try:
        raw = regular_files.read(folder / MANIFEST, _MOST_BYTES)
    except FileNotFoundError:
        if folder.is_dir():
            raise CheckpointError(f"{folder}: there is no {MANIFEST} in it; give the folder of a store") from None
        raise
    except NotADirectoryError:
        raise CheckpointError(f"{folder}: must be the folder of a store, got a file; give the folder that it is in") from None
    try:
        return checked_manifest(raw)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def checked_manifest(raw: bytes) -> Manifest:
    """Parse the manifest and check everything that other code relies on."""
    manifest, has_checksum = checksummed_json.parsed(raw, MANIFEST, _REMEDY, _MOST_VALUES)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f'{MANIFEST} was not written by usae: its "format" is not "{FORMAT}"; give the folder of a store')
    version = manifest.get("format_version")
    if not disk.is_integer(version, 1):
        raise disk.unexpected(MANIFEST, "format_version", version)
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{MANIFEST}: format_version must be at most {FORMAT_VERSION}, which usae {_usae.version()} knows, got {version} "
            f"from usae {manifest.get('package_version')}; update usae"
        )
    checksummed_json.check_has_checksum(has_checksum, version >= _CHECKSUM_SINCE, MANIFEST, _REMEDY)
    keys = _KEYS | ({"column_labels": lambda value: isinstance(value, dict)} if "column_labels" in manifest else {})
    disk.check_keys(manifest, keys, MANIFEST)
    for key, is_valid in keys.items():
        if not is_valid(manifest[key]):
            raise disk.unexpected(MANIFEST, key, manifest[key])
    names = [model["name"] for model in manifest["models"]]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{MANIFEST}: a model's name occurs twice in {names}; {_REMEDY}")
    widths = {model["name"]: model["width"] for model in manifest["models"]}
    for name, labels in manifest.get("column_labels", {}).items():
        if name not in widths or not are_labels(labels, widths[name]):
            raise disk.unexpected(MANIFEST, f"column_labels[{name!r}]", labels)
    if manifest["grid"] is not None and math.prod(manifest["grid"]) != manifest["tokens"]:
        raise disk.unexpected(MANIFEST, "tokens", manifest["tokens"])
    for number, shard in enumerate(manifest["shards"]):
        _check_shard(shard, f"shards[{number}]", manifest)
    return manifest | {"format_version": FORMAT_VERSION}


def _check_shard(shard: object, where: str, manifest: Manifest) -> None:
    tokens, models, item = manifest["tokens"], manifest["models"], DTYPES[manifest["dtype"]].itemsize
    masked = {"mask": None} if isinstance(shard, dict) and "mask" in shard else {}
    disk.check_keys(shard, {"n": None, "images": None, "files": None} | masked, f"{MANIFEST}: {where}")
    if masked and not _is_mask(shard["mask"]):  # type: ignore[index]
        raise disk.unexpected(MANIFEST, f"{where}.mask", shard["mask"])  # type: ignore[index]
    n, images, files = shard["n"], shard["images"], shard["files"]  # type: ignore[index]
    if not disk.is_integer(n, 1):
        raise disk.unexpected(MANIFEST, f"{where}.n", n)
    named = isinstance(images, list) and len(images) == n and all(isinstance(name, str) for name in images)
    if not (named if tokens is not None else images is None):
        raise disk.unexpected(MANIFEST, f"{where}.images", images)
    if not isinstance(files, list) or len(files) != len(models) or not models or not all(map(_is_file, files)):
        raise disk.unexpected(MANIFEST, f"{where}.files", files)
    sizes = [(file, model["width"] * item) for file, model in zip(files, models, strict=True)]
    sizes += [(shard["mask"], 1)] if masked else []  # type: ignore[index]
    for file, row in sizes:  # sizes of arrays follow from n, so n has to follow from the files
        header = file["bytes"] - n * (tokens or 1) * row
        if not 0 < header <= npy_file.MOST_HEADER or header % 64:  # NumPy aligns the numbers
            raise disk.unexpected(MANIFEST, f"{where}.n", n)


def check_sizes(folder: pathlib.Path, manifest: Manifest) -> None:
    """Refuse a store with a file that is missing or not as long as it was written."""
    for file, described in files_of(folder, manifest):
        try:
            status = file.stat()
        except FileNotFoundError:
            raise CheckpointError(f"{folder}: {file.name} is missing; {_REMEDY}") from None
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{folder}: {file.name} must be an ordinary file; {_REMEDY}")
        size = status.st_size
        if size != described["bytes"]:
            sizes = f"it has {size:,} of {described['bytes']:,} bytes"
            raise CheckpointError(f"{folder}: {file.name} is cut short or damaged: {sizes}; {_REMEDY}")


def open_shard(file: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    try:
        array = npy_file.mapped(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file.parent}: {file.name} is missing; {_REMEDY}") from None
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise CheckpointError(
            f"{file.parent}: {file.name} must hold {dtype.name} {list(shape)}, got {array.dtype} {list(array.shape)}; {_REMEDY}"
        )
    return array


def read_mask(folder: pathlib.Path, manifest: Manifest) -> np.ndarray | None:
    """Return which rows count, bool [images, tokens] or [rows]. None if all do."""
    shards = manifest["shards"]
    if not any("mask" in shard for shard in shards):
        return None
    parts = []
    for number, shard in enumerate(shards):
        shape = (shard["n"],) if manifest["tokens"] is None else (shard["n"], manifest["tokens"])
        file = folder / mask_name(number, shard["mask"]) if "mask" in shard else None
        parts.append(np.ones(shape, bool) if file is None else open_shard(file, shape, np.dtype(bool)))
    return np.concatenate(parts)


def verify(folder: pathlib.Path, manifest: Manifest, model: int | None = None) -> None:
    """Read every file, or those of one model and masks, and compare it with its checksum."""
    check_sizes(folder, manifest)
    damaged = []
    for file, described in files_of(folder, manifest, model):
        with regular_files.opened(file) as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != described["sha256"]:
                damaged.append(file.name)
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise CheckpointError(
            f"{folder}: {', '.join(damaged[:3])}{more}: damaged, not the bytes that were written (by SHA-256); {_REMEDY}"
        )


def files_of(
    folder: pathlib.Path, manifest: Manifest, model: int | None = None
) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
    for number, shard in enumerate(manifest["shards"]):
        for of, described in enumerate(shard["files"]):
            if model in (None, of):
                yield folder / shard_name(number, of), described
        if "mask" in shard:
            yield folder / mask_name(number, shard["mask"]), shard["mask"]


_REMEDY = "copy it again from where it is whole, or extract into a new store"


def _is_file(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"bytes", "sha256"}
        and disk.is_integer(value["bytes"], 1)
        and isinstance(value["sha256"], str)
    )


def _is_mask(value: object) -> bool:
    return _is_file(value) and _SHA256.fullmatch(value["sha256"]) is not None  # type: ignore[index]


def is_model(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "width", "source", "layer", "details"}
        and isinstance(value["name"], str)
        and disk.is_integer(value["width"], 1, 2**20)
        and all(value[key] is None or isinstance(value[key], str) for key in ("source", "layer"))
        and isinstance(value["details"], dict)
    )


def _is_grid(value: object) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(disk.is_integer(n, 1) for n in value))


_KEYS = {
    "format": lambda value: value == FORMAT,
    "format_version": lambda value: disk.is_integer(value, 1, FORMAT_VERSION),
    "package_version": lambda value: isinstance(value, str),
    "dtype": lambda value: isinstance(value, str) and value in DTYPES,
    "models": lambda value: isinstance(value, list) and all(map(is_model, value)),
    "grid": _is_grid,
    "tokens": lambda value: value is None or disk.is_integer(value, 1),
    "metadata": lambda value: isinstance(value, dict),
    "finished": lambda value: isinstance(value, bool),
    "shards": lambda value: isinstance(value, list),  # see _check_shard
}


def checked_json(value: object, name: str) -> Any:
    """Return `value` as it will be read from JSON. InvalidInputError if JSON cannot represent it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} must be plain values that JSON has, got {disk.shortened(value)}: {error}") from None
