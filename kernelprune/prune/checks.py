"""Arguments that are numbers: one way to say what is wrong with one."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from kernelprune.errors import Error


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Raises Error unless ``value`` is a finite (``whole``) number within the bounds."""
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and least <= value <= most and above < value < below:
        return
    bounds = {"above": above, "at least": least, "below": below, "at most": most}
    named = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
    noun = "a whole number" if whole else "a number"
    raise Error(f"{name}={short(value)}: must be {noun} {' and '.join(named)}".rstrip())


def short(value: Any) -> str:
    """For a message; what a file holds may be long, or have more digits than Python prints."""
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):
        return f"a large {type(value).__name__}"
