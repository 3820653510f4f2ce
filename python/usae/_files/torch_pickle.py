"""Reads the pickle in a torch file without Python's unpickler, which can execute code, and has no limits of stack and memory.

It knows dictionaries, lists, tuples, numbers, text and tensors. Every step looks at one value: nothing recurses, so that
nesting of any depth does no harm, and keys are hashed only if they are plain values. The memo is a dictionary, so a large index
costs nothing. Memory grows with the pickle's length alone.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any, NoReturn

FLOATS = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2"}
INTEGERS = {"LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1"}
OTHERS = {*INTEGERS, "BoolStorage"}

_SCALARS = (str, bytes, int, float, bool, type(None))
_LARGEST_INT = 2**256
_INERT = {  # NumPy scalars, which occur only in the state of the optimiser
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),  # pickle's protocol 2 writes the bytes of scalars with it
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """The bytes of one or more tensors in the archive."""

    key: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor: element [i, j, ...] is at offset + i * strides[0] + j * strides[1] + ... of its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Inert:
    """Stands for a value that is not needed, and for its type."""


@dataclasses.dataclass(frozen=True)
class _Function:
    """Stands for something that the pickle calls."""

    call: Callable[..., Any]


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _view(*arguments),
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **dict.fromkeys(_INERT, lambda *_: _Inert()),
}


class UnknownName(ValueError):
    """The pickle names something that tensors and numbers do not need."""


def load(data: bytes) -> Any:
    """Return what was pickled: plain values, with a `View` for each tensor.

    Raises
    ------
    ValueError
        If the pickle is damaged, or names anything but what tensors and numbers need: then it is an `UnknownName`.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
            if opcode.name == "STOP":
                (value,) = machine.stack
                return value
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:  # it takes what is not there
        raise ValueError(f"{type(error).__name__}: {error}") from None
    raise ValueError("it has no end")


class _Machine:
    """The stack and the memo of a pickle, and what each instruction does to them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(_checked_literal(argument))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            getattr(self, f"_{name.lower()}", self._unknown)(*(() if argument is None else (argument,)))

    def _unknown(self, *_: object) -> NoReturn:
        raise ValueError("it has an instruction that torch.save does not write")

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._above_mark()

    def _take(self, n: int) -> list[Any]:
        if len(self.stack) < n:
            raise IndexError("the stack is empty")
        items = self.stack[-n:]
        del self.stack[-n:]
        return items

    def _tuple(self) -> None:
        items = self._above_mark()
        self.stack.append(tuple(items))

    def _tuple1(self) -> None:
        self.stack.append(tuple(self._take(1)))

    def _tuple2(self) -> None:
        self.stack.append(tuple(self._take(2)))

    def _tuple3(self) -> None:
        self.stack.append(tuple(self._take(3)))

    def _list(self) -> None:
        items = self._above_mark()
        self.stack.append(items)

    def _dict(self) -> None:
        items = self._above_mark()
        self.stack.append(_dictionary(zip(items[::2], items[1::2], strict=True)))

    def _append(self) -> None:
        (item,) = self._take(1)
        _only(self.stack[-1], list).append(item)

    def _appends(self) -> None:
        items = self._above_mark()
        _only(self.stack[-1], list).extend(items)

    def _setitem(self) -> None:
        pair = self._take(2)
        _only(self.stack[-1], dict).update(_dictionary([pair]))

    def _setitems(self) -> None:
        items = self._above_mark()
        _only(self.stack[-1], dict).update(_dictionary(zip(items[::2], items[1::2], strict=True)))

    def _additems(self) -> None:
        self._above_mark()
        _only(self.stack[-1], _Inert)

    def _frozenset(self) -> None:
        self._above_mark()
        self.stack.append(_Inert())

    def _global(self, words: str) -> None:
        module, name = words.split(" ", 1)
        self.stack.append(_named(module, name))

    def _stack_global(self) -> None:
        module, name = self._take(2)
        self.stack.append(_named(_only(module, str), _only(name, str)))

    def _reduce(self) -> None:
        function, arguments = self._take(2)
        if _only(function, _Function).call is dict and arguments:  # a list of pairs, many times the same, would take any memory
            raise ValueError("it has a dictionary that is made from another value")
        self.stack.append(function.call(*_only(arguments, tuple)))

    _newobj = _reduce

    def _build(self) -> None:
        """Drop a state: of a dictionary it has attributes such as torch's `_metadata`, of a NumPy type its layout."""
        self._take(1)
        if not isinstance(self.stack[-1], (dict, _Inert)):
            raise ValueError("it sets attributes of what has none")

    def _binpersid(self) -> None:
        match self._take(1)[0]:
            case ("storage", str(dtype), str(key), *_) if dtype in FLOATS or dtype in OTHERS:
                self.stack.append(Storage(key, dtype))
            case _:
                raise ValueError("it refers to data in an unknown way")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": _Inert,
}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "STRING", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip


def _checked_literal(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= _LARGEST_INT:
        raise ValueError("it has an integer of more than 256 bits")
    return value


def _only(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"it has {type(value).__name__} where {kind.__name__} belongs")
    return value


def _dictionary(pairs: Any) -> dict[Any, Any]:
    """Make a dictionary. Keys are plain values, or tuples of them: hashing a nested tuple recurses without a limit."""
    result: dict[Any, Any] = {}
    for key, value in pairs:
        if not all(isinstance(part, _SCALARS) for part in (key if type(key) is tuple else (key,))):
            raise ValueError("it has a dictionary whose keys are not plain values")
        result[key] = value
    return result


def _named(module: str, name: str) -> Any:
    if module == "torch" and (name in FLOATS or name in OTHERS):
        return name
    if (module, name) in _FUNCTIONS:
        return _Function(_FUNCTIONS[module, name])
    raise UnknownName(f"{module}.{name}"[:200])


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> View:
    if type(storage) is not Storage or len(_only(shape, tuple)) != len(_only(strides, tuple)) or len(shape) > 8:
        raise ValueError("it has a tensor that is none")
    whole = [offset, *shape, *strides]
    if not all(type(number) is int and 0 <= number < 2**48 for number in whole):
        raise ValueError("it has a tensor whose offset, shape or strides are no numbers of elements")
    return View(storage, offset, shape, strides)
