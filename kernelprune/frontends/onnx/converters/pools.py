"""Pools."""

from __future__ import annotations

from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.converters.windows import Window, window_of
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.pad import padded


def _windows(call: Call) -> tuple[Tensor, Window, int]:
    """(maps, the window, axes that the file's window has)."""
    kernel = [int(side) for side in call.get("kernel_shape", [])]
    axes = len(kernel)
    if axes not in (1, 2):
        raise UnsupportedOperator(f"a pool over {axes} axes")
    x = call.map() if axes == 2 else call.row()
    sides = call.shape(x.value)[1:]
    return x, window_of(call, sides, axes, [1] * (2 - axes) + kernel), axes


def _behind(call: Call, window: Window, given: Any) -> list[int]:
    """Extra padding [bottom, right] that makes rounding down give ceil_mode's size."""
    if not call.get("ceil_mode", 0):
        return [0, 0]
    found = []
    for axis in (0, 1):
        side, stride = given[axis], window.stride[axis]
        before, after = window.padding[axis], window.padding[2 + axis]
        extent = window.extents()[axis]
        count = -(-(side + before + after - extent) // stride) + 1
        if (count - 1) * stride >= side + before:  # it would begin in the padding behind
            count -= 1
        found.append(max(0, (count - 1) * stride + extent - side - before - after))
    return found


def _max_pool(call: Call) -> list[Tensor]:
    x, window, axes = _windows(call)
    if call.get("storage_order", 0):
        raise UnsupportedOperator("column-major indices")
    extra = _behind(call, window, call.shape(x.value)[1:])
    top, left, bottom, right = window.padding
    params = {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": [top, left, bottom + extra[0], right + extra[1]],
        "dilation": window.dilation,
    }
    found = rows.emit(call, "max_pool2d", [x.value], params)
    return [call.result(found) if axes == 2 else call.row_result(found)]


def _average_pool(call: Call) -> Tensor:
    x, window, axes = _windows(call)
    if window.dilation != [1, 1]:
        raise UnsupportedOperator("an average pool with dilation")
    extra = _behind(call, window, call.shape(x.value)[1:])
    include = bool(call.get("count_include_pad", 0)) and any(window.padding)
    top, left, bottom, right = window.padding
    value = x.value
    if include and max(*window.padding) >= min(window.kernel):
        # Rows of zeros of their own: more than a window may have.
        value = padded(call, value, [(0, 0), (top, bottom), (left, right)])
        top = left = bottom = right = 0
        include = False
    params: dict[str, Any] = {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": [top, left, bottom + extra[0], right + extra[1]],
        "count_include_pad": include,
    }
    if include and any(extra):  # what ceil_mode adds is not counted
        params["uncounted"] = extra
    found = rows.emit(call, "avg_pool2d", [value], params)
    return call.result(found) if axes == 2 else call.row_result(found)


def _global_average_pool(call: Call) -> Tensor:
    x = call.tensor()
    if x.batch == 0 and len(x.sides) == 3:
        return call.result(rows.emit(call, "global_avg_pool", [x.value]))
    return _reduced(call, "mean")


def _reduced(call: Call, function: str) -> Tensor:
    x = call.tensor()
    if x.batch != 0 or len(x.sides) < 2:
        raise UnsupportedOperator("needs a batch of channels with more axes")
    axes = list(range(1, len(x.sides)))
    return call.result(rows.reduced(call, x.value, function, axes, True))


TABLE = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": lambda call: _reduced(call, "amax"),
    "MaxPool": _max_pool,
}
