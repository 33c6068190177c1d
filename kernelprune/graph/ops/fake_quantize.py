"""fake_quantize: numbers that other tools have rounded to whole multiples of a scale. Only in
traced graphs: ``kernelprune.graph.rounded`` makes bytes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


class FakeQuantize(Op):
    """(q - zero_point) * scale with q = clamp(zero_point + rne(x / scale), low, high)."""

    name = "fake_quantize"
    since = 1
    in_file = False
    elementwise = True
    parameters = (
        Parameter("scale", "number"),
        Parameter("zero_point", "integer"),
        Parameter("low", "integer"),
        Parameter("high", "integer"),
    )

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        scale, zero = float(node.params["scale"]), node.params["zero_point"]
        # In float32, as it runs: on the border between two steps float64 may take the other one.
        steps = np.rint(inputs[0].astype(np.float32) * np.float32(1.0 / scale))
        found = np.clip(steps, node.params["low"] - zero, node.params["high"] - zero)
        return found.astype(np.float64) * scale

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        scale, zero = float(node.params["scale"]), int(node.params["zero_point"])
        low, high = int(node.params["low"]) - zero, int(node.params["high"]) - zero
        return as_module(lambda x: torch.clamp(torch.round(x * (1.0 / scale)), low, high) * scale)


def rounds(node: Node) -> bool:
    return isinstance(node.rule, FakeQuantize)


def make_move(node: Node) -> None:
    """Turns a node that rounds into one that leaves its numbers as they are."""
    node.op, node.params = "reshape", {}


def make_clamp(node: Node, low: float, high: float) -> None:
    """Turns a node that rounds into one that cuts numbers beyond ``low`` and ``high``."""
    node.op, node.params = "unary", {"function": "clamp", "alpha": low, "beta": high}
