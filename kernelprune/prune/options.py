"""How the options of pruning methods are described: each once, in a dataclass beside its method.

A field made by ``option`` has its default, its limits and the line that says what it is for. From
there a function takes it as a keyword (``takes``), a recipe as a key, the command line as an option
and its help. No torch here, so that the command line shows its help at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from kernelprune.errors import Error
from kernelprune.prune.checks import check_number, short

SCOPES = ("global", "global-normalised", "layer")

# Larger whole numbers have no use, and overflow somewhere.
_MOST = 1 << 53
# So many names of options are listed in a message.
_SHOWN = 20
_KINDS: dict[str, Any] = {
    "float": (int, float),
    "int": int,
    "str": str,
    "bool": bool,
    "list": (list, tuple),
    "dict": dict,
}
_Self = TypeVar("_Self", bound="Options")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def option(
    default: Any,
    text: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    choices: tuple[str, ...] = (),
    reads: Callable[[Any], Any] | None = None,
    command_line: bool = False,
) -> Any:
    """A field of an options class. ``text`` says what it is for, in one line or a few; the limits
    are those of ``check_number``, ``choices`` the words that it may be. ``reads`` makes the value
    of whatever was given for it (a word, on the command line), or raises Error.
    ``command_line``: the command that takes the class has it too."""
    limits = {"least": least, "above": above, "most": most, "below": below}
    metadata = {
        "text": text, "limits": limits, "choices": choices, "reads": reads,
        "command_line": command_line,
    }  # fmt: skip
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all options: values are checked when an object is made, whoever makes it. What one
    field cannot say by itself, ``check_together`` does."""

    def __init_subclass__(cls) -> None:
        """The docstring lists the options, as their fields describe them."""
        lines = [
            textwrap.fill(
                f"{name}: {value.metadata['text']}", 88, initial_indent=" " * 4,
                subsequent_indent=" " * 8,
            )
            for name, value in vars(cls).items()
            if isinstance(value, dataclasses.Field)
        ]  # fmt: skip
        if lines:
            cls.__doc__ = "\n".join([f"{(cls.__doc__ or '').rstrip()}\n", "Attributes:", *lines])

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.generic):  # JSON knows Python's numbers only
                value = value.item()
                object.__setattr__(self, entry.name, value)
            if (reads := entry.metadata["reads"]) is not None:
                object.__setattr__(self, entry.name, reads(value))
            else:
                _check(entry, value)
        self.check_together()

    def check_together(self) -> None:
        """Raises Error for values that exclude each other."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(entry.name for entry in dataclasses.fields(cls))

    @classmethod
    def from_dict(cls: type[_Self], values: Any) -> _Self:
        """Raises Error for unknown names, with the nearest known one, and for wrong values."""
        if not isinstance(values, dict):
            raise Error(f"{cls.__name__} are {type(values).__name__}, not names and values")
        known = cls.names()
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name)[:60], known, 1)
                more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
                listed = f"there are: {', '.join(known[:_SHOWN])}{more}"
                hint = f"did you mean {near[0]!r}?" if near else listed
                raise Error(f"{cls.__name__} has no option {short(name)}; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def shared_with(self, cls: type[Options]) -> dict[str, Any]:
        """The options that ``cls`` has too, by name."""
        return {name: getattr(self, name) for name in cls.names() if name in self.names()}


def _check(entry: dataclasses.Field[Any], value: Any) -> None:
    """Raises Error unless the value is of the field's kind and within its limits: what a file says,
    or a program, must not end in a traceback from deep inside."""
    name, (main, _, rest) = entry.name, str(entry.type).partition(" | ")
    if value is None and rest == "None":
        return
    for part in value if isinstance(value, (list, tuple)) else [value]:
        _check_size(name, part)
    if main in ("int", "float"):
        check_number(name, value, whole=main == "int", **entry.metadata["limits"])
        return
    if not isinstance(value, _KINDS[main.partition("[")[0]]):
        raise Error(f"{name}: {short(value)} is not of the kind {entry.type}")
    choices = entry.metadata["choices"]
    if choices and value not in choices:
        raise Error(f"{name} {short(value)}: must be one of {', '.join(choices)}")
    if main == "list[str]" and not all(isinstance(part, str) for part in value):
        raise Error(f"{name} must be a list of names or patterns, got {short(value)}")
    for key, part in value.items() if isinstance(value, dict) else ():
        _check_part(name, key, part)


def _check_part(name: str, key: Any, part: Any) -> None:
    if not isinstance(key, str):
        raise Error(f"{name}: {short(key)} is not a name")
    if not (part is None or isinstance(part, (bool, int, float, str))):
        raise Error(f"{name}: {key} must be a number or a word")
    _check_size(f"{name}: {key}", part)
    if isinstance(part, float) and not math.isfinite(part):
        raise Error(f"{name}: {key} must be finite, got {part}")


def _check_size(name: str, value: Any) -> None:
    if isinstance(value, int) and abs(value) >= _MOST:
        raise Error(f"{name} must be below 2^53 in size")
    if isinstance(value, str) and "\0" in value:
        raise Error(f"{name} has a zero byte in it")


def takes(*classes: type[Options]) -> Callable[[_Function], _Function]:
    """Decorator of a function whose ``**options`` are the fields of ``classes``: its signature, and
    so its help, lists them."""

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        shown = [*own, *(p for p in parameters(*classes) if p.name not in signature.parameters)]
        function.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return function

    return decorate


def parameters(*classes: type[Options]) -> list[inspect.Parameter]:
    """A keyword for every option, with its type and default."""
    found = {}
    for cls in classes:
        kinds = typing.get_type_hints(cls)
        for entry in dataclasses.fields(cls):
            found[entry.name] = inspect.Parameter(
                entry.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default_of(entry),
                annotation=kinds[entry.name],
            )
    return list(found.values())


def default_of(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


@dataclass(frozen=True, kw_only=True)
class ScopeOptions(Options):
    """Of methods that rank the connections of all layers together."""

    scope: str | None = option(
        None,
        "how connections of different layers are compared: layer, global or global-normalised; "
        "by default the method's",
        choices=SCOPES,
        command_line=True,
    )


@dataclass(frozen=True, kw_only=True)
class CoupledOptions(Options):
    """Of methods that drop whole channels."""

    coupled: bool = option(
        False,
        "also channels of residual sums, cut alike in all layers that have them, and the "
        "classifier's inputs (channels only)",
        command_line=True,
    )


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """Of methods that look at images."""

    samples: int | None = option(
        None,
        "images to choose by (dcp, dkp, taylor, gradient, reconstruction); default: all; to fit to "
        "(reconstruct); default: 256",
        least=1,
        command_line=True,
    )


@dataclass(frozen=True, kw_only=True)
class SeedOptions(Options):
    """Of methods that draw at random."""

    seed: int = option(0, "of 'random', of classifiers and of the batches", command_line=True)
