"""The mean of each channel of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Shape, need_map
from kernelprune.graph.ops.flatten import flatten_to
from kernelprune.graph.ops.integers import OnIntegers, divided

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _mean(call: Any) -> str:
    x = call.map(call["self"])
    dims = sorted(int(d) % 4 for d in call["dim"] or ())
    if dims != [2, 3] or call.get("dtype") is not None:
        raise UnsupportedOperator(f"mean over the axes {call['dim']}: only (2, 3) is supported")
    pooled = (call.shape(x)[0], 1, 1)
    node = call.walk.add(call.fx_node, "global_avg_pool", [x], pooled, {})
    return str(node.output) if call["keepdim"] else flatten_to(call, node.output)


class GlobalAvgPool(Op):
    name = "global_avg_pool"
    since = 1
    channelwise = True
    torch_rows = {"aten::mean": _mean}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return (need_map(input_shapes[0])[0], 1, 1)

    def scales_with(self, node: Node) -> bool:
        return True

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        return inputs[0]

    def quantizable(self, node: Node) -> bool:
        return True

    def on_integers(self, node: Node, shapes: Sequence[Shape], to_bytes: bool) -> OnIntegers | None:
        pixels = shapes[0][1] * shapes[0][2]

        def forward(values: Sequence[Any], scales: Sequence[Any], output_scale: Any) -> Any:
            return divided(values[0].sum((2, 3), keepdim=True), scales[0], output_scale, pixels)

        return forward

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        return nn.AdaptiveAvgPool2d(1)
