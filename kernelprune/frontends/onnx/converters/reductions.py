"""What looks at all entries along axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.reduce import log_sum_exp


def _axes(call: Call, x: Tensor) -> list[int]:
    """Axes per image; without any all of them, the batch of one among them if it has that."""
    dims = call.integers(1, "axes")
    if not dims:
        if call.get("noop_with_empty_axes", 0):
            return []
        dims = list(range(x.rank))
    return x.axes(dims)


def _without(call: Call, x: Tensor, value: str, axes: list[int], keep: bool) -> Tensor:
    """The tensor that ``value`` is, in which ``axes`` are sides of 1 with ``keep``."""
    if keep:
        return x.of(value, tuple(1 if a in axes else side for a, side in enumerate(x.sides)))
    sides = tuple(side for axis, side in enumerate(x.sides) if axis not in axes)
    batch = x.batch
    if batch is not None:
        batch -= sum(axis < batch for axis in axes)
    return Tensor(value, sides, batch)


def _reduced(function: str, *, before: str | None = None, after: str | None = None) -> Any:
    """``before`` and ``after``: functions of every element."""

    def convert(call: Call) -> Tensor:
        x = call.tensor()
        axes, keep = _axes(call, x), bool(call.get("keepdims", 1))
        value = x.value if before is None else rows.unary(call, x.value, before)
        if axes:
            value = rows.reduced(call, value, function, axes, keep)
        elif function == "l2":
            value = rows.unary(call, value, "abs")
        if after is not None:
            value = rows.unary(call, value, after)
        return _without(call, x, value, axes, keep)

    return convert


def _log_sum_exp(call: Call) -> Tensor:
    x = call.tensor()
    axes, keep = _axes(call, x), bool(call.get("keepdims", 1))
    if not axes:
        return x
    found = _without(call, x, log_sum_exp(call, x.value, axes), axes, keep)
    return found.of(rows.reshaped(call, found.value, found.sides or (1,)))


def _arg(*, smallest: bool = False) -> Callable[[Call], Tensor]:
    def convert(call: Call) -> Tensor:
        x = call.tensor()
        if call.get("select_last_index", 0):
            raise UnsupportedOperator("the last of several that are equal")
        axis, keep = x.axis(int(call.get("axis", 0))), bool(call.get("keepdims", 1))
        value = rows.unary(call, x.value, "neg") if smallest else x.value
        value = rows.emit(call, "argmax", [value], {"axis": axis, "keepdim": keep})
        return _without(call, x, value, [axis], keep)

    return convert


def _softmax(op: str) -> Callable[[Call], Tensor]:
    def convert(call: Call) -> Tensor:
        x = call.tensor()
        dim = int(call.get("axis", 1 if call.opset < 13 else -1))
        if call.opset >= 13:
            return _along(call, op, x, x.axis(dim))
        # Over all axes from this one on, flattened.
        place = x.place(dim)
        if x.batch is not None and x.batch >= place:
            raise UnsupportedOperator("works along the batch: images of one batch would mix")
        axis = place - (x.batch is not None)
        flat = (*x.sides[:axis], math.prod(x.sides[axis:]))
        if sum(side != 1 for side in x.sides[axis:]) <= 1:
            wide = [a for a in range(axis, len(x.sides)) if x.sides[a] != 1] or [axis]
            return _along(call, op, x, wide[0])
        value = rows.reshaped(call, x.value, flat)
        found = _along(call, op, x.of(value, flat), axis)
        return x.of(rows.reshaped(call, found.value, x.sides))

    return convert


def _along(call: Call, op: str, x: Tensor, axis: int) -> Tensor:
    return call.emit(op, x, {"axis": axis})


TABLE: dict[str, Callable[[Call], Any]] = {
    "ArgMax": _arg(),
    "ArgMin": _arg(smallest=True),
    "LogSoftmax": _softmax("log_softmax"),
    "ReduceL1": _reduced("sum", before="abs"),
    "ReduceL2": _reduced("l2"),
    "ReduceLogSum": _reduced("sum", after="log"),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _reduced("amax"),
    "ReduceMean": _reduced("mean"),
    "ReduceMin": _reduced("amin"),
    "ReduceSum": _reduced("sum"),
    "ReduceSumSquare": _reduced("sum", before="square"),
    "Softmax": _softmax("softmax"),
}
