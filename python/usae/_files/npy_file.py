"""Reads ``.npy`` files, alone or in ``.npz`` archives, whose sizes are not believed before they are compared with the file.

NumPy's own reader evaluates the header as Python source, and allocates what the header asks for.
"""

from __future__ import annotations

import io
import math
import os
import re
import zipfile
from typing import IO, NamedTuple

import numpy as np

from usae._files import regular_files
from usae.errors import CheckpointError

MOST_HEADER = 2**16 + 10
"""Bytes before the numbers, at most: what version 1.0 of the format allows."""

_QUOTE = "['\"]"
_FIELD = re.compile(
    rf"{_QUOTE}descr{_QUOTE}\s*:\s*{_QUOTE}(?P<descr>[<>=|]?[biufc]\d{{1,2}}){_QUOTE}"
    rf"|{_QUOTE}fortran_order{_QUOTE}\s*:\s*(?P<fortran_order>True|False)"
    rf"|{_QUOTE}shape{_QUOTE}\s*:\s*\((?P<shape>(?:\s*\d{{1,18}}L?\s*,)*(?:\s*\d{{1,18}}L?)?)\s*\)"
)


class Header(NamedTuple):
    """What a file says that it holds. `offset` is where the numbers begin."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def mapped(file: str | os.PathLike[str]) -> np.ndarray:
    """Open a file of numbers as a memory map that cannot be written to.

    Raises
    ------
    CheckpointError
        If it is no ordinary file, not in the format, does not hold numbers, or is cut short.
    OSError
        If it cannot be read.
    """
    with regular_files.opened(file) as stream:
        header, size = read_header(stream, os.fspath(file)), os.fstat(stream.fileno()).st_size
        if header.offset + header.n_bytes > size:
            raise CheckpointError(
                f"{os.fspath(file)} is cut short: it has {size:,} of {header.offset + header.n_bytes:,} bytes; copy it again"
            )
        try:
            order = "F" if header.fortran_order else "C"
            return np.memmap(stream, header.dtype, "r", header.offset, header.shape, order)  # type: ignore[call-overload]
        except (ValueError, OverflowError) as error:  # no bytes, but sides that NumPy does not have
            raise CheckpointError(f"{os.fspath(file)} is damaged: {error}; copy it again") from None


def from_archive(file: str | os.PathLike[str], key: str, most: int) -> np.ndarray:
    """Read an array of numbers from an ``.npz`` file.

    Raises
    ------
    KeyError
        If there is no array of that name in it.
    CheckpointError
        If the file is damaged or no such archive, or the array would take more than `most` bytes.
    OSError
        If it cannot be read.
    """
    label = os.fspath(file)
    with regular_files.opened(file) as stream:
        try:
            with zipfile.ZipFile(stream) as archive, archive.open(f"{key}.npy") as member:
                header = read_header(member, label)
                if header.n_bytes > most:
                    raise CheckpointError(
                        f"{label}: {key!r} must have at most {most:,} bytes, got {header.dtype} {list(header.shape)}; save it "
                        f"again"
                    )
                data = member.read(header.n_bytes)
                if len(data) < header.n_bytes or member.read(1):  # this compares the archive's checksum, too
                    raise CheckpointError(f"{label}: {key!r} does not have the length that it says; copy it again")
        except (CheckpointError, KeyError):
            raise
        except OSError as error:
            error.filename = error.filename or label
            raise
        except Exception as error:  # zipfile raises exceptions of many types for a damaged archive
            raise CheckpointError(f"{label} is not an .npz file, or a damaged one: {error}; copy it again") from None
    array = np.frombuffer(data, header.dtype)
    try:
        return array.reshape(header.shape, order="F" if header.fortran_order else "C")
    except ValueError as error:
        raise CheckpointError(f"{label}: {key!r} is damaged: {error}; copy it again") from None


def read_header(stream: IO[bytes] | io.BufferedReader, label: str) -> Header:
    """Read the part of a file before the numbers. `label` names the file in errors."""
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise CheckpointError(f"{label} is not a .npy file, or is cut short; write it with numpy.save")
    n_length = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(n_length), "little")
    text = stream.read(length).decode("latin-1") if length <= MOST_HEADER else ""
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(text):
        fields |= {name: value for name, value in match.groupdict().items() if value is not None}
    rest = re.sub(r"[\s,]", "", _FIELD.sub("", text))
    if len(text) != length or rest != "{}" or len(fields) != 3:
        raise CheckpointError(f"{label} is damaged, or does not hold plain numbers; write it with numpy.save")
    try:
        dtype = np.dtype(fields["descr"])
    except TypeError:
        raise CheckpointError(
            f"{label} holds numbers of an unknown type {fields['descr']!r}; write it with numpy.save"
        ) from None
    shape = tuple(int(side.strip().rstrip("L")) for side in fields["shape"].split(",") if side.strip())
    return Header(dtype, shape, fields["fortran_order"] == "True", 8 + n_length + length)
