"""Values of options that are more than one word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernelprune.errors import Error


def parse_batches(text: str, option: str = "--batch") -> tuple[int, ...]:
    """``"1,64"`` -> ``(1, 64)``. ``option``: that was given, for the message."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise Error(
            f"{option} takes whole numbers with commas, such as 1,64; got {text!r}"
        ) from None


def parse_names(text: str) -> tuple[str, ...]:
    """``"torch,openvino"`` -> both names; ``"none"`` -> nothing."""
    return () if text in ("", "none") else tuple(part.strip() for part in text.split(","))


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """``["width=0.5", "stem=cifar"]`` -> ``{"width": 0.5, "stem": "cifar"}``."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Error(f"--model-option takes NAME=VALUE, got {text!r}")
        values[name] = _value(value)
    return values


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
