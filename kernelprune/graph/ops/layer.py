"""What ops with connections share: a weight, a bias, a residual, an activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops.activation import activation_module
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, tensor

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


# How many connections the layer would have unpruned, where groups leave fewer than outputs times
# inputs (which 0 stands for). It is counted with and nothing else.
ALL_CONNECTIONS = Parameter("all_connections", "integer", low=0, high=1 << 40, default=0)


class LayerWithWeights(Op):
    """``params["activation"]`` is the fused activation."""

    since = 1
    max_inputs = 2
    has_connections = True
    module_roles = ("weight", "bias")

    def quantizable(self, node: Node) -> bool:
        return True

    def product(self, node: Node, shapes: Sequence[Shape]) -> Callable[[Any, Any], Any]:
        """A function of torch tensors, x [N, ...] and a weight [O, I/groups, ...], without bias,
        residual and activation."""
        raise UnsupportedOperator(f"node '{node.name}': op '{node.op}' has no torch twin")

    def patches(self, node: Node, x: Any) -> Any:
        """What each output place multiplies with the weight's rows: a torch tensor x [N, I, ...] as
        [N, I * taps, places]."""
        raise UnsupportedOperator(f"node '{node.name}': op '{node.op}' has no torch twin")

    def absorb(self, node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
        if len(node.inputs) > 1 or node.params["activation"] != "none":
            return False
        assert node.bias is not None
        node.scale_outputs(scale)
        node.bias = node.bias * scale + shift
        return True

    def check_tensors(self, node: Node, shapes: Sequence[Shape]) -> None:
        total = node.params.get("all_connections", 0)
        if total and not node.kept_connections() <= total <= node.shape[0] * shapes[0][0]:
            raise FormatError(
                f"parameter 'all_connections' is {total}, outside of {node.kept_connections()} "
                f"kept ones to {node.shape[0] * shapes[0][0]}"
            )


def check_residual(shapes: Sequence[Shape], output: Shape) -> Shape:
    """``output``. Raises ShapeError when there is a residual of another shape."""
    if len(shapes) == 2 and shapes[1] != output:
        raise ShapeError(f"residual {list(shapes[1])} has not the output's shape {list(output)}")
    return output


def layer_module(node: Node, pad: Any, layer: Any) -> Any:
    """act(layer(pad(x)) + residual), with the node's weight and bias in ``layer``."""
    from torch import nn

    assert node.weight is not None
    layer.weight = nn.Parameter(tensor(node.weight))
    if node.bias is not None:
        layer.bias = nn.Parameter(tensor(node.bias))
    activation = activation_module(node.params["activation"])
    return as_module(_forward, pad=pad, layer=layer, activation=activation)


def _forward(x: Any, residual: Any = None, *, pad: Any, layer: Any, activation: Any) -> Any:
    y = layer(pad(x))
    return activation(y if residual is None else y + residual)
