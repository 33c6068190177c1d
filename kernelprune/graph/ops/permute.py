"""permute: axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import MAX_RANK, Op, Parameter, Row, Shape, as_module

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def _moved(call: Any, order: Sequence[int]) -> str:
    """``order``: torch's axes of the result, the batch included."""
    if order[0] != 0:
        raise UnsupportedOperator("moves the batch to another axis")
    return rows.permuted(call, call.value(call["self"]), [axis - 1 for axis in order[1:]])


def _permute(call: Any) -> str:
    rank = len(rows.torch_shape(call["self"]))
    return _moved(call, [int(dim) % rank for dim in call["dims"]])


def _swapped(first: str | int, second: str | int) -> Row:
    """``first`` and ``second``: arguments that name an axis, or the axis."""

    def row(call: Any) -> str:
        order = list(range(len(rows.torch_shape(call["self"]))))
        a, b = (call[name] if isinstance(name, str) else name for name in (first, second))
        order[a], order[b] = order[b], order[a]
        return _moved(call, order)

    return row


def _movedim(call: Any) -> str:
    rank = len(rows.torch_shape(call["self"]))
    source, target = (
        [dim % rank for dim in rows.integers(call[name], name)]
        for name in ("source", "destination")
    )
    order = [axis for axis in range(rank) if axis not in source]
    for place, axis in sorted(zip(target, source, strict=True)):
        order.insert(place, axis)
    return _moved(call, order)


# ---------------------------------------------------------------- the op


class Permute(Op):
    """Side i of the result is side axes[i] of x."""

    name = "permute"
    parameters = (Parameter("axes", "integers", per_axis=True, low=0, high=MAX_RANK - 1),)
    rearranges = True
    torch_rows = {
        "aten::permute": _permute,
        "aten::transpose": _swapped("dim0", "dim1"),
        "aten::transpose_": _swapped("dim0", "dim1"),
        "aten::swapaxes": _swapped("axis0", "axis1"),
        "aten::swapdims": _swapped("dim0", "dim1"),
        "aten::t": _swapped(0, -1),
        "aten::mT": _swapped(-2, -1),
        "aten::adjoint": _swapped(-2, -1),
        "aten::movedim": _movedim,
        "aten::moveaxis": _movedim,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        if sorted(params["axes"]) != list(range(len(params["axes"]))):
            raise FormatError(f"axes {list(params['axes'])} do not name every axis once")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape, axes = input_shapes[0], params["axes"]
        if sorted(axes) != list(range(len(shape))):
            raise ShapeError(f"input {list(shape)} has not the axes {list(axes)}")
        return tuple(shape[axis] for axis in axes)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [np.arange(node.shape[0]) if node.params["axes"][0] == 0 else None]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        order = [0, *(axis + 1 for axis in node.params["axes"])]
        return as_module(lambda x: x.permute(order))
