"""Reading ONNX files: the nodes and the tensors of a graph, as far as the demonstration's network needs them.

An ONNX file is a message in the protocol buffers' wire format. Fields that are not needed are skipped. Nothing in the file is
executed. The numbers of the fields are those of ``onnx.proto``.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

Value = int | float | str | list[int]

_FLOAT, _INT64 = 1, 7
_DTYPES: dict[int, np.dtype[Any]] = {_FLOAT: np.dtype("<f4"), _INT64: np.dtype("<i8")}


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a graph: its kind, names of the values that it takes and computes, and its attributes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Value]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The operations of a file in order, its tensors by name, and the names of what it takes."""

    nodes: list[Node]
    tensors: dict[str, np.ndarray]
    inputs: list[str]


def read(content: bytes) -> Graph:
    """Read a file's graph.

    Raises
    ------
    ValueError
        If `content` is no ONNX file, or has tensors of another type than float32 and int64.
    """
    try:
        graph = next(_message(value) for number, value in _fields(memoryview(content)) if number == 7)
        nodes, tensors, inputs = [], {}, []
        for number, value in _fields(graph):
            if number == 1:
                nodes.append(_node(_message(value)))
            elif number == 5:
                name, tensor = _tensor(_message(value))
                tensors[name] = tensor
            elif number == 11:
                inputs.append(_text(next(part for field, part in _fields(_message(value)) if field == 1)))
    except (IndexError, StopIteration, TypeError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"content: expected an ONNX file, got something else ({type(error).__name__}: {error})") from error
    return Graph(nodes, tensors, inputs)


def _node(message: memoryview) -> Node:
    inputs, outputs, kind, attributes = [], [], "", {}
    for number, value in _fields(message):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5:
            name, attribute = _attribute(_message(value))
            attributes[name] = attribute
    return Node(kind, tuple(inputs), tuple(outputs), attributes)


def _attribute(message: memoryview) -> tuple[str, Value]:
    """Return name and value. Attributes of a type that no operation here has are empty lists."""
    name, integers, single = "", [], None
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number == 2:
            single = struct.unpack("<f", _message(value))[0]
        elif number == 3:
            single = _signed(value)
        elif number == 4:
            single = _text(value)
        elif number == 8:
            integers += [_signed(value)] if isinstance(value, int) else list(_integers(_message(value)))
    return name, integers if single is None else single


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    shape: list[int] = []
    name, kind, raw, floats = "", 0, None, []
    for number, value in _fields(message):
        if number == 1:
            shape += [_signed(value)] if isinstance(value, int) else list(_integers(_message(value)))
        elif number == 2:
            kind = _signed(value)
        elif number == 4:
            floats.append(bytes(_message(value)))
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = bytes(_message(value))
    if kind not in _DTYPES:
        raise ValueError(f"content: expected tensors of float32 or int64, got ONNX's type {kind} in {name!r}")
    content = b"".join(floats) if raw is None else raw
    values = np.frombuffer(content, _DTYPES[kind]).copy()
    if values.size != np.prod(shape, dtype=int):
        raise ValueError(f"content: expected {shape} numbers of {name!r}, got {values.size}")
    return name, values.reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Return the number and the value of each field: an integer, or the bytes of anything else."""
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _integer(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _integer(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise TypeError(f"a field of wire type {kind}")
        if at + length > len(message):
            raise IndexError("a field is cut short")
        yield key >> 3, message[at : at + length]
        at += length


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    """Return the integer of variable length at `at`, and where the next begins."""
    result = shift = 0
    while True:
        byte = message[at]
        at += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, at
        shift += 7


def _integers(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _integer(message, at)
        yield _signed(value)


def _signed(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise TypeError("bytes in place of an integer")
    return value - 2**64 if value >= 2**63 else value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("an integer in place of bytes")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
