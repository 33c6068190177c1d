"""What convolutions and pools share: a window that slides over a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops.base import Parameter, Shape, as_module, need_map

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

MAX_WINDOW = 64  # kernel side, stride, dilation

WINDOW = (
    Parameter("kernel", "integers", count=2, low=1, high=MAX_WINDOW),
    Parameter("stride", "integers", count=2, low=1, high=MAX_WINDOW),
    Parameter("padding", "integers", count=4, low=0, high=MAX_WINDOW * MAX_WINDOW),
)
DILATION = Parameter("dilation", "integers", count=2, low=1, high=MAX_WINDOW)


def window_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Output size of a sliding window along one axis; ShapeError when it does not fit."""
    span = size + before + after - dilation * (kernel - 1) - 1
    if span < 0:
        raise ShapeError(f"a window of {dilation * (kernel - 1) + 1} does not fit a map of {size}")
    return span // stride + 1


def window_shape(shape: Shape, params: dict[str, Any], channels: int) -> Shape:
    """Of the op's output. Raises ShapeError."""
    _, rows, columns = need_map(shape)
    kernel, stride = params["kernel"], params["stride"]
    top, left, bottom, right = params["padding"]
    dilation = params.get("dilation", [1, 1])
    height = window_size(rows, kernel[0], stride[0], top, bottom, dilation[0])
    width = window_size(columns, kernel[1], stride[1], left, right, dilation[1])
    return (channels, height, width)


def check_padding(params: dict[str, Any]) -> None:
    """Raises FormatError when a window could lie in the padding alone."""
    dilation = params.get("dilation", [1, 1])
    extent = [d * (k - 1) + 1 for k, d in zip(params["kernel"], dilation, strict=True)] * 2
    if any(pad >= size for pad, size in zip(params["padding"], extent, strict=True)):
        raise FormatError("padding is not smaller than the kernel's extent")


def with_padding(params: dict[str, Any], ends: Sequence[int]) -> dict[str, Any] | None:
    """``params`` with ``ends`` [top, left, bottom, right] as more padding; None where a file does
    not allow as much."""
    padding = [pad + end for pad, end in zip(params["padding"], ends, strict=True)]
    wider = {**params, "padding": padding}
    try:
        check_padding(wider)
    except FormatError:
        return None
    return wider


# ---------------------------------------------------------------- torch


def pair(value: int | Sequence[int], default: Sequence[int] | None = None) -> list[int]:
    """Both sides of what torch takes as one number or two."""
    numbers = [value] if isinstance(value, int) else list(value)
    if not numbers and default is not None:
        return list(default)
    return [int(n) for n in (numbers * 2 if len(numbers) == 1 else numbers)]


def check_window(kernel: list[int], stride: list[int], dilation: list[int]) -> None:
    """Raises UnsupportedOperator."""
    if max(*kernel, *stride, *dilation) > MAX_WINDOW:
        raise UnsupportedOperator(
            f"kernel {kernel}, stride {stride}, dilation {dilation}: at most {MAX_WINDOW} each"
        )


def ceil_padding(call: Any, x: str, window: Sequence[Sequence[int]]) -> list[int]:
    """Extra padding [bottom, right] that makes floor rounding give ceil_mode's size. ``window``:
    kernel, stride, padding and dilation, [h, w] each."""
    if not call["ceil_mode"]:
        return [0, 0]
    found = []
    for axis in (0, 1):
        kernel, stride, padding, dilation = (numbers[axis] for numbers in window)
        size = call.shape(x)[1 + axis]
        wanted = call.output_shape()[1 + axis]
        needed = (wanted - 1) * stride + dilation * (kernel - 1) + 1
        found.append(max(0, needed - (size + 2 * padding)))
    return found


def adaptive_kernel(call: Any, x: str) -> list[int]:
    """Of adaptive pooling whose windows have one size. Raises UnsupportedOperator."""
    size, wanted = call.shape(x)[1:], call.output_shape()[1:]
    if any(have % want for have, want in zip(size, wanted, strict=True)):
        raise UnsupportedOperator(
            f"adaptive pooling from {list(size)} to {list(wanted)} needs windows of unequal size"
        )
    kernel = [have // want for have, want in zip(size, wanted, strict=True)]
    check_window(kernel, kernel, [1, 1])
    return kernel


def padding_module(padding: Sequence[int], value: float) -> Any:
    """Pads a map by ``padding`` [top, left, bottom, right]."""
    from torch.nn import functional

    top, left, bottom, right = padding

    def forward(x: Any) -> Any:
        return functional.pad(x, [left, right, top, bottom], value=value)

    return as_module(forward)


def split_padding(node: Node, value: float) -> tuple[Any, list[int]]:
    """(module that pads, what is left for the op itself)."""
    from torch import nn

    top, left, bottom, right = node.params["padding"]
    if (top, left) == (bottom, right):
        return nn.Identity(), [top, left]
    return padding_module(node.params["padding"], value), [0, 0]
