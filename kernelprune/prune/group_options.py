"""The option ``group``: how many neighbouring connections are kept or dropped together.

A group of connections is not a group of a grouped convolution, which has ``groups``.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from kernelprune.errors import Error
from kernelprune.prune.checks import short
from kernelprune.prune.options import Options, option


def group_of(value: Any) -> int | tuple[int, int]:
    """``4``, ``(4, 1)`` or ``"4"`` as 4, ``[4, 4]`` or ``"4,4"`` as (4, 4): as an option is kept.

    Raises Error for anything but one or two whole numbers of at least 1.
    """
    given = value
    if isinstance(value, str):
        value = [int(word) if word.strip().isdecimal() else word for word in value.split(",")]
    parts = value if isinstance(value, (list, tuple)) else [value]
    if len(parts) not in (1, 2) or not all(map(_is_number, parts)):
        raise Error(
            f"group={short(given)}: must be a whole number of input channels, such as 4, or one of "
            "input and one of output channels, such as 4,4; each at least 1"
        )
    inputs, outputs = int(parts[0]), int(parts[1]) if len(parts) == 2 else 1
    return inputs if outputs == 1 else (inputs, outputs)


def _is_number(part: Any) -> bool:
    return isinstance(part, Integral) and not isinstance(part, bool) and 1 <= int(part) < 1 << 53


def group_size(group: int | tuple[int, int]) -> tuple[int, int]:
    """Input and output channels of a group. Raises Error as ``group_of``."""
    group = group_of(group)
    return group if isinstance(group, tuple) else (group, 1)


@dataclass(frozen=True, kw_only=True)
class GroupOptions(Options):
    """Of methods that choose connections."""

    group: int | tuple[int, int] = option(
        1,
        "connections that are kept or dropped together: 4 is four neighbouring input channels of "
        "an output channel, 4,4 four inputs by four outputs (connections only)",
        reads=group_of,
        command_line=True,
    )
