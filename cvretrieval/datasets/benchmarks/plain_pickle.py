"""Reading the plain data in a pickle without running anything that it says.

Published ground truth comes as pickles, and unpickling a file runs whatever code its author put there. Here the
opcodes are taken apart by `pickletools.genops`, which only parses, and followed for containers, strings, numbers and
numpy arrays. Names of callables are never looked up: the few that numpy's arrays need are symbols with a fixed meaning,
all others are refused.
"""

from __future__ import annotations

import math
import os
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class _Mark:
    """The mark on the stack."""


class _Symbol(str):
    """A callable that the pickle names; it has a meaning here but is never looked up."""

    __slots__ = ()


class _Dtype:
    """A dtype being built: numpy gives the byte order in a second step."""

    def __init__(self, code: str) -> None:
        # No structures, no objects: numbers, booleans, and text of fixed length.
        if not re.fullmatch(r"[biufSU]\d{1,4}", code):
            raise ValueError(f"arrays of {code!r}, which are not plain numbers or text")
        self.code, self.order = code, "="

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", ">", "|", "=")):
            raise ValueError("a malformed dtype")
        self.order = state[1]

    def finished(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """An array being built; containers that hold it are rewritten at the end."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise ValueError("a malformed array")
        _, shape, dtype, fortran, data = state
        self.value = _make_array(data, dtype, shape, "F" if fortran else "C")


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of plain data; nothing in it is executed.

    Parameters
    ----------
    path : path

    Returns
    -------
    object
        Of None, booleans, numbers, text, bytes, lists, tuples, dictionaries, sets, and numpy arrays and scalars of
        numbers or text. Byte strings of Python 2 become text (latin-1).

    Raises
    ------
    ValueError
        If the file is no pickle, is cut off, or holds anything else: the message says what and at which byte.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cvretrieval.datasets import read_plain_pickle
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "gnd.pkl"
    ...     _ = file.write_bytes(b"(dp0\\nVjunk\\np1\\n(lp2\\nI3\\nas.")
    ...     read_plain_pickle(file)
    {'junk': [3]}
    """
    source = Path(path)
    reader = _Reader()
    position = 0
    try:
        # A generator over bytes: lengths that a file claims are checked against what is there before they are read.
        for opcode, argument, at in pickletools.genops(source.read_bytes()):
            position = at or 0
            reader.follow(opcode.name, argument)
        return _finish(reader.result(), {})
    except RecursionError:
        raise ValueError(f"{source} is nested too deeply to be a list of ground truth.") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else f"a damaged part ({type(error).__name__})"
        raise ValueError(
            f"{source} cannot be read as plain data: at byte {position} there is {reason}. Nothing in it was executed."
        ) from error


class _Reader:
    """The stack machine of pickle, for data only."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            raise ValueError(f"the instruction {name}")

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise ValueError(f"an end with {len(self.stack)} objects")
        return self.stack[0]

    def items_to_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        items = []
        while not isinstance(top := self.stack.pop(), _Mark):
            items.append(top)
        return items[::-1]

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        _of_type(self.stack[-1], list).append(item)

    def append_all(self, _: Any) -> None:
        items = self.items_to_mark()
        _of_type(self.stack[-1], list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _of_type(self.stack[-1], dict)[_key(key)] = value

    def set_items(self, _: Any) -> None:
        items = self.items_to_mark()
        _of_type(self.stack[-1], dict).update(_pairs(items))

    def add_items(self, _: Any) -> None:
        items = self.items_to_mark()
        _of_type(self.stack[-1], set).update(map(_key, items))

    def last(self, n: int) -> tuple[Any, ...]:
        items = [self.stack.pop() for _ in range(n)]
        return tuple(items[::-1])

    def name_symbol(self, argument: Any) -> None:
        # The parser gives "module name"; protocol 4 keeps both on the stack.
        module, name = self.last(2) if argument is None else argument.split(" ", 1)
        symbol = f"{module}.{name}"
        if symbol not in _SYMBOLS:
            raise ValueError(f"the name of a program, {symbol}")
        self.stack.append(_Symbol(symbol))

    def reduce(self, _: Any) -> None:
        arguments = _of_type(self.stack.pop(), tuple)
        symbol = _of_type(self.stack.pop(), _Symbol)
        self.stack.append(_SYMBOLS[symbol](*arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        _of_type(self.stack[-1], _Dtype, _Array).build(state)

    def put(self, key: Any) -> None:
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]


def _of_type(value: Any, *types: type) -> Any:
    if not isinstance(value, types):
        raise ValueError(f"{type(value).__name__} where {types[0].__name__.strip('_').lower()} should be")
    return value


def _key(value: Any) -> Any:
    if isinstance(value, (_Symbol, _Mark, _Dtype, _Array)):
        raise ValueError("a key that is not plain")
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _make_array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"an array whose data is {type(data).__name__}")
    finished = _of_type(dtype, _Dtype).finished()
    sides = shape if isinstance(shape, tuple) else (shape,)
    if any(not isinstance(side, int) or side < 0 for side in sides):
        raise ValueError("an array of impossible shape")
    if math.prod(sides) * finished.itemsize != len(data):
        raise ValueError(f"an array of shape {sides} in {len(data)} bytes")
    # A copy: the data may be shared by several arrays, and arrays are writable.
    return np.frombuffer(bytes(data), dtype=finished).reshape(sides, order=order).copy()  # type: ignore[call-overload]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _make_array(data, dtype, shape, "F" if order == "F" else "C")
    return array


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _dtype(code: Any, *_: Any) -> _Dtype:
    return _Dtype(_of_type(code, str))


def _scalar(dtype: Any, data: Any) -> Any:
    return _make_array(data, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes encoded as {encoding!r}")
    return _of_type(text, str).encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


def _set(items: Any = ()) -> set[Any]:
    return set(map(_key, _of_type(items, list, tuple)))


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _type_only(*_: Any) -> Any:
    raise ValueError("a call of numpy.ndarray")


_SYMBOLS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _type_only,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    **{f"{builtins}.bytes": _empty_bytes for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.set": _set for builtins in ("builtins", "__builtin__")},
    **{f"{builtins}.frozenset": _frozenset for builtins in ("builtins", "__builtin__")},
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}

_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": _Mark,
}

_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)

_STEPS: dict[str, Callable[[_Reader, Any], Any]] = {
    "POP": lambda reader, _: reader.stack.pop(),
    "POP_MARK": lambda reader, _: reader.items_to_mark(),
    "DUP": lambda reader, _: reader.stack.append(reader.stack[-1]),
    "LIST": lambda reader, _: reader.stack.append(reader.items_to_mark()),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.items_to_mark())),
    "TUPLE1": lambda reader, _: reader.stack.append(reader.last(1)),
    "TUPLE2": lambda reader, _: reader.stack.append(reader.last(2)),
    "TUPLE3": lambda reader, _: reader.stack.append(reader.last(3)),
    "DICT": lambda reader, _: reader.stack.append(_pairs(reader.items_to_mark())),
    "FROZENSET": lambda reader, _: reader.stack.append(frozenset(map(_key, reader.items_to_mark()))),
    "APPEND": _Reader.append,
    "APPENDS": _Reader.append_all,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "ADDITEMS": _Reader.add_items,
    "GLOBAL": _Reader.name_symbol,
    "STACK_GLOBAL": _Reader.name_symbol,
    "REDUCE": _Reader.reduce,
    "BUILD": _Reader.build,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Reader.put),
    **{
        name: lambda reader, key: reader.stack.append(reader.memo[int(key)])
        for name in ("GET", "BINGET", "LONG_BINGET")
    },
}


def _finish(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """Replace the arrays being built by arrays, once for each object, so that loops end."""
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, (_Symbol, _Mark, _Dtype)):
        raise ValueError("something that is not plain data")
    # The first of the pair keeps the object alive: its id must not be given to another one meanwhile.
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without data")
        done[id(value)] = (value, value.value)
    elif isinstance(value, list):
        done[id(value)] = (value, value)
        value[:] = [_finish(item, done) for item in value]
    elif isinstance(value, dict):
        done[id(value)] = (value, value)
        for key in value:
            value[key] = _finish(value[key], done)
    elif isinstance(value, tuple):
        done[id(value)] = (value, tuple(_finish(item, done) for item in value))
    return done[id(value)][1] if id(value) in done else value
