"""The largest number in each window; padding counts as minus infinity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.graph.ops.base import Op, Shape
from kernelprune.graph.ops.window import (
    DILATION,
    WINDOW,
    adaptive_kernel,
    ceil_padding,
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


def _max_pool2d(call: Any) -> str:
    x = call.map(call["self"])
    kernel = pair(call["kernel_size"])
    stride = pair(call["stride"] or [], kernel)
    padding, dilation = pair(call["padding"]), pair(call["dilation"])
    check_window(kernel, stride, dilation)
    extra = ceil_padding(call, x, [kernel, stride, padding, dilation])
    behind = [pad + more for pad, more in zip(padding, extra, strict=True)]
    return _append(call, x, kernel, stride, [*padding, *behind], dilation)


def _adaptive_max_pool2d(call: Any) -> str:
    x = call.map(call["self"])
    if call.output_shape() == call.shape(x):
        return str(x)
    kernel = adaptive_kernel(call, x)
    return _append(call, x, kernel, list(kernel), [0, 0, 0, 0], [1, 1])


def _append(
    call: Any, x: str, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> str:
    params = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return str(call.add("max_pool2d", [x], params).output)


class MaxPool2d(Op):
    name = "max_pool2d"
    since = 1
    parameters = (*WINDOW, DILATION)
    channelwise = True
    commutes_with_monotone = True
    torch_rows = {
        "aten::max_pool2d": _max_pool2d,
        "aten::max_pool2d_with_indices": _max_pool2d,
        "aten::adaptive_max_pool2d": _adaptive_max_pool2d,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        check_padding(params)

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return window_shape(input_shapes[0], params, input_shapes[0][0])

    def absorb_padding(self, node: Node, ends: Sequence[int], value: float) -> bool:
        wider = with_padding(node.params, ends)
        if value > np.finfo(np.float32).min or wider is None:
            return False
        node.params = wider
        return True

    def scales_with(self, node: Node) -> bool:
        return True

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        # With dilation a window may lie in the padding alone.
        if any(node.params["padding"]) and max(node.params["dilation"]) > 1:
            return np.full_like(inputs[0], np.nan)
        return inputs[0]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        params = node.params
        pad, padding = split_padding(node, -np.inf)
        pool: Any = nn.MaxPool2d(
            tuple(params["kernel"]),
            tuple(params["stride"]),
            tuple(padding),
            tuple(params["dilation"]),
        )
        if padding[0] > params["kernel"][0] // 2 or padding[1] > params["kernel"][1] // 2:
            # torch allows half a kernel of padding, the file allows more with dilation.
            pad = padding_module(params["padding"], -np.inf)
            pool.padding = (0, 0)
        return pool if isinstance(pad, nn.Identity) else nn.Sequential(pad, pool)
