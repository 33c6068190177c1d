"""permute: axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError
from kernelprune.graph.ops.base import MAX_RANK, Op, Parameter, Shape, as_module

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


class Permute(Op):
    """Side i of the result is side axes[i] of x."""

    name = "permute"
    parameters = (Parameter("axes", "integers", per_axis=True, low=0, high=MAX_RANK - 1),)
    rearranges = True

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
