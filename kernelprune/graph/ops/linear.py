"""A linear layer on a vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.activation import FUSED_ACTIVATION
from kernelprune.graph.ops.base import Shape, need_rank
from kernelprune.graph.ops.layer import (
    ALL_CONNECTIONS,
    LayerWithWeights,
    check_residual,
    layer_module,
)

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _append(call: Any, x: Any, weight: Any, bias: Any, transpose: bool) -> str:
    view, matrix = call.view(x), call.array(weight)
    if view.rank != 2 or not view.batch_first():  # convolution has a row for these
        raise UnsupportedOperator(f"needs vectors [N,F], has {view.rank} axes")
    value = call.value(x)
    assert matrix is not None
    node = call.add("linear", [value], {"activation": "none"})
    node.weight, node.bias = matrix.T if transpose else matrix, call.array(bias)
    node.parameters = {} if transpose else call.owned(weight=weight, bias=bias)
    return str(node.output)


def _linear(call: Any) -> str:
    return _append(call, call["input"], call["weight"], call["bias"], False)


def _addmm(call: Any) -> str:
    if call["alpha"] != 1 or call["beta"] != 1:
        raise UnsupportedOperator("alpha or beta is not 1")
    return _append(call, call["mat1"], call["mat2"], call["self"], True)


def _matmul(call: Any) -> str:
    return _append(call, call["self"], call.get("mat2", call.get("other")), None, True)


class Linear(LayerWithWeights):
    name = "linear"
    parameters = (FUSED_ACTIVATION, ALL_CONNECTIONS)
    torch_rows = {
        "aten::linear": _linear,
        "aten::addmm": _addmm,
        "aten::mm": _matmul,
        "aten::matmul": _matmul,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        need_rank(input_shapes[0], 1)
        return check_residual(input_shapes, (declared[0],))

    def product(self, node: Node, shapes: Sequence[Shape]) -> Callable[[Any, Any], Any]:
        from torch.nn import functional

        return lambda x, weight: functional.linear(x, weight)

    def patches(self, node: Node, x: Any) -> Any:
        return x[:, :, None]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        has_bias = node.bias is not None
        linear = nn.Linear(shapes[0][0], node.shape[0], bias=has_bias, device="meta")
        return layer_module(node, nn.Identity(), linear)

    def module_classes(self) -> tuple[type, ...]:
        from torch import nn

        return (nn.Linear,)
