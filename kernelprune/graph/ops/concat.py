"""Values one behind the other along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError, UnsupportedOperator
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, with_side

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _cat(call: Any) -> str:
    values = [call.value(argument) for argument in call["tensors"]]
    if len(values) == 1:
        return str(values[0])
    axis = call["dim"] % (len(call.shape(values[0])) + 1) - 1
    if axis < 0:
        raise UnsupportedOperator("concatenates along axis 0, the batch: images would mix")
    return str(call.add("concat", values, {"axis": axis} if axis else {}).output)


class Concat(Op):
    name = "concat"
    since = 1
    min_inputs, max_inputs = 2, 65536
    parameters = (Parameter("axis", "axis", default=0),)
    rearranges = True
    torch_rows = {"aten::cat": _cat, "aten::concat": _cat}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        first, axis = input_shapes[0], self.parameter(params, "axis")
        rest = with_side(first, axis, 0)
        for shape in input_shapes:
            if len(shape) != len(first) or with_side(shape, axis, 0) != rest:
                raise ShapeError(f"concatenates {list(first)} and {list(shape)}: maps differ")
        return with_side(first, axis, sum(shape[axis] for shape in input_shapes))

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        width = node.shape[0]
        if self.parameter(node.params, "axis") != 0:
            return [np.arange(width) for _ in shapes]
        found: list[np.ndarray | None] = []
        offset = 0
        for shape in shapes:
            sources = np.full(width, -1)
            sources[offset : offset + shape[0]] = np.arange(shape[0])
            offset += shape[0]
            found.append(sources)
        return found

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        axis = self.parameter(node.params, "axis") + 1

        def forward(*parts: Any) -> Any:
            return torch.cat(parts, axis)

        return as_module(forward)
