"""relu and relu6: an op of its own, and the end of convolutions, linear layers and sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Parameter, Shape

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

ACTIVATIONS = ("none", "relu", "relu6")

# What an op that ends with an activation has as a parameter.
FUSED_ACTIVATION = Parameter("activation", "choice", choices=ACTIVATIONS)


def activate(values: np.ndarray, kind: str) -> np.ndarray:
    """NaN stays NaN."""
    if kind == "none":
        return values
    return np.clip(values, 0.0, 6.0 if kind == "relu6" else np.inf)


def fused(first: str, second: str) -> str:
    """The one activation that is ``second`` after ``first``."""
    return max(first, second, key=ACTIVATIONS.index)


def activation_module(kind: str) -> Any:
    from torch import nn

    return {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}[kind]()


def _row(kind: str) -> Callable[[Any], str]:
    def row(call: Any) -> str:
        return str(call.add("activation", [call.value(call["self"])], {"activation": kind}).output)

    return row


def _clamp(call: Any) -> str:
    low = call.get("min", call.get("min_val"))
    high = call.get("max", call.get("max_val"))
    kinds = {(0, None): "relu", (0, math.inf): "relu", (0, 6): "relu6"}
    numbers = all(bound is None or isinstance(bound, (int, float)) for bound in (low, high))
    if not numbers or (low, high) not in kinds:
        raise UnsupportedOperator(f"clamps to {low}..{high}: only 0.. and 0..6 are supported")
    return _row(kinds[low, high])(call)


class Activation(Op):
    name = "activation"
    since = 1
    parameters = (Parameter("activation", "choice", choices=ACTIVATIONS[1:]),)
    elementwise = True
    torch_rows = {
        "aten::relu": _row("relu"),
        "aten::relu_": _row("relu"),
        "aten::relu6": _row("relu6"),
        "aten::relu6_": _row("relu6"),
        "aten::hardtanh": _clamp,
        "aten::hardtanh_": _clamp,
        "aten::clamp": _clamp,
        "aten::clamp_": _clamp,
        "aten::clamp_min": _clamp,
        "aten::clamp_min_": _clamp,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def activation_of(self, node: Node) -> str | None:
        return str(node.params["activation"])

    def scales_with(self, node: Node) -> bool:
        return bool(node.params["activation"] == "relu")

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        return activate(inputs[0], node.params["activation"])

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        return activation_module(node.params["activation"])
