"""adaptive_avg_pool2d, adaptive_max_pool2d: windows that cut a map into a given number of parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import MAX_EXTENT, Op, Parameter, Row, Shape, as_module, need_map

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _row(op: str, axes: int) -> Row:
    def row(call: Any) -> Any:
        rows.check_floating(call["self"])
        x = call.map(call["self"]) if axes == 2 else call.row(call["self"])
        size = [1] * (2 - axes) + list(rows.result_shape(call)[1:])
        if list(call.shape(x)[1:]) != size:
            x = rows.emit(call, op, [x], {"size": size})
        return x if axes == 2 else call.row_result(x)

    return row


class _AdaptivePool2d(Op):
    """Window i of n covers rows floor(i * H / n) to ceil((i + 1) * H / n)."""

    parameters = (Parameter("size", "integers", count=2, low=1, high=MAX_EXTENT),)
    channelwise = True

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        channels, _, _ = need_map(input_shapes[0])
        height, width = params["size"]
        return (channels, height, width)

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        return inputs[0]

    def scales_with(self, node: Node) -> bool:
        return True

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        function = getattr(torch.nn.functional, self.name)
        size = tuple(node.params["size"])
        return as_module(lambda x: function(x, size))


class AdaptiveAvgPool2d(_AdaptivePool2d):
    name = "adaptive_avg_pool2d"
    torch_rows = {
        "aten::adaptive_avg_pool2d": _row("adaptive_avg_pool2d", 2),
        "aten::_adaptive_avg_pool2d": _row("adaptive_avg_pool2d", 2),
        "aten::adaptive_avg_pool1d": _row("adaptive_avg_pool2d", 1),
    }


class AdaptiveMaxPool2d(_AdaptivePool2d):
    name = "adaptive_max_pool2d"
    commutes_with_monotone = True
    torch_rows = {
        "aten::adaptive_max_pool2d": _row("adaptive_max_pool2d", 2),
        "aten::adaptive_max_pool1d": _row("adaptive_max_pool2d", 1),
    }
