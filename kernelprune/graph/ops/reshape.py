"""reshape: the same elements in another shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.ops.base import Op, Shape, as_module, elements

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


class Reshape(Op):
    """As many elements as x, row-major; the node's shape says how."""

    name = "reshape"
    rearranges = True

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape = input_shapes[0]
        if elements(shape) != elements(declared) or not declared:
            raise ShapeError(f"reshapes {list(shape)} to {list(declared)}: not as many elements")
        return tuple(declared)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """A channel of the result is a part of one channel of x, or several whole ones, unless the
        two cut the elements in ways that do not fit."""
        before, after = elements(shapes[0][1:]), elements(node.shape[1:])
        width = np.arange(node.shape[0])
        if before % after == 0:
            return [width // (before // after)]
        if after % before == 0:
            several = after // before
            return [width[:, None] * several + np.arange(several)]
        return [None]

    def follow(self, node: Node, before: Sequence[Shape], after: Sequence[Shape]) -> None:
        """The first side becomes smaller, all others are what they were."""
        count, rest = elements(after[0]), elements(node.shape[1:])
        if count % rest:
            raise ShapeError(f"{count} elements are not channels of {rest}")
        node.shape = (count // rest, *node.shape[1:])

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        shape = tuple(node.shape)
        return as_module(lambda x: x.reshape(x.shape[0], *shape))
