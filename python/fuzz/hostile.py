"""Values that no function expects: wrong types, shapes and elements, huge and empty ones, and objects whose methods raise."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import random
from typing import Any

import numpy as np


class Surprise(Exception):
    """What hostile objects raise. It must not come out of a function of usae."""


def _raise(*_: object, **__: object) -> Any:
    raise Surprise("an object whose methods raise")


_METHODS = (
    "__len__", "__iter__", "__getitem__", "__contains__", "__array__", "__float__", "__int__", "__index__", "__bool__",
    "__str__", "__repr__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__call__", "__fspath__",
    "__enter__", "keys", "items", "values", "shape", "dtype", "ndim", "size",
)  # fmt: skip


def raising(*names: str) -> Any:
    """Return an object of which these methods and attributes raise."""
    members = {name: property(_raise) if name.isalpha() else _raise for name in names}
    return type("Raising", (), members)()


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _cyclic() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


SCALARS = [
    None, True, False, 0, -1, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**64),
    10**400, -(10**400), 0.0, -0.0, 0.5, 1.5, float("nan"), float("inf"), -float("inf"), 1e308, 1e-320, -1e308, 1j,
    decimal.Decimal("NaN"), decimal.Decimal("1.5"), fractions.Fraction(1, 3), np.float32("nan"), np.float16(60000), np.int8(-1),
    np.uint64(2**64 - 1), np.bool_(True), np.longdouble(1.5), np.complex64(1j), np.datetime64("NaT"), np.str_("vit"),
    datetime.datetime(2026, 1, 1), Ellipsis, NotImplemented,
]  # fmt: skip
TEXTS = [
    "", " ", "a", "vit", "VIT", "none", "default", "\0", "a\0b", "\udcff", "\N{SNOWMAN}", "a" * 10_000, "$x$", "_", "..", "/",
    "%s{}", "\n", b"", b"vit", b"\xff", bytearray(b"x"), memoryview(b"xyz"), pathlib.Path("/"), pathlib.Path("/dev/null"),
]  # fmt: skip


def containers() -> list[Any]:
    return [
        [], (), {}, set(), frozenset(), [[]], [{}], [None], [1, "a"], (1,), [0, 1], [1, 0], [-1], [2**70], [0.5, 1], ["vit"],
        {1: 2}, {"vit": None}, {None: None}, {"": 1}, {"vit": {"vit": 1}}, {(1, 2): [3]}, {"\udcff": 1}, {1, 2}, range(3),
        range(10**9),
        iter([]), (i for i in ()), zip(), enumerate([1]), slice(None), _nested(50), _nested(2000), _cyclic(), [float("nan")],
    ]  # fmt: skip


def objects() -> list[Any]:
    single = [raising(name) for name in _METHODS]
    pairs = [
        raising("__len__", "__repr__"),
        raising("__array__", "__str__"),
        raising("__getitem__", "keys"),
        raising(*_METHODS),
    ]
    return [object(), object, type, int, len, lambda *_: None, _raise, Surprise("as a value"), np, *single, *pairs]


def arrays() -> list[Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5)).astype(np.float32)
    shapes = [
        (),
        (0,),
        (0, 0),
        (0, 5),
        (5, 0),
        (0, 3, 5),
        (3,),
        (6, 5),
        (2, 3, 5),
        (1, 1, 1, 1),
        (1,) * 32,
        (6, 4),
        (6, 6),
        (1, 5),
    ]
    types = ["i1", "u2", "i8", "?", "c8", "O", "U3", "S3", "M8[s]", "m8[s]", "f2", "f8", ">f4", "g", [("a", "f4")], "V3"]
    strided, unaligned = np.zeros((12, 10), np.float32)[::2, ::-2], np.frombuffer(bytearray(121), np.uint8)[1:].view(np.float32)
    frozen = x.copy()
    frozen.flags.writeable = False
    return [
        *(np.ones(shape, np.float32) for shape in shapes), *(np.zeros((6, 5), kind) for kind in types), strided, frozen, x.T,
        unaligned.reshape(6, 5), np.full((6, 5), np.nan), np.full((6, 5), np.inf), np.full((6, 5), 3.4e38, np.float32),
        np.full((6, 5), 1e300), np.full((6, 5), 1e-45, np.float32), np.ma.masked_array(x, x > 0), np.array(["vit"]),
        np.broadcast_to(x[:1], (6, 5)), np.asarray([[1, 2], [3, 4]]), np.array([[None]]), np.arange(5) - 2,
        np.array([2**62]), np.array([True, False]), np.random.default_rng(0), np.nditer(x),
    ]  # fmt: skip


def worst() -> dict[str, Any]:
    """Return, by name, values that are tried for every argument of every function."""
    values: dict[str, Any] = {f"raises in {name}": raising(name) for name in _METHODS}
    return values | {
        "raises everywhere": raising(*_METHODS), "nested": _nested(2000), "cyclic": _cyclic(), "huge": 10**400, "NUL": "\0",
        "no text": "\udcff", "records": np.zeros(3, [("a", "f4")]), "bytes": np.zeros((6, 5), "V3"), "a set": {1},
        "objects": np.array([[raising("__float__")]], object), "no key": {None: None}, "NaN": float("nan"), "None": None,
    }  # fmt: skip


def value(draw: random.Random) -> Any:
    """Return one hostile value."""
    pool = draw.choice([SCALARS, SCALARS, TEXTS, containers(), objects(), arrays(), arrays()])
    return draw.choice(pool)


def like(given: Any, draw: random.Random) -> Any:
    """Return a value that resembles `given`, but a part of a mapping or a sequence, or of an array, is hostile."""
    if isinstance(given, dict) and given:
        changed, key = dict(given), draw.choice(list(given))
        how = draw.randrange(4)
        if how == 0:
            del changed[key]
        elif how == 1:
            changed[value_as_key(draw)] = changed.pop(key)
        else:
            changed[key] = like(given[key], draw)
        return changed
    if isinstance(given, (list, tuple)) and given:
        changed_list = list(given)
        changed_list[draw.randrange(len(given))] = value(draw)
        return type(given)(changed_list) if type(given) in (list, tuple) else changed_list
    if isinstance(given, np.ndarray) and given.size:
        return _changed_array(given, draw)
    return value(draw)


def value_as_key(draw: random.Random) -> Any:
    key = value(draw)
    try:
        hash(key)
    except Exception:
        return "another"
    return key


def _changed_array(given: np.ndarray, draw: random.Random) -> Any:
    how = draw.randrange(8)
    if how == 0:
        return given[: draw.randrange(len(given) + 1)]
    if how == 1:
        return given[..., : draw.randrange(given.shape[-1] + 1)] if given.ndim else given
    if how == 2:
        return given.astype(draw.choice(["f2", "f8", "i4", "O", "c8", "U5", "?"]), copy=True)
    if how == 3:
        return np.asfortranarray(given)[::-1]
    if how == 4:
        return given.reshape((1, *given.shape))
    if given.dtype.kind == "f":
        changed = given.copy()
        special = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 0, 1e-45])
        changed.flat[draw.randrange(given.size)] = draw.choice(list(special.astype(given.dtype)))
        return changed
    return value(draw)
