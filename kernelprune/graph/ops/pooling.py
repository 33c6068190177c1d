"""Rows of pools that are more than one node: over one axis, or over an axis of four."""

from __future__ import annotations

from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Row
from kernelprune.graph.ops.window import check_window


def _first(call: Any, name: str, default: int) -> int:
    """torch's list of one number."""
    given = call.get(name)
    values = rows.integers(given, name) if given or given == 0 else []
    return values[0] if values else default


def _pool1d(op: str) -> Row:
    """[C, L] is the map [C, 1, L]."""

    def row(call: Any) -> Any:
        x, shape = call.row(call["self"]), rows.result_shape(call)
        length = call.shape(x)[2]
        kernel = _first(call, "kernel_size", 1)
        stride, before = _first(call, "stride", kernel), _first(call, "padding", 0)
        dilation = _first(call, "dilation", 1)
        check_window([kernel], [stride], [dilation])
        # What ceil_mode adds behind.
        needed = (shape[-1] - 1) * stride + dilation * (kernel - 1) + 1
        more = max(0, needed - length - 2 * before) if call["ceil_mode"] else 0
        params: dict[str, Any] = {
            "kernel": [1, kernel],
            "stride": [1, stride],
            "padding": [0, before, 0, before + more],
        }
        if op == "max_pool2d":
            params["dilation"] = [1, dilation]
        else:
            params["count_include_pad"] = bool(call["count_include_pad"]) and before > 0
            if params["count_include_pad"] and more:  # torch does not count what ceil_mode adds
                params["uncounted"] = [0, more]
        return call.row_result(rows.emit(call, op, [x], params))

    return row


def _avg_pool3d(call: Any) -> str:
    """Over the first axis of a volume alone, as in LocalResponseNorm: [C, D, H, W] is the map
    [C, D, H * W]."""
    x, shape = call.value(call["self"]), rows.result_shape(call)
    kernel, stride, padding = (
        rows.integers(call[name], name) for name in ("kernel_size", "stride", "padding")
    )
    plain = not any(padding) and not call["ceil_mode"] and call["divisor_override"] is None
    if len(shape) != 4 or not plain or [*kernel[1:], *stride[1:]] != [1, 1, 1, 1]:
        raise UnsupportedOperator("a pool over the axes of a volume")
    check_window([kernel[0]], [stride[0]], [1])
    channels, depth, height, width = call.shape(x)
    params = {
        "kernel": [kernel[0], 1],
        "stride": [stride[0], 1],
        "padding": [0, 0, 0, 0],
        "count_include_pad": False,
    }
    x = rows.reshaped(call, x, (channels, depth, height * width))
    return rows.reshaped(call, rows.emit(call, "avg_pool2d", [x], params), shape)


TORCH_ROWS: dict[str, Row] = {
    "aten::avg_pool1d": _pool1d("avg_pool2d"),
    "aten::max_pool1d": _pool1d("max_pool2d"),
    "aten::max_pool1d_with_indices": _pool1d("max_pool2d"),
    "aten::avg_pool3d": _avg_pool3d,
}
