"""FORMAT.md's rules for ops on bytes, as functions of torch tensors: whole numbers (q - zero point)
and scales, both float64, become steps of the output. Every multiplier is computed in float64 and
rounded to float32 once; whatever it is used in is rounded to float32 by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# (the inputs' whole numbers [N, ...], their scales, the output's scale: 1 for an output of numbers)
# -> float32, numbers in units of the output's scale
OnIntegers = Callable[[Sequence[Any], Sequence[Any], Any], Any]


def added(values: Sequence[Any], scales: Sequence[Any], output_scale: Any) -> Any:
    a, b = (
        value.float() * (scale / output_scale).float()
        for value, scale in zip(values, scales, strict=True)
    )
    return a + b


def multiplied(values: Sequence[Any], scales: Sequence[Any], output_scale: Any) -> Any:
    product = (values[0] * values[1]).float()
    return product * (scales[0] * scales[1] / output_scale).float()


def divided(sums: Any, scale: Any, output_scale: Any, divisor: Any) -> Any:
    """Means: sums of whole numbers, each over ``divisor`` (float64, as wide as the sums)."""
    return sums.float() * (scale / (output_scale * divisor)).float()
