"""Rows that join values: cat with constants among them, stack."""

from __future__ import annotations

from typing import Any

from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Row
from kernelprune.graph.ops.reduce import OVER_OPERANDS


def _values(call: Any, rank: int) -> list[str]:
    """The operands, of ``rank`` axes with the batch; constants (a class token) as nodes."""
    found = []
    for argument in call["tensors"]:
        if rows.is_constant(call, argument):
            array = rows.constant_per_image(call, argument, rank)
            found.append(rows.constant(call, array))
        else:
            found.append(call.value(argument))
    return found


def _cat(call: Any) -> str:
    rank = len(call.fx_node.meta["val"].shape)
    axis = rows.axis_of(call["dim"], rank)
    return rows.concatenated(call, _values(call, rank), axis)


def _stack(call: Any) -> Any:
    """A new axis, along which the operands lie. Before the batch it is none that a value could
    have; the operands stay apart for a reduction over it."""
    rank = len(call.fx_node.meta["val"].shape)
    if int(call["dim"]) % rank == 0 and call.is_reduced_over(0, OVER_OPERANDS):
        return tuple(_values(call, rank - 1))
    shape = rows.result_shape(call)
    axis = rows.axis_of(call["dim"], len(shape) + 1)
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    values = [rows.reshaped(call, value, one) for value in _values(call, len(shape))]
    return rows.concatenated(call, values, axis)


TORCH_ROWS: dict[str, Row] = {
    "aten::cat": _cat,
    "aten::concat": _cat,
    "aten::stack": _stack,
}
