"""Reads dictionaries of tensors from torch and safetensors files, without torch and without executing what is in them.

A torch file is a pickle in an archive, and loading a pickle can execute code; `torch_pickle` executes none. Tensors are read
when they are converted. What all conversions of a file may take is limited, because many names may stand for one tensor.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import weakref
import zipfile
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import numpy as np

from usae._base.float_types import widened
from usae._files import disk, regular_files, torch_pickle
from usae.errors import CheckpointError, CheckpointFileError, UsaeMemoryError

_MOST_PICKLE = 2**24  # bytes; a checkpoint of the published code has some ten thousand
_EXPANSION = 8  # bytes of float32 for a byte of the file: float16, and each tensor four times
_SMALL = 2**26  # bytes that any file may expand to
_LEAST = 4096  # bytes that a tensor takes with its model, however small it is


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the dictionary in a torch or safetensors file. Tensors of a torch file are converted when they are used."""
    disk.path_of(path, "a file")
    name = os.fspath(path)
    try:
        file = regular_files.opened(path)
        start = file.read(9)
        if start.startswith(b"PK"):
            return _TorchFile(name, file).content()
        with file:
            if start[8:] == b"{":
                return _safetensors(name, file)
    except OSError as error:
        raise CheckpointFileError(error.errno, f"cannot read the checkpoint: {error.strerror}", name) from error
    except MemoryError as error:
        raise UsaeMemoryError(f"{name} must fit into memory, got {os.stat(path).st_size:,} bytes; read it elsewhere") from error
    if start.startswith(b"\x80"):
        raise CheckpointError(
            f"{name} is a bare pickle, or a torch file from before PyTorch 1.6; such a file is not opened here. If "
            f"you trust who made it, rewrite it in PyTorch: torch.save(torch.load(path), new_path)"
        )
    raise CheckpointError(f"{name} is neither a torch file (.pth, .pt) nor a safetensors file, or is cut short; copy it again")


def _safetensors(name: str, file: io.BufferedReader) -> dict[str, Any]:
    import safetensors

    dtypes = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
    integers = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8}
    result: dict[str, Any] = {}
    try:
        with safetensors.safe_open(name, framework="numpy"):  # it maps the file, and compares its length before that is read
            file.seek(0)
        for key, tensor in safetensors.deserialize(file.read()):
            if tensor["dtype"] in dtypes:
                array = np.frombuffer(tensor["data"], dtypes[tensor["dtype"]]).reshape(tensor["shape"])
                result[key] = float32_copy(array, tensor["dtype"] == "BF16")
            elif tensor["dtype"] in integers:
                result[key] = np.frombuffer(tensor["data"], integers[tensor["dtype"]]).reshape(tensor["shape"])
            else:
                result[key] = _Unusable(tensor["dtype"])
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:  # the latter: sides that NumPy does not have
        raise CheckpointError(f"{name} is not a whole safetensors file: {error}; copy it again") from None
    return result


