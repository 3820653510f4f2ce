"""Reads dictionaries of tensors from torch and safetensors files, without torch and without executing what is in them.

A torch file is a pickle, and loading a pickle can execute code. The unpickler here executes none: it knows dictionaries,
numbers and tensors, and refuses a file that names anything else.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np

from usae.errors import CheckpointError, CheckpointFileError


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return the dictionary in a torch or safetensors file. Tensors of a torch file are converted when they are used."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            if start.startswith(b"PK"):
                return _TorchFile(path, file).content()
            if start[8:] == b"{":
                file.seek(0)
                return _safetensors(path, file.read())
    except OSError as error:
        raise CheckpointFileError(error.errno, f"cannot read the checkpoint: {error.strerror}", os.fspath(path)) from error
    if start.startswith(b"\x80"):
        raise CheckpointError(
            f"{os.fspath(path)} is a bare pickle, or a torch file from before PyTorch 1.6; such a file is not opened here. If "
            f"you trust who made it, rewrite it in PyTorch: torch.save(torch.load(path), new_path)"
        )
    raise CheckpointError(
        f"{os.fspath(path)} is neither a torch file (.pth, .pt) nor a safetensors file, or is cut short; copy it again"
    )


def _safetensors(path: str | os.PathLike[str], data: bytes) -> dict[str, Any]:
    import safetensors

    dtypes = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
    result: dict[str, Any] = {}
    try:
        for key, tensor in safetensors.deserialize(data):
            if tensor["dtype"] in dtypes:
                array = np.frombuffer(tensor["data"], dtypes[tensor["dtype"]]).reshape(tensor["shape"])
                result[key] = float32_copy(array, tensor["dtype"] == "BF16")
            else:
                result[key] = _Unusable(tensor["dtype"])
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{os.fspath(path)} is not a whole safetensors file: {error}; copy it again") from None
    return result


class _TorchFile:
    """A zip archive that `torch.save` wrote: NAME/data.pkl, and the bytes of each storage in NAME/data/KEY."""

    def __init__(self, path: str | os.PathLike[str], file: BinaryIO):
        self.path = os.fspath(path)
        file.seek(0)
        data = io.BytesIO(file.read())  # so that tensors can be read after the file is closed
        try:
            self._archive = zipfile.ZipFile(data)
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

    def entry(self, key: str, default: bytes | None = None) -> bytes:
        name = f"{self._name}/{key}"
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            if default is not None:
                return default
            self.refuse(f"lacks {name}; copy it again")
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses, and a small file could expand to any size
            self.refuse(f"has a compressed entry, {name}, which torch.save does not write; save it again")
        try:
            return self._archive.read(info)
        except Exception as error:  # as above
            self.refuse(f"is damaged at {name}: {error}; copy it again")

    def content(self) -> Mapping[str, Any]:
        try:
            content = _Unpickler(self, self.entry("data.pkl")).load()
        except CheckpointError:
            raise
        except Exception as error:  # pickle raises exceptions of many types for a damaged or hostile pickle
            self.refuse(f"has a damaged pickle: {type(error).__name__}: {error}; copy it again")
        if not isinstance(content, dict):
            self.refuse(f"must hold a dictionary, got {type(content).__name__}; save model.state_dict()")
        return content


# --- The pickle -------------------------------------------------------------------------------------------------------


class _Dictionary(dict[Any, Any]):
    """Replaces OrderedDict. Its attributes, such as the `_metadata` of torch, are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Inert:
    """Replaces NumPy scalars, which occur only in the state of the optimiser. It has no value."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class _Unusable:
    """A tensor of a type that parameters cannot have."""

    dtype: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The bytes of one or more tensors in the archive."""

    file: _TorchFile
    key: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: element [i, j, ...] is at offset + i * strides[0] + j * strides[1] + ..."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_float32(self, label: str) -> np.ndarray:
        if self.storage.dtype not in _FLOATS:
            raise CheckpointError(f"{label} must be a tensor of floats, got {self.storage.dtype}; save model.state_dict()")
        dtype = np.dtype(_FLOATS[self.storage.dtype]).newbyteorder(self.storage.file.byte_order)
        data = self.storage.file.entry(f"data/{self.storage.key}")
        elements = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        # A view with more elements than its storage is an expanded one, with which a small file could ask for any size.
        if 0 in self.shape or last >= len(elements) or math.prod(self.shape) > len(elements):
            raise CheckpointError(
                f"{label}: shape {list(self.shape)}, strides {list(self.strides)} and offset {self.offset} do not fit into "
                f"its {len(elements)} elements; save it again"
            )
        strides = [stride * dtype.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides, writeable=False)
        return float32_copy(view, self.storage.dtype == "BFloat16Storage")


_FLOATS = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2"}
_OTHERS = {"LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage"}
_NUMPY = {
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),  # pickle's protocol 2 writes the bytes of scalars with it
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows a few names and imports nothing."""

    def __init__(self, file: _TorchFile, data: bytes):
        super().__init__(io.BytesIO(data))
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        # Each call returns a new lambda or class, so that a pickle that sets attributes on it changes nothing else.
        if (module, name) == ("collections", "OrderedDict"):
            return type("OrderedDict", (_Dictionary,), {})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuilt_tensor(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and (name in _FLOATS or name in _OTHERS):
            return name
        if (module, name) in _NUMPY:
            return type("Inert", (_Inert,), {})
        self._file.refuse(
            f"names {module}.{name}, which a checkpoint of tensors and numbers does not need; nothing was executed. If you "
            f"trust who made it, save model.state_dict() alone"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), *_) if dtype in _FLOATS or dtype in _OTHERS:
                return _Storage(self._file, key, dtype)
        self._file.refuse(f"refers to data in an unknown way: {str(pid)[:80]}; save model.state_dict()")


def _rebuilt_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> StoredTensor:
    whole = [offset, *shape, *strides]
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError("a tensor that is none")
    if not all(type(number) is int and 0 <= number < 2**48 for number in whole):
        raise ValueError(f"a tensor with offset, shape and strides {str(whole)[:80]}")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def float32_copy(array: np.ndarray, bfloat16: bool) -> np.ndarray:
    """Return a float32 copy. bfloat16, viewed as uint16, is the upper half of a float32."""
    if bfloat16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused later
        return np.array(array, np.float32)
