"""Softmax over an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Parameter, Shape

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _softmax(call: Any) -> str:
    x = call.value(call["self"])
    axis = call["dim"] % (len(call.shape(x)) + 1) - 1
    if axis < 0 or call.get("dtype") is not None:
        raise UnsupportedOperator(f"softmax over axis {call['dim']}, or in another type")
    return str(call.add("softmax", [x], {"axis": axis} if axis else {}).output)


class Softmax(Op):
    name = "softmax"
    since = 1
    parameters = (Parameter("axis", "axis", default=0),)
    torch_rows = {"aten::softmax": _softmax, "aten::_softmax": _softmax}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        by_channel = self.parameter(node.params, "axis") != 0
        return [np.arange(node.shape[0]) if by_channel else None]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        return nn.Softmax(self.parameter(node.params, "axis") + 1)
