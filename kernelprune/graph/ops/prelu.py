"""prelu: a slope for negative numbers, by channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Shape, as_module, tensor

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _prelu(call: Any) -> str:
    x = call.value(call["self"])
    slope = call.array(call["weight"]).reshape(-1)
    shape = call.shape(x)
    if slope.size == 1:
        return rows.unary(call, x, "leaky_relu", float(slope[0]))
    if len(rows.torch_shape(call["self"])) < 2 or slope.size != shape[0]:
        raise UnsupportedOperator(f"{slope.size} slopes for {shape[0]} channels")
    return rows.emit(call, "prelu", [x], tensors={"slope": np.ascontiguousarray(slope)})


class Prelu(Op):
    """x > 0 ? x : slope[c] * x."""

    name = "prelu"
    elementwise = True
    torch_rows = {"aten::prelu": _prelu, "aten::_prelu_kernel": _prelu}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        return {"slope": (np.dtype(np.float32), shapes[0][:1])}

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        x = inputs[0]
        return np.where(x > 0, x, node.tensors["slope"].astype(np.float64) * x)

    def scales_with(self, node: Node) -> bool:
        return True

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        # prelu takes the channels from axis 1 of any x [N, C, ...].
        return as_module(torch.nn.functional.prelu, weight=tensor(node.tensors["slope"]))
