"""What convolutions and pools of ONNX say of their windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.graph.ops.window import check_window


@dataclass
class Window:
    """Of a map; those over one axis are of maps that are one row high. ``padding``: [top, left,
    bottom, right]."""

    call: Call
    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    padding: list[int]

    @classmethod
    def of(cls, call: Call, axes: int, kernel: list[int]) -> Window:
        """``kernel`` [h, w]; padding as the attributes have it, 0 with auto_pad."""
        window = cls(call, kernel, [1, 1], [1, 1], [0, 0, 0, 0])
        window.stride = [1] * (2 - axes) + window.numbers("strides", axes, 1)
        window.dilation = [1] * (2 - axes) + window.numbers("dilations", axes, 1)
        check_window(kernel, window.stride, window.dilation)
        if min(*kernel, *window.stride, *window.dilation) < 1:
            raise UnsupportedOperator("a kernel, stride or dilation below 1")
        if call.get("auto_pad", "NOTSET") == "NOTSET":
            ends = window.numbers("pads", 2 * axes, 0)
            rest = [0] * (2 - axes)
            window.padding = [*rest, *ends[:axes], *rest, *ends[axes:]]
        if min(window.padding) < 0:
            raise UnsupportedOperator("padding below 0")
        return window

    def numbers(self, name: str, count: int, default: int) -> list[int]:
        given = self.call.get(name)
        found = [default] * count if not given else [int(number) for number in given]
        if len(found) != count:
            raise UnsupportedOperator(f"{name} has {len(found)} numbers, not {count}")
        return found

    def extents(self) -> list[int]:
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def sides(self, given: Sequence[int]) -> list[int]:
        """How many windows there are along the axes of a map, rounded down."""
        before, behind = self.padding[:2], self.padding[2:]
        numbers = zip(given, before, behind, self.extents(), self.stride, strict=True)
        return [(side + b + a - extent) // stride + 1 for side, b, a, extent, stride in numbers]


def window_of(call: Call, given: Sequence[int], axes: int, kernel: list[int]) -> Window:
    """With the padding that auto_pad asks for on a map of ``given`` rows and columns."""
    window = Window.of(call, axes, kernel)
    wanted = call.get("kernel_shape")
    if wanted is not None and [int(side) for side in wanted] != kernel[-axes:]:
        raise UnsupportedOperator(f"kernel_shape {list(wanted)} beside kernels of {kernel}")
    auto = call.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise UnsupportedOperator(f"auto_pad {auto}")
    if auto.startswith("SAME"):
        totals = [
            max(0, (-(-side // stride) - 1) * stride + extent - side)
            for side, stride, extent in zip(given, window.stride, window.extents(), strict=True)
        ]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small, strict=True)]
        upper = auto == "SAME_UPPER"
        window.padding = [*small, *large] if upper else [*large, *small]
    return window
