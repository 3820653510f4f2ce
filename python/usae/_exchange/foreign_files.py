"""Files of other libraries: JSON and tensors, read without those libraries and without believing what they say."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from usae._base import checks
from usae._data.activations import as_float_array
from usae._files import disk, regular_files
from usae._files.torch_file import StoredTensor, float32_copy, read
from usae.errors import CheckpointError, CheckpointFileError, InvalidInputError

_MOST_JSON = 2**24
_PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and DataParallel, before every name


def json_of(file: pathlib.Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        text = regular_files.read(file, _MOST_JSON)
    except OSError as error:
        raise CheckpointFileError(error.errno, f"cannot read the file: {error.strerror}", str(file)) from error
    try:
        value = checks.parsed_json(text.decode())
    except ValueError as error:  # bytes that are not UTF-8 raise this too
        raise CheckpointError(f"{file} is not JSON: {error}; copy it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} must hold an object, got {disk.shortened(value)}; copy it again")
    return value


class Fields:
    """The fields of a JSON file, with errors that name the file and the field."""

    def __init__(self, file: pathlib.Path, content: Mapping[str, Any]):
        self.file, self.content = file, content

    def integer(self, key: str, otherwise: int | None = None) -> int:
        value = self.content.get(key, otherwise)
        if not disk.is_integer(value, 1, 2**24):
            raise self.error(key, "an integer from 1 to 16,777,216")
        return value

    def mean_count(self, key: str) -> float:
        """Return a mean number of concepts: an int if it is whole."""
        try:
            return checks.mean_count(self.content.get(key), key, 1, 2**24)
        except InvalidInputError:
            raise self.error(key, "a number from 1 to 16,777,216") from None

    def boolean(self, key: str, otherwise: bool) -> bool:
        value = self.content.get(key, otherwise)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def text(self, key: str, otherwise: str | None = None) -> str:
        value = self.content.get(key, otherwise)
        if not isinstance(value, str):
            raise self.error(key, "text")
        return value

    def number(self, key: str) -> float:
        value = self.content.get(key)
        number = checks.as_float(value)
        if not math.isfinite(number):
            raise self.error(key, "a finite number")
        return number

    def error(self, key: str, expected: str) -> CheckpointError:
        got = disk.shortened(self.content[key]) if key in self.content else "none"
        return CheckpointError(f"{self.file}: {key} must be {expected}, got {got}; copy it again")

    def unusable(self, key: str, what: str) -> CheckpointError:
        """Return the error of a field whose value usae has nothing for."""
        return CheckpointError(f"{self.file}: {key} is {disk.shortened(self.content.get(key))}; {what}")


class Tensors:
    """The tensors of a file or of a state_dict, with errors that name the file and the tensor."""

    def __init__(self, label: str, content: Mapping[str, Any]):
        for key in content:
            if not isinstance(key, str):
                raise CheckpointError(f"{label}: names of tensors must be text, got {disk.shortened(key)}; save it again")
        for prefix in _PREFIXES:
            if content and all(key.startswith(prefix) for key in content):
                content = {key.removeprefix(prefix): content[key] for key in content}
        self.label, self.content = label, content

    @classmethod
    def of(cls, file: pathlib.Path) -> Tensors:
        return cls(str(file), read(file))

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def renamed(self, names: Mapping[str, str], without: Iterable[str] = ()) -> Tensors:
        """Return the same tensors by other names, without some."""
        left_out = set(without)
        return Tensors(self.label, {names.get(key, key): value for key, value in self.content.items() if key not in left_out})

    def only(self, needed: Iterable[str], allowed: Iterable[str] = ()) -> None:
        """Refuse missing tensors, and tensors whose meaning is not known."""
        names = list(needed)
        for key in names:
            if key not in self.content:
                raise CheckpointError(f"{self.label}: {key} is missing, beside {self._shown()}; copy it again")
        for key in self.content:
            if key not in names and key not in set(allowed):
                raise CheckpointError(
                    f"{self.label}: unknown tensor {key[:80]!r}; usae cannot represent what it does; use another"
                )

    def floats(self, key: str, *shape: int | None) -> np.ndarray:
        """Return a tensor as float64. `shape` has the sides that it must have; None: any."""
        array, label = self._float32(key), f"{self.label}: {key}"
        wanted = "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"
        if array.ndim != len(shape) or any(side not in (None, own) for side, own in zip(shape, array.shape, strict=True)):
            raise CheckpointError(f"{label} must be {wanted}, got {list(array.shape)}; save it again")
        if array.size == 0:
            raise CheckpointError(f"{label} must have elements, got {list(array.shape)}; save it again")
        if not np.isfinite(array).all():
            raise CheckpointError(f"{label} must be finite, got NaN or infinity; use an earlier checkpoint")
        return array.astype(np.float64)

    def is_nan(self, key: str) -> bool:
        """Whether a tensor has a NaN."""
        return bool(np.isnan(self._float32(key)).any())

    def _float32(self, key: str) -> np.ndarray:
        value, label = self.content[key], f"{self.label}: {key}"
        if isinstance(value, StoredTensor):
            return value.to_float32(label)
        try:
            return float32_copy(*as_float_array(value, label))
        except InvalidInputError as error:
            raise CheckpointError(f"{error}; save it again") from None

    def integers(self, key: str) -> np.ndarray:
        value, label = self.content[key], f"{self.label}: {key}"
        if isinstance(value, StoredTensor):
            return value.to_integers(label)
        array = np.asarray(value)
        if array.dtype.kind not in "iu":
            raise CheckpointError(f"{label} must be a tensor of integers, got {array.dtype}; save it again")
        return array.astype(np.int64)

    def count(self, key: str) -> int:
        """Return a tensor of one integer from 1 on."""
        value = self.integers(key)
        if value.size != 1 or int(value.reshape(())) < 1:
            raise CheckpointError(f"{self.label}: {key} must be 1 or more, got {disk.shortened(value)}; save it again")
        return int(value.reshape(()))

    def mean_count(self, key: str) -> float:
        """Return a tensor of one number from 1 on, an int if it is whole: a mean number of concepts, of any type."""
        value = self.content[key]
        if not (value.is_float if isinstance(value, StoredTensor) else np.asarray(value).dtype.kind == "f"):
            return self.count(key)
        array = self._float32(key)
        number = float(array.reshape(())) if array.size == 1 else math.nan
        if not 1 <= number <= 2**24:
            raise CheckpointError(f"{self.label}: {key} must be a number from 1 on, got {disk.shortened(array)}; save it again")
        return int(number) if number.is_integer() else number

    def _shown(self) -> str:
        return ", ".join(key[:40] for key in list(self.content)[:6]) + (", ..." if len(self.content) > 6 else "")
