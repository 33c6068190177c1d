"""resize: a map sampled at other places, as torch.nn.functional.interpolate does it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import (
    MAX_EXTENT,
    Op,
    Parameter,
    Row,
    Shape,
    as_module,
    need_map,
)

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

_ATEN = {
    "nearest": "upsample_nearest2d",
    "nearest_exact": "_upsample_nearest_exact2d",
    "bilinear": "upsample_bilinear2d",
    "bicubic": "upsample_bicubic2d",
}

# ---------------------------------------------------------------- rows


def _row(mode: str, axes: int) -> Row:
    def row(call: Any) -> Any:
        source = call.get("self", call.get("input"))
        rows.check_floating(source)
        x = call.map(source) if axes == 2 else call.row(source)
        shape = rows.result_shape(call)
        align = bool(call.get("align_corners", False))
        scale = [0.0] * axes if align else _scales(call, axes)
        if axes == 1:
            scale = [1.0 if scale[0] else 0.0, *scale]
        wanted = shape if axes == 2 else (shape[0], 1, shape[1])
        params = {"mode": mode, "align_corners": align, "scale": scale}
        if OP.infer([call.shape(x)], params, wanted) != wanted:
            raise UnsupportedOperator(f"resizes to {list(shape)} with the scales {scale}")
        found = rows.emit(call, "resize", [x], params, shape=wanted)
        return found if axes == 2 else call.row_result(found)

    return row


def _scales(call: Any, axes: int) -> list[float]:
    """What the step between samples comes from: 0 where it is the sides' ratio."""
    if "scale_factors" in call.arguments:
        given = call["scale_factors"] or [None] * axes
    elif axes == 1:
        given = [call.get("scales")]
    else:
        given = [call.get("scales_h"), call.get("scales_w")]
    return [0.0 if scale is None else rows.number(scale, "the scale") for scale in given]


# ---------------------------------------------------------------- the op


class Resize(Op):
    """By axis: with ``scale`` > 0 the side is floor(in * scale) and the step between samples
    1 / scale; with 0 the side is the declared one and the step in / out. ``align_corners``: the
    step is (in - 1) / (out - 1)."""

    name = "resize"
    parameters = (
        Parameter("mode", "choice", choices=tuple(_ATEN)),
        Parameter("align_corners", "flag"),
        Parameter("scale", "numbers", count=2, low=0, high=MAX_EXTENT),
    )
    channelwise = True
    torch_rows = {
        "aten::upsample_nearest1d": _row("nearest", 1),
        "aten::_upsample_nearest_exact1d": _row("nearest_exact", 1),
        "aten::upsample_linear1d": _row("bilinear", 1),
        **{f"aten::{name}": _row(mode, 2) for mode, name in _ATEN.items()},
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        if params["align_corners"] and params["mode"].startswith("nearest"):
            raise FormatError(f"align_corners is set, which {params['mode']} has not")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        channels, *sides = need_map(input_shapes[0])
        found = []
        for axis, (side, scale) in enumerate(zip(sides, params["scale"], strict=True)):
            if scale > 0:
                found.append(math.floor(side * scale))
            elif len(declared) == 3:
                found.append(int(declared[1 + axis]))
            else:
                raise ShapeError(f"declares {list(declared)}, which is no map")
        if min(found) < 1:
            raise ShapeError(f"makes a map of {found} out of {sides}")
        return (channels, *found)

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        return inputs[0]  # the weights of a sample add up to 1

    def keeps_quantization(self, node: Node) -> bool:
        return str(node.params["mode"]).startswith("nearest")

    def scales_with(self, node: Node) -> bool:
        return True

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        params, size = node.params, list(node.shape[1:])
        operator = getattr(torch.ops.aten, _ATEN[params["mode"]])
        align = [] if params["mode"].startswith("nearest") else [params["align_corners"]]
        scales = [scale or None for scale in params["scale"]]
        return as_module(lambda x: operator(x, size, *align, *scales))


OP = Resize()
