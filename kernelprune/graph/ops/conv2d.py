"""Convolution of a map, with zero padding. A traced one has ``groups``, a file has patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.activation import FUSED_ACTIVATION
from kernelprune.graph.ops.base import Shape
from kernelprune.graph.ops.layer import (
    ALL_CONNECTIONS,
    LayerWithWeights,
    check_residual,
    layer_module,
)
from kernelprune.graph.ops.window import (
    DILATION,
    WINDOW,
    check_padding,
    check_window,
    padding_module,
    pair,
    split_padding,
    window_shape,
    with_padding,
)

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _append(call: Any, padding: list[int]) -> str:
    weight = call.array(call["weight"])
    assert weight is not None
    x = call.map(call["input"])
    stride, dilation = pair(call["stride"]), pair(call["dilation"])
    kernel = [int(side) for side in weight.shape[2:]]
    check_window(kernel, stride, dilation)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)] * 2
    if any(pad >= extent for pad, extent in zip(padding, extents, strict=True)):
        raise UnsupportedOperator(f"padding {padding} is not smaller than the kernel's extent")
    params = _params(kernel, stride, padding, dilation, int(call["groups"]))
    node = call.add("conv2d", [x], params)
    node.weight, node.bias = weight, call.array(call["bias"])
    node.parameters = call.owned(weight=call["weight"], bias=call["bias"])
    return str(node.output)


def _params(
    kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> dict[str, Any]:
    return {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "activation": "none",
        "groups": groups,
    }


def _conv2d(call: Any) -> str:
    padding = call["padding"]
    if isinstance(padding, str):
        if padding == "valid":
            return _append(call, [0, 0, 0, 0])
        weight = call.array(call["weight"])
        assert weight is not None
        totals = [
            d * (k - 1) for k, d in zip(weight.shape[2:], pair(call["dilation"]), strict=True)
        ]
        before = [total // 2 for total in totals]
        after = [total - half for total, half in zip(totals, before, strict=True)]
        return _append(call, [*before, *after])
    return _append(call, pair(padding) * 2)


def _convolution(call: Any) -> str:
    if call["transposed"]:
        raise UnsupportedOperator("transposed convolution")
    return _append(call, pair(call["padding"]) * 2)


def _sparse_conv(call: Any) -> str:
    """kernelprune.ops.conv2d: the pattern becomes zeros of a dense weight again."""
    kernels, bias = call.array(call["weight"]), call.array(call["bias"])
    row_ptr, col = (call.walk.env[call[name]].cpu().numpy() for name in ("row_ptr", "col"))
    assert kernels is not None
    kernel = [int(side) for side in kernels.shape[1:]]
    stride, dilation = pair(call["stride"]), pair(call["dilation"])
    check_window(kernel, stride, dilation)
    channels, outputs = int(call["in_channels"]), len(row_ptr) - 1
    rows = np.repeat(np.arange(outputs), np.diff(row_ptr))
    groups = call.groups()
    if outputs % groups or channels % groups:
        groups = 1
    width = channels // groups
    if (rows // (outputs // groups) != col // width).any():  # another operator's groups
        groups, width = 1, channels
    padding = [int(side) for side in call["padding"]]
    params = _params(kernel, stride, padding, dilation, groups)
    node = call.add("conv2d", [call.map(call["input"])], params)
    weight = np.zeros((outputs, width, *kernel), kernels.dtype)
    weight[rows, col % width] = kernels
    node.weight, node.bias = weight, bias
    return str(node.output)


class Conv2d(LayerWithWeights):
    name = "conv2d"
    parameters = (*WINDOW, DILATION, FUSED_ACTIVATION, ALL_CONNECTIONS)
    has_groups = True
    torch_rows = {
        "aten::conv2d": _conv2d,
        "aten::convolution": _convolution,
        "kernelprune::conv2d": _sparse_conv,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        check_padding(params)

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return check_residual(input_shapes, window_shape(input_shapes[0], params, declared[0]))

    def absorb_padding(self, node: Node, ends: Sequence[int], value: float) -> bool:
        wider = with_padding(node.params, ends)
        if value != 0 or wider is None:
            return False
        node.params = wider
        return True

    def macs_of_connection(self, node: Node) -> int:
        kernel_h, kernel_w = node.params["kernel"]
        return int(kernel_h * kernel_w * node.shape[1] * node.shape[2])

    def product(self, node: Node, shapes: Sequence[Shape]) -> Callable[[Any, Any], Any]:
        from torch.nn import functional

        pad, padding = split_padding(node, 0.0)
        stride, dilation = tuple(node.params["stride"]), tuple(node.params["dilation"])
        groups = node.params.get("groups", 1)

        def forward(x: Any, weight: Any) -> Any:
            return functional.conv2d(pad(x), weight, None, stride, padding, dilation, groups)

        return forward

    def patches(self, node: Node, x: Any) -> Any:
        from torch.nn import functional

        kernel, dilation, stride = (
            tuple(node.params[name]) for name in ("kernel", "dilation", "stride")
        )
        x = padding_module(node.params["padding"], 0.0)(x)
        return functional.unfold(x, kernel, dilation, stride=stride)

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        pad, padding = split_padding(node, 0.0)
        params = node.params
        conv: Any = nn.Conv2d(
            shapes[0][0],
            node.shape[0],
            tuple(params["kernel"]),
            tuple(params["stride"]),
            (padding[0], padding[1]),
            tuple(params["dilation"]),
            params.get("groups", 1),
            bias=node.bias is not None,
            device="meta",
        )
        return layer_module(node, pad, conv)

    def module_classes(self) -> tuple[type, ...]:
        """A linear layer at each place of a map is a 1x1 convolution."""
        from torch import nn

        return (nn.Conv2d, nn.Linear)
