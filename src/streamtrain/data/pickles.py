"""Pickles as plain data: read symbol by symbol, and nothing in them is executed.

A pickle is a program for a stack machine, and two of its instructions may name and call any Python
function. Here a machine of its own runs the harmless ones, and calls nothing but the few builders
of NumPy arrays that it knows by heart; it does not even import what a pickle names.
"""

import pickletools
from math import prod
from pathlib import Path

import numpy as np

from streamtrain.data.dataset import DataError, read_file

__all__ = ["read_pickle"]


class _Mark:
    """Where a list of stacked values begins."""


class _Name(str):
    """A function or class that a pickle names."""


class _Builder:
    """An array or a type of elements, until its state is known."""

    def __init__(self, kind):
        self.kind = kind
        self.value: np.ndarray | np.dtype | None = None


_MARK = _Mark()

_RECONSTRUCT = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
_FROM_BUFFER = {"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"}
_NAMES = {*_RECONSTRUCT, *_FROM_BUFFER, "numpy.ndarray", "numpy.dtype", "_codecs.encode"}

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
# What foreign bytes lead to: opcodes that do not exist, values that do not belong.
_FOREIGN = (
    ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip

_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


def read_pickle(path):
    """Read a pickle of plain values and NumPy arrays of bytes or numbers, executing nothing.

    Strings of Python 2 become :class:`str`, a character for each byte.

    Parameters
    ----------
    path : path

    Returns what was pickled: dictionaries, lists, tuples, strings, numbers and arrays.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the file is truncated or no pickle, or names anything to call but NumPy's array builders.
    """
    content = read_file(path)
    machine = _Machine(Path(path))
    try:
        for opcode, argument, position in pickletools.genops(content):
            if opcode.name == "STOP":
                return machine.result()
            machine.run(opcode.name, argument, position)
    except DataError:
        raise
    except _FOREIGN as error:
        raise DataError(f"{path}: expected a whole pickle; {error}") from None
    raise AssertionError("genops ends with STOP")


class _Machine:
    def __init__(self, path):
        self._path = path
        self._stack = []
        self._memo = {}

    def result(self):
        if len(self._stack) != 1:
            raise ValueError(f"it leaves {len(self._stack)} values instead of one")
        return _plain(self._stack[0])

    def run(self, name, argument, position):
        stack = self._stack
        if name in {"PROTO", "FRAME"}:
            return
        if name == "MARK":
            stack.append(_MARK)
        elif name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _VALUES:
            stack.append(argument)
        elif name in _TUPLES:
            count = _TUPLES[name]
            values = [self._pop() for _ in range(count)]
            stack.append(tuple(reversed(values)))
        elif name == "TUPLE":
            stack.append(tuple(self._until_mark()))
        elif name == "LIST":
            stack.append(self._until_mark())
        elif name == "DICT":
            stack.append(_pairs(self._until_mark()))
        elif name == "APPEND":
            value = self._pop()
            self._top(list).append(value)
        elif name == "APPENDS":
            values = self._until_mark()
            self._top(list).extend(values)
        elif name == "SETITEM":
            value, key = self._pop(), self._pop()
            self._top(dict)[key] = value
        elif name == "SETITEMS":
            values = self._until_mark()
            self._top(dict).update(_pairs(values))
        elif name in _PUTS:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            member, module = self._pop(), self._pop()
            stack.append(self._named(module, member))
        elif name == "REDUCE":
            arguments, function = self._pop(), self._pop()
            stack.append(self._call(function, arguments))
        elif name == "BUILD":
            state = self._pop()
            _build(self._top(_Builder), state)
        else:
            raise DataError(
                f"{self._path}: the pickle has {name} at byte {position}, which plain data and "
                f"arrays do not need; nothing was executed"
            )

    def _pop(self):
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def _until_mark(self):
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _top(self, kind):
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"it fills a {type(self._stack[-1]).__name__} as if it were another")
        return self._stack[-1]

    def _named(self, module, member):
        name = f"{module}.{member}"
        if name not in _NAMES:
            raise DataError(
                f"{self._path}: the pickle asks for {name}, which is no builder of NumPy arrays; "
                f"nothing was executed. Do not unpickle this file by other means"
            )
        return _Name(name)

    def _call(self, function, arguments):
        if not isinstance(function, _Name):
            raise ValueError("it calls what is no function")
        if function in _RECONSTRUCT:
            return _Builder("array")
        if function == "numpy.dtype":
            builder = _Builder("dtype")
            builder.value = np.dtype(_simple_type(arguments[0]))
            return builder
        if function == "_codecs.encode" and arguments[1] == "latin1":
            return arguments[0].encode("latin1")  # bytes, as Python 3 writes them for Python 2
        if function in _FROM_BUFFER:
            content, element, shape, order = arguments
            return _array(content, element, shape, order == "F")
        raise ValueError(f"it calls {function} with {arguments!r}")


def _simple_type(text):
    """The name of a type of numbers or bytes."""
    kind = str(text).lstrip("<>|=")
    if kind[:1] not in set("uifb") or not kind[1:].isdigit():
        raise ValueError(f"arrays of {text!r} are not plain numbers")
    return text


def _build(builder, state):
    if builder.kind == "dtype":
        builder.value = builder.value.newbyteorder(state[1] if state[1] in "<>" else "=")
    else:
        _, shape, element, fortran, content = state
        builder.value = _array(content, element, shape, fortran)


def _array(content, element, shape, fortran):
    if isinstance(content, str):  # of Python 2
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)):
        raise ValueError(f"an array has a {type(content).__name__} for its bytes")
    dtype = _plain(element)
    if prod(shape) * dtype.itemsize != len(content):
        raise ValueError(
            f"an array of {' x '.join(map(str, shape))} {dtype} has {len(content):,} bytes"
        )
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _plain(value, seen=None):
    """A value without the builders that stand for arrays in it.

    ``seen`` has what became of the containers so far: one may be in many places.
    """
    seen = {} if seen is None else seen
    if isinstance(value, _Builder):
        if value.value is None:
            raise ValueError("an array has no content")
        return value.value
    if isinstance(value, (dict, list, tuple)):
        if id(value) not in seen:
            seen[id(value)] = _Name("a container within itself")
            if isinstance(value, dict):
                plain = {_plain(key, seen): _plain(member, seen) for key, member in value.items()}
            else:
                plain = type(value)(_plain(member, seen) for member in value)
            seen[id(value)] = plain
        value = seen[id(value)]
    if isinstance(value, _Name):
        raise ValueError(f"{value} is no data")
    return value


def _pairs(values):
    return dict(zip(values[::2], values[1::2], strict=True))
