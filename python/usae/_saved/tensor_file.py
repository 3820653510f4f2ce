"""``model.safetensors``: the tensors of a saved autoencoder."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import pathlib
from typing import Any

import safetensors
import safetensors.numpy

from usae._core.tensors import INTEGERS, Tensors, is_finite
from usae._files import disk, regular_files
from usae.errors import CheckpointError, CheckpointFileError

TENSORS = "model.safetensors"
NEW_TENSORS = "model.safetensors.new"
"""The tensor file while a save replaces an older one; `saved_folder` describes the order."""


def write_tensors(file: pathlib.Path, tensors: Tensors) -> dict[str, Any]:
    with regular_files.created(file) as stream:  # in the place of a planted link, too
        permissions = os.fstat(stream.fileno()).st_mode
    try:
        safetensors.numpy.save_file(tensors, file)
    except safetensors.SafetensorError as error:  # the writer of safetensors raises this for a full disk
        raise CheckpointFileError(errno.EIO, f"cannot write the tensors: {error}", str(file)) from error
    file.chmod(permissions)  # safetensors makes files that only their owner may read
    disk.sync(file)
    return fingerprint(file)


def fingerprint(file: pathlib.Path) -> dict[str, Any]:
    """Return size in bytes and SHA-256 of a file."""
    with regular_files.opened(file, file.name) as stream:
        return {"bytes": os.fstat(stream.fileno()).st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def is_described(file: pathlib.Path, described: object) -> bool:
    """Whether this is the file of that size and SHA-256. A file of another size is not read, however long it is."""
    if not regular_files.is_one(file) or not isinstance(described, dict) or file.stat().st_size != described.get("bytes"):
        return False
    return fingerprint(file) == described


def read_tensors(folder: pathlib.Path, wanted: dict[str, Any], expected: dict[str, tuple[str, list[int]]]) -> Tensors:
    """Read and check the file of size and SHA-256 `wanted`. `expected` is the type and shape of each tensor."""
    _check_size(wanted["bytes"], expected)
    file = _found(folder, wanted)
    try:
        with safetensors.safe_open(file, framework="numpy") as stored:
            disk.check_keys(dict.fromkeys(stored.keys()), expected, file.name)
            for name, (dtype, shape) in expected.items():
                piece = stored.get_slice(name)
                if (piece.get_dtype(), piece.get_shape()) != (dtype, shape):
                    raise CheckpointError(
                        f"{file.name}: tensor {name!r} must be {dtype} {shape}, got {piece.get_dtype()} {piece.get_shape()}; "
                        f"use another save"
                    )
            tensors = {name: stored.get_tensor(name) for name in expected}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file.name} is not a safetensors file, or a damaged one: {error}; copy it again") from None
    for name, values in tensors.items():
        if not is_finite(name, values):
            raise CheckpointError(f"{file.name}: tensor {name!r} holds NaN or infinity; use an earlier save")
        if (name.endswith("_second_moment") or name.endswith(tuple(INTEGERS))) and (values < 0).any():
            raise CheckpointError(f"{file.name}: tensor {name!r} holds negative numbers; use an earlier save")
    return tensors


def _found(folder: pathlib.Path, wanted: dict[str, Any]) -> pathlib.Path:
    """Return the file of that size and checksum. `saved_folder` explains why there are two candidates."""
    found = [folder / name for name in (TENSORS, NEW_TENSORS) if (folder / name).exists()]
    if not found:
        raise CheckpointError(f"{TENSORS} is missing; copy it again")
    for file in found:
        if is_described(file, wanted):
            return file
    with regular_files.opened(found[0], found[0].name) as stream:
        size = os.fstat(stream.fileno()).st_size
    if size < wanted["bytes"]:
        raise CheckpointError(f"{TENSORS} is cut short: it has {size:,} of {wanted['bytes']:,} bytes; copy it again")
    raise CheckpointError(f"{TENSORS} is damaged or belongs to another save: usae.json describes another; copy both again")


def _check_size(n_bytes: int, expected: dict[str, tuple[str, list[int]]]) -> None:
    """Refuse a file that is longer than its tensors and their names can be, before all of it is read for its checksum."""
    tensors = sum(math.prod(shape) * _BYTES[dtype] for dtype, shape in expected.values())
    if n_bytes > tensors + _MOST_NAMES:
        raise CheckpointError(
            f"{TENSORS} must have at most {tensors + _MOST_NAMES:,} bytes for such tensors, got {n_bytes:,} in usae.json; copy "
            f"both again"
        )


_BYTES = {"F32": 4, "I64": 8}
_MOST_NAMES = 10**8  # what safetensors allows for the names and places of tensors
