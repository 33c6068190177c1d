"""Which networks are made: the one that was asked for, or the fastest whose drop is small enough.

A network is named by a factor: how much faster than the dense one it is to be, or by how much fewer
connections it is to have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

_FIRST = 4.0  # that is tried where nothing was asked for


class Judged(Protocol):
    """A network that was made and measured; ``holds``: its drop is at most what it may be."""

    @property
    def holds(self) -> bool: ...


# Makes the network of a factor; None where none is so fast.
Attempt = Callable[[float], Judged | None]


def search(
    attempt: Attempt,
    *,
    target: float | None,
    limited: bool,
    low: float,
    steps: int,
    close: float,
) -> None:
    """Calls ``attempt`` at most ``steps`` times. ``target``: the factor that was asked for;
    ``limited``: is there a largest drop? Without one only the target is made. ``low``: a factor
    that is known to hold.

    The target comes first, and is all when it holds. Without a target the factor doubles until a
    network does not hold. From there on intervals are halved, on a logarithmic scale, until the
    last that holds and the first that does not are ``close``. Drops need not grow with the factor:
    whatever was made is kept, and who called chooses among all.
    """
    left = steps
    high = max(_FIRST, 2 * low) if target is None else target

    def holds(factor: float) -> bool:
        nonlocal left
        left -= 1
        found = attempt(factor)
        return found is not None and found.holds

    passed = holds(high)
    if passed and (target is not None or not limited):
        return
    while passed and left:
        low, high = high, 2 * high
        passed = holds(high)
    if passed or not limited:
        return
    while left and high / low > close:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
