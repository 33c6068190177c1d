"""Reads the pickles of CIFAR without pickle: a dictionary of lists, numbers, texts and arrays of
bytes, and nothing else.

A pickle is a program for a machine with a stack. The one here knows the instructions that such a
dictionary needs; it calls nothing, and hands no state of the file to anybody. (Even an unpickler
that allows only numpy's own types is not safe: their state holds pointers.) The real files were
written by Python 2 (protocol 2); other tools write others, up to 5.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_CORES = ("numpy.core", "numpy._core")
_RECONSTRUCT = tuple(f"{core}.multiarray _reconstruct" for core in _CORES)
_FROM_BUFFER = tuple(f"{core}.numeric _frombuffer" for core in _CORES)
_KNOWN = (*_RECONSTRUCT, *_FROM_BUFFER, "numpy ndarray", "numpy dtype", "_codecs encode")

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_OLD_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # bytes of Python 2
_VALUES = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
           "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")  # fmt: skip
_IGNORED = ("PROTO", "FRAME", "READONLY_BUFFER")
_FIXED_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, eq=False)
class _Name:
    """A function or a class that the file names; it is never looked up."""

    text: str


@dataclass(eq=False)
class _Call:
    """What calling ``name`` would give. Nothing is called; ``state`` is what the file then sets."""

    name: str
    arguments: tuple[Any, ...]
    state: tuple[Any, ...] = ()


_MARK = object()


@dataclass
class _Machine:
    """``spare``: bytes that texts may still be encoded to; a text counts each time it is."""

    spare: int
    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)

    def take(self, kind: type) -> Any:
        top = self.stack.pop()
        if not isinstance(top, kind):
            raise ValueError(f"it has {type(top).__name__} where {kind.__name__} must be")
        return top

    def take_to_mark(self) -> list[Any]:
        """What lies above the last mark, which goes too."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                above = self.stack[place + 1 :]
                del self.stack[place:]
                return above
        raise ValueError("a mark is missing")

    def top(self, kind: type) -> Any:
        top = self.take(kind)
        self.stack.append(top)
        return top

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _BYTES:
            self.stack.append(bytes(argument))
        elif name in _OLD_TEXTS:
            self.stack.append(argument.encode("latin-1"))
        elif name in _FIXED_TUPLES:
            count = _FIXED_TUPLES[name]
            if count > len(self.stack):
                raise ValueError("a tuple is cut")
            items = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
            self.stack.append(tuple(items))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            raise ValueError(f"it asks for {name}")


def _global(machine: _Machine, argument: str) -> None:
    if argument not in _KNOWN:
        raise ValueError(f"it asks for {argument[:80].replace(' ', '.')}")
    machine.stack.append(_Name(argument))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.take(str), machine.take(str)
    _global(machine, f"{module} {name}")


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, name = machine.take(tuple), machine.take(_Name)
    is_text = name.text == "_codecs encode"  # how Python 3 writes bytes in protocol 2
    machine.stack.append(_encode(machine, *arguments) if is_text else _Call(name.text, arguments))


def _encode(machine: _Machine, text: Any, coding: Any) -> bytes:
    if not isinstance(text, str) or coding not in ("latin1", b"latin1"):
        raise ValueError("it asks for an encoding that is not latin1")
    machine.spare -= len(text)
    if machine.spare < 0:
        raise ValueError("it repeats its texts to more than the size of the file")
    return text.encode("latin-1")


def _build(machine: _Machine, _: Any) -> None:
    state, call = machine.take(tuple), machine.take(_Call)
    call.state = state
    machine.stack.append(call)


def _put(machine: _Machine, place: int) -> None:
    machine.memory[place] = machine.stack[-1]


def _set_items(target: dict[Any, Any], items: list[Any]) -> None:
    if len(items) % 2:
        raise ValueError("a key has no value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, bytes)):
            raise ValueError(f"a key is {type(key).__name__}, not a text")
        target[key.encode() if isinstance(key, str) else key] = value


def _set_item(machine: _Machine, _: Any) -> None:
    pair = [machine.stack.pop(), machine.stack.pop()][::-1]
    _set_items(machine.top(dict), pair)


def _append(machine: _Machine, _: Any) -> None:
    item = machine.stack.pop()
    machine.top(list).append(item)


def _extend(machine: _Machine, _: Any) -> None:
    items = machine.take_to_mark()
    machine.top(list).extend(items)


def _set_marked(machine: _Machine, _: Any) -> None:
    items = machine.take_to_mark()
    _set_items(machine.top(dict), items)


def _dict(machine: _Machine, _: Any) -> None:
    found: dict[Any, Any] = {}
    _set_items(found, machine.take_to_mark())
    machine.stack.append(found)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "LIST": lambda machine, _: machine.stack.append(machine.take_to_mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.take_to_mark())),
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": _extend,
    "SETITEM": _set_item,
    "SETITEMS": _set_marked,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memory)),
    "GET": lambda machine, place: machine.stack.append(machine.memory[place]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memory[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memory[place]),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}


def read_dictionary(content: bytes) -> dict[bytes, Any]:
    """The dictionary of a pickle: keys as bytes; values are numbers, texts, lists and so on, or
    what :func:`as_bytes_array` takes. Time and memory are of the order of ``len(content)``.

    Raises:
        ValueError: It is something else, or cut.
    """
    machine = _Machine(spare=len(content))
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        return machine.take(dict)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


def as_bytes_array(value: Any) -> np.ndarray | None:
    """The array uint8 of any shape that a value of the file stands for; None if it is none."""
    if not isinstance(value, _Call):
        return None
    if value.name in _FROM_BUFFER and len(value.arguments) == 4:
        raw, kind, shape, order = value.arguments
    elif value.name in _RECONSTRUCT and len(value.state) == 5:
        _, shape, kind, in_columns, raw = value.state
        order = "F" if in_columns else "C"
    else:
        return None
    if not isinstance(raw, bytes) or not _is_byte_type(kind):
        return None
    flat = np.frombuffer(raw, np.uint8)
    sides = [side for side in shape if type(side) is int] if isinstance(shape, tuple) else []
    if len(sides) != 2 or len(shape) != 2 or min(sides) < 0 or sides[0] * sides[1] != len(flat):
        return None
    return flat.reshape(sides, order="F" if order == "F" else "C")


def _is_byte_type(value: Any) -> bool:
    known = isinstance(value, _Call) and value.name == "numpy dtype" and value.arguments
    return bool(known) and value.arguments[0] in ("u1", b"u1", "|u1", "uint8")