class _TorchFile:
    """A zip archive that `torch.save` wrote: NAME/data.pkl, and the bytes of each storage in NAME/data/KEY."""

    def __init__(self, path: str, file: io.BufferedReader):
        weakref.finalize(self, file.close)  # it is open as long as one of its tensors is in use
        self.path = path
        self._size = os.fstat(file.fileno()).st_size
        self._left = max(_SMALL, _EXPANSION * self._size)
        self._newest: tuple[str, bytes] = "", b""  # the storage that was read last: several tensors may be views of it
        try:
            self._archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises exceptions of many types for a damaged archive
            self.refuse(f"is not a whole torch file: {error}; copy it again")
        pickles = [name for name in self._archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            self.refuse("is a zip archive, but not one that torch.save wrote: it has no NAME/data.pkl; save it again")
        self._name = pickles[0].split("/")[0]
        order = self.entry("byteorder", default=b"little")
        if order not in (b"little", b"big"):
            self.refuse(f"has an unknown byte order {order[:20]!r}; save it again")
        self.byte_order: Literal["<", ">"] = "<" if order == b"little" else ">"

    def refuse(self, reason: str) -> NoReturn:
        raise CheckpointError(f"{self.path} {reason}")

    def entry(self, key: str, default: bytes | None = None, most: int | None = None) -> bytes:
        name = f"{self._name}/{key}"
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            if default is not None:
                return default
            self.refuse(f"lacks {name[:200]}; copy it again")
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses, and a small file could expand to any size
            self.refuse(f"has a compressed entry, {name[:200]}, which torch.save does not write; save it again")
        if info.file_size > (self._size if most is None else most):
            self.refuse(f"says that {name[:200]} has {info.file_size:,} bytes, which is too many; copy it again")
        try:
            return self._archive.read(info)
        except Exception as error:  # as above
            self.refuse(f"is damaged at {name[:200]}: {error}; copy it again")

    def storage(self, key: str) -> bytes:
        if self._newest[0] != key:
            self._newest = key, self.entry(f"data/{key}")
        return self._newest[1]

    def spend(self, n_bytes: int) -> None:
        """Refuse a file whose tensors together take more than it can hold."""
        self._left -= n_bytes
        if self._left < 0:
            self.refuse("holds the same tensor under many names, which takes more memory than it may; save each tensor once")

    def content(self) -> Mapping[str, Any]:
        try:
            content = torch_pickle.load(self.entry("data.pkl", most=_MOST_PICKLE))
        except torch_pickle.UnknownName as error:
            self.refuse(
                f"names {error}, which a checkpoint of tensors and numbers does not need; nothing was executed. If you trust "
                f"who made it, save model.state_dict() alone"
            )
        except CheckpointError:
            raise
        except ValueError as error:
            self.refuse(f"has a damaged pickle: {error}; copy it again, or save model.state_dict()")
        if not isinstance(content, dict):
            self.refuse(f"must hold a dictionary, got {type(content).__name__}; save model.state_dict()")
        return _Lazy(self, content)


class _Lazy(Mapping[str, Any]):
    """A dictionary of a torch file, whose views become tensors, and whose dictionaries become the same, when they are taken."""

    def __init__(self, file: _TorchFile, content: dict[str, Any]):
        self._file, self._content = file, content

    def __getitem__(self, key: str) -> Any:
        value = self._content[key]
        if isinstance(value, torch_pickle.View):
            return StoredTensor(self._file, value)
        return _Lazy(self._file, value) if isinstance(value, dict) else value

    def __iter__(self) -> Any:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


@dataclasses.dataclass(frozen=True)
class _Unusable:
    """A tensor of a type that parameters cannot have."""

    dtype: str


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a torch file."""

    file: _TorchFile
    view: torch_pickle.View

    @property
    def is_float(self) -> bool:
        return self.view.storage.dtype in torch_pickle.FLOATS

    def to_float32(self, label: str) -> np.ndarray:
        dtype = self.view.storage.dtype
        if dtype not in torch_pickle.FLOATS:
            raise CheckpointError(f"{label} must be a tensor of floats, got {dtype}; save model.state_dict()")
        return float32_copy(self._elements(label, torch_pickle.FLOATS[dtype]), dtype == "BFloat16Storage")

    def to_integers(self, label: str) -> np.ndarray:
        dtype = self.view.storage.dtype
        if dtype not in torch_pickle.INTEGERS:
            raise CheckpointError(f"{label} must be a tensor of integers, got {dtype}; save model.state_dict()")
        return self._elements(label, torch_pickle.INTEGERS[dtype]).astype(np.int64)

    def _elements(self, label: str, type_name: str) -> np.ndarray:
        """Return a view of the elements, in a type of this size."""
        shape, strides, offset, storage = self.view.shape, self.view.strides, self.view.offset, self.view.storage
        dtype = np.dtype(type_name).newbyteorder(self.file.byte_order)
        data = self.file.storage(storage.key)
        elements = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        # A view with more elements than its storage is an expanded one, with which a small file could ask for any size.
        if 0 in shape or last >= len(elements) or math.prod(shape) > len(elements):
            raise CheckpointError(
                f"{label}: shape {list(shape)}, strides {list(strides)} and offset {offset} do not fit into "
                f"its {len(elements)} elements; save it again"
            )
        self.file.spend(max(4 * math.prod(shape), _LEAST))
        in_bytes = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(elements[offset:], shape, in_bytes, writeable=False)


def float32_copy(array: np.ndarray, bfloat16: bool) -> np.ndarray:
    """Return a float32 copy."""
    if bfloat16:
        return widened(array, bfloat16)
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused later
        return np.array(array, np.float32)
