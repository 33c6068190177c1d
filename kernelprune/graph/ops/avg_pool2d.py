"""The mean of each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, UnsupportedOperator
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, tensor
from kernelprune.graph.ops.integers import OnIntegers, divided
from kernelprune.graph.ops.window import (
    MAX_WINDOW,
    WINDOW,
    adaptive_kernel,
    ceil_padding,
    check_padding,
    check_window,
    padding_module,
    pair,
    window_shape,
    with_padding,
)

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

_MAX_DIVISOR = 1 << 31


def _avg_pool2d(call: Any) -> str:
    x = call.map(call["self"])
    kernel = pair(call["kernel_size"])
    stride = pair(call["stride"] or [], kernel)
    padding = pair(call["padding"])
    check_window(kernel, stride, [1, 1])
    extra = ceil_padding(call, x, [kernel, stride, padding, [1, 1]])
    behind = [pad + more for pad, more in zip(padding, extra, strict=True)]
    # Without padding the divisor is the number of taps inside the map either way.
    include = bool(call["count_include_pad"]) and any(padding)
    params: dict[str, Any] = {
        "kernel": kernel,
        "stride": stride,
        "padding": [*padding, *behind],
        "count_include_pad": include,
    }
    if include and any(extra):  # torch does not count what ceil_mode adds
        params["uncounted"] = extra
    divisor = call["divisor_override"]
    whole = divisor == kernel[0] * kernel[1] and not any(extra) and (include or not any(padding))
    if divisor is not None and not whole:
        if not 1 <= divisor <= _MAX_DIVISOR:
            raise UnsupportedOperator(f"divisor_override {divisor}: 1 to {_MAX_DIVISOR}")
        params["divisor"] = int(divisor)
    return str(call.add("avg_pool2d", [x], params).output)


def _adaptive_avg_pool2d(call: Any) -> str:
    x = call.map(call["self"])
    if call.output_shape() == call.shape(x):
        return str(x)
    if call.output_shape()[1:] == (1, 1):
        return str(call.add("global_avg_pool", [x], {}).output)
    kernel = adaptive_kernel(call, x)
    params = {
        "kernel": kernel,
        "stride": list(kernel),
        "padding": [0, 0, 0, 0],
        "count_include_pad": False,
    }
    return str(call.add("avg_pool2d", [x], params).output)


def _forward(x: Any, pad: Any, pool: Any, scale: Any) -> Any:
    return pool(pad(x)) * scale


class AvgPool2d(Op):
    name = "avg_pool2d"
    since = 1
    parameters = (
        *WINDOW,
        Parameter("count_include_pad", "flag"),
        Parameter("divisor", "integer", low=0, high=_MAX_DIVISOR, default=0),
        Parameter(
            "uncounted", "integers", count=2, low=0, high=MAX_WINDOW * MAX_WINDOW, default=[0, 0]
        ),
    )
    channelwise = True
    torch_rows = {
        "aten::avg_pool2d": _avg_pool2d,
        "aten::adaptive_avg_pool2d": _adaptive_avg_pool2d,
        "aten::_adaptive_avg_pool2d": _adaptive_avg_pool2d,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        check_padding(params)
        behind, uncounted = params["padding"][2:], self.parameter(params, "uncounted")
        if any(none > pad for none, pad in zip(uncounted, behind, strict=True)):
            raise FormatError("uncounted is more than the padding at the bottom and right")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return window_shape(input_shapes[0], params, input_shapes[0][0])

    def absorb_padding(self, node: Node, ends: Sequence[int], value: float) -> bool:
        wider = with_padding(node.params, ends)
        # What it pads itself may be left out of the count; what the pad laid there is in it.
        if value != 0 or wider is None or any(node.params["padding"]):
            return False
        node.params = {**wider, "count_include_pad": True}
        return True

    def scales_with(self, node: Node) -> bool:
        return True

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        padded = node.params["count_include_pad"] and any(node.params["padding"])
        if padded or self.parameter(node.params, "divisor"):
            return np.where(inputs[0] == 0, 0.0, np.nan)
        return inputs[0]

    def quantizable(self, node: Node) -> bool:
        return True

    def divisors(self, node: Node, shape: Shape) -> np.ndarray:
        """float64 [H, W] of the output for an input of ``shape``: by what each sum is divided."""
        params = node.params
        divisor = self.parameter(params, "divisor")
        if divisor:
            return np.full(node.shape[1:], float(divisor))
        before, behind = params["padding"][:2], params["padding"][2:]
        uncounted = self.parameter(params, "uncounted")
        counts = []
        for axis in (0, 1):
            low, high = 0, shape[1 + axis]
            if params["count_include_pad"]:
                low, high = -before[axis], high + behind[axis] - uncounted[axis]
            first = np.arange(node.shape[1 + axis]) * params["stride"][axis] - before[axis]
            taps = first[:, None] + np.arange(params["kernel"][axis])
            counts.append(((low <= taps) & (taps < high)).sum(axis=1))
        return np.outer(*counts).astype(np.float64)

    def on_integers(self, node: Node, shapes: Sequence[Shape], to_bytes: bool) -> OnIntegers | None:
        from torch.nn import functional

        pad = padding_module(node.params["padding"], 0.0)
        kernel, stride = tuple(node.params["kernel"]), tuple(node.params["stride"])
        divisors = tensor(self.divisors(node, shapes[0]))

        def forward(values: Sequence[Any], scales: Sequence[Any], output_scale: Any) -> Any:
            sums = functional.avg_pool2d(pad(values[0]), kernel, stride, divisor_override=1)
            return divided(sums, scales[0], output_scale, divisors.to(sums.device))

        return forward

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        params = node.params
        pool = nn.AvgPool2d(tuple(params["kernel"]), tuple(params["stride"]))
        if not any(params["padding"]) and not self.parameter(params, "divisor"):
            return pool
        pad = padding_module(params["padding"], 0.0)
        scale = tensor(math.prod(params["kernel"]) / self.divisors(node, shapes[0]))
        return as_module(_forward, pad=pad, pool=pool, scale=scale)
