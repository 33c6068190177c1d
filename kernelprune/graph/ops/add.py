"""The sum of two values of one shape, with an activation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError, UnsupportedOperator
from kernelprune.graph.ops.activation import FUSED_ACTIVATION, activate, activation_module
from kernelprune.graph.ops.base import Op, Shape, as_module
from kernelprune.graph.ops.integers import OnIntegers, added

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _add(call: Any) -> str:
    if call.get("alpha", 1) != 1:
        raise UnsupportedOperator("alpha is not 1")
    a, b = call.value(call["self"]), call.value(call["other"])
    if call.shape(a) != call.shape(b):
        raise UnsupportedOperator(
            f"adds {list(call.shape(a))} and {list(call.shape(b))} with broadcasting"
        )
    return str(call.add("add", [a, b], {"activation": "none"}).output)


def _forward(a: Any, b: Any, activation: Any) -> Any:
    return activation(a + b)


class Add(Op):
    name = "add"
    since = 1
    min_inputs = max_inputs = 2
    parameters = (FUSED_ACTIVATION,)
    elementwise = True
    is_sum = True
    torch_rows = {"aten::add": _add, "aten::add_": _add}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        a, b = input_shapes
        if a != b:
            raise ShapeError(f"adds {list(a)} and {list(b)}, which differ")
        return a

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        return activate(inputs[0] + inputs[1], node.params["activation"])

    def quantizable(self, node: Node) -> bool:
        return True

    def on_integers(self, node: Node, shapes: Sequence[Shape], to_bytes: bool) -> OnIntegers | None:
        return added if to_bytes else None

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        return as_module(_forward, activation=activation_module(node.params["activation"]))
