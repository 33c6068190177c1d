"""Arithmetic of two operands or more, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.binary import Operand as OfImage, chosen_of, combined as combined_of

Operand = Tensor | np.ndarray


def _rank(x: Operand) -> int:
    return x.rank if isinstance(x, Tensor) else x.ndim


def aligned(call: Call, operands: list[Operand]) -> tuple[list[OfImage], int | None]:
    """The operands per image, with as many axes each, and the place of the batch in the result."""
    tensors = [x for x in operands if isinstance(x, Tensor)]
    # Where the file has dropped the batch of one, it counts as an axis in front.
    rank = max(map(_rank, operands))
    places = {rank - x.rank + x.batch for x in tensors if x.batch is not None}
    if len(places) > 1:
        raise UnsupportedOperator("broadcasting moves the batch to another axis")
    batch = places.pop() if places else None
    return [_per_image(call, x, rank, batch) for x in operands], batch


def _per_image(call: Call, x: Operand, rank: int, batch: int | None) -> OfImage:
    shape = x.shape(1) if isinstance(x, Tensor) else list(x.shape)
    sides = [1] * (rank - len(shape)) + shape
    if batch is not None and sides.pop(batch) != 1:
        raise UnsupportedOperator("an operand that is another one for each image of the batch")
    sides = sides or [1]
    if isinstance(x, Tensor):
        return rows.reshaped(call, x.value, sides)
    return np.asarray(x, np.float64).reshape(sides)


def _tensor(call: Call, found: OfImage, operands: list[Operand], batch: int | None) -> Tensor:
    assert isinstance(found, str)
    scalar = max(map(_rank, operands)) - (batch is not None) == 0
    return Tensor(found, () if scalar else tuple(call.shape(found)), batch)


def combined(call: Call, function: str, a: Operand, b: Operand) -> Operand:
    """``function`` of two operands; a constant of two constants."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        parts: list[OfImage] = [np.asarray(x, np.float64) for x in (a, b)]
        found = combined_of(call, function, *parts)
        assert isinstance(found, np.ndarray)
        return found.astype(np.float32)
    parts, batch = aligned(call, [a, b])
    if function in ("add", "sub"):
        parts = [
            rows.finite_for(call, part, rows.SOFTMAX) if isinstance(part, np.ndarray) else part
            for part in parts
        ]
    return _tensor(call, combined_of(call, function, *parts), [a, b], batch)


def _binary(function: str) -> Callable[[Call], Any]:
    def convert(call: Call) -> Any:
        return combined(call, function, call.operand(0), call.operand(1))

    return convert


def _variadic(function: str) -> Callable[[Call], Any]:
    def convert(call: Call) -> Any:
        return reduce(lambda a, b: combined(call, function, a, b), call.operands())

    return convert


def _mean(call: Call) -> Any:
    operands = call.operands()
    total = reduce(lambda a, b: combined(call, "add", a, b), operands)
    return combined(call, "mul", total, np.asarray(1.0 / len(operands)))


def _where(call: Call) -> Tensor:
    mask = call.constant(0, "the condition")
    operands: list[Operand] = [mask, call.operand(1), call.operand(2)]
    parts, batch = aligned(call, operands)
    shapes = [part.shape if isinstance(part, np.ndarray) else call.shape(part) for part in parts]
    shape = tuple(np.broadcast_shapes(*shapes))
    condition, chosen, other = parts
    return _tensor(call, chosen_of(call, condition, chosen, other, shape), operands, batch)


TABLE = {
    "Add": _binary("add"),
    "Div": _binary("div"),
    "Max": _variadic("maximum"),
    "Mean": _mean,
    "Min": _variadic("minimum"),
    "Mul": _binary("mul"),
    "Pow": _binary("pow"),
    "Sub": _binary("sub"),
    "Sum": _variadic("add"),
    "Where": _where,
}
