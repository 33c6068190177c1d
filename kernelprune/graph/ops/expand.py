"""expand: sides of 1 repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Shape, as_module, with_side

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def _expand(call: Any) -> str:
    shape = rows.result_shape(call)
    if rows.is_constant(call, call["self"]):
        rank = len(call.fx_node.meta["val"].shape)
        array = rows.constant_per_image(call, call["self"], rank)
        return rows.constant(call, np.broadcast_to(array, shape))
    x = call.value(call["self"])
    if len(call.shape(x)) != len(shape):
        raise UnsupportedOperator("expanding moves the batch to another axis")
    return x if tuple(call.shape(x)) == shape else rows.emit(call, "expand", [x], shape=shape)


def _repeat(call: Any) -> str:
    """repeat and tile: whole copies one behind the other."""
    name = "repeats" if "repeats" in call.arguments else "dims"
    x, repeats = call.value(call["self"]), rows.integers(call[name], "the number of copies")
    rank = len(rows.torch_shape(call["self"]))
    repeats = [1] * (rank - len(repeats)) + repeats
    if len(repeats) != rank or repeats[0] != 1:
        raise UnsupportedOperator("repeats images of the batch")
    for axis, count in enumerate(repeats[1:]):
        if count == 1:
            continue
        shape = tuple(call.shape(x))
        if shape[axis] == 1:
            x = rows.emit(call, "expand", [x], shape=with_side(shape, axis, count))
        else:
            x = rows.concatenated(call, [x] * count, axis)
    return x


# ---------------------------------------------------------------- the op


class Expand(Op):
    """The rank of x; the node's shape has x's sides, or any in place of a 1."""

    name = "expand"
    rearranges = True
    torch_rows = {
        "aten::expand": _expand,
        "aten::expand_as": _expand,
        "aten::broadcast_to": _expand,
        "aten::repeat": _repeat,
        "aten::tile": _repeat,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape = input_shapes[0]
        fits = len(shape) == len(declared) and all(
            side in (1, wanted) for side, wanted in zip(shape, declared, strict=True)
        )
        if not fits:
            raise ShapeError(f"{list(shape)} does not expand to {list(declared)}")
        return tuple(declared)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        width = node.shape[0]
        return [np.arange(width) if shapes[0][0] == width else np.zeros(width, np.int64)]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        return [shapes[0][0] == node.shape[0]]

    def follow(self, node: Node, before: Sequence[Shape], after: Sequence[Shape]) -> None:
        if before[0][0] == node.shape[0]:
            node.shape = (after[0][0], *node.shape[1:])

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        shape = tuple(node.shape)
        return as_module(lambda x: x.expand(x.shape[0], *shape))
