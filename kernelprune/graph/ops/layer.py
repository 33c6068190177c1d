"""What ops with connections share: a weight, a bias, a residual, an activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops.activation import activation_module
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, keep_entries, tensor

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

    def shrink_module(self, module: Any, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """Groups lose as many channels each, or go as a whole where they have one input or one
        output channel each."""
        from torch import nn

        if isinstance(module, nn.ConvTranspose2d):
            _shrink_transposed(module, inputs, outputs)
            return
        if isinstance(module, nn.Linear):
            keep_entries(module, "weight", 1, inputs)
            module.in_features, module.out_features = len(inputs), len(outputs)
            return
        groups = module.groups
        width, rows = module.in_channels // groups, module.out_channels // groups
        if whole_groups(groups, width, rows):
            groups = len(inputs) // width
        own = inputs.reshape(groups, -1) % width  # by group, counted from its first channel
        entries = own[0] if groups == 1 else own.repeat(len(outputs) // groups, axis=0)
        keep_entries(module, "weight", 1, entries)
        module.in_channels, module.out_channels = len(inputs), len(outputs)
        module.groups = groups

    def check_tensors(self, node: Node, shapes: Sequence[Shape]) -> None:
        total = node.params.get("all_connections", 0)
        if total and not node.kept_connections() <= total <= node.shape[0] * shapes[0][0]:
            raise FormatError(
                f"parameter 'all_connections' is {total}, outside of {node.kept_connections()} "
                f"kept ones to {node.shape[0] * shapes[0][0]}"
            )


def _shrink_transposed(module: Any, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """``outputs``: of the convolution that stands for it, whose neighbouring channels are the
    places within a block. The weight is ``[I, O / groups, kh, kw]``."""
    phases = math.prod(module.stride)
    outputs = outputs[::phases] // phases
    groups = module.groups
    width, rows = module.in_channels // groups, module.out_channels // groups
    if whole_groups(groups, width, rows * phases):
        groups = len(inputs) // width
    own = outputs.reshape(groups, -1) % rows  # by group, counted from its first channel
    keep_entries(module, "weight", 0, inputs)
    entries = own[0] if groups == 1 else own.repeat(len(inputs) // groups, axis=0)
    keep_entries(module, "weight", 1, entries)
    keep_entries(module, "bias", 0, outputs)
    module.in_channels, module.out_channels = len(inputs), len(outputs)
    module.groups = groups


def whole_groups(groups: int, width: int, rows: int) -> bool:
    """Do the groups of a convolution, of ``width`` input and ``rows`` output channels each, lose
    channels only as a whole? They do where they have one of either kind (depthwise ones)."""
    return groups > 1 and (width == 1 or rows == 1)


def check_residual(shapes: Sequence[Shape], output: Shape) -> Shape:
    """``output``. Raises ShapeError when there is a residual of another shape."""
    if len(shapes) == 2 and shapes[1] != output:
        raise ShapeError(f"residual {list(shapes[1])} has not the output's shape {list(output)}")
    return output


def layer_module(node: Node, pad: Any, layer: Any) -> Any:
    """act(layer(pad(x)) + residual), with the node's weight and bias in ``layer``; ``layer`` itself
    where that is all."""
    from torch import nn

    assert node.weight is not None
    layer.weight = nn.Parameter(tensor(node.weight))
    if node.bias is not None:
        layer.bias = nn.Parameter(tensor(node.bias))
    if isinstance(pad, nn.Identity) and len(node.inputs) == 1:
        if node.params["activation"] == "none":
            return layer
    activation = activation_module(node.params["activation"])
    return as_module(_forward, pad=pad, layer=layer, activation=activation)


def _forward(x: Any, residual: Any = None, *, pad: Any, layer: Any, activation: Any) -> Any:
    y = layer(pad(x))
    return activation(y if residual is None else y + residual)
