"""slice: some entries of one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import MAX_EXTENT, Op, Parameter, Shape, as_module, with_side

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def _slice(call: Any) -> str:
    x = call.value(call["self"])
    rank = len(rows.torch_shape(call["self"]))
    start = 0 if call["start"] is None else call["start"]
    stop = MAX_EXTENT if call["end"] is None else call["end"]
    (step,) = rows.integers(call["step"], "the step")
    if int(call["dim"]) % rank == 0:
        # x[:, ...]: a slice of all images. The batch may be any number, also 1.
        if start != 0 or step != 1 or (isinstance(stop, int) and stop < MAX_EXTENT):
            raise UnsupportedOperator("takes some images of the batch: images would mix")
        return x
    axis = rows.axis_of(call["dim"], rank)
    side = call.shape(x)[axis]
    start, stop = rows.integers([start, stop], "the slice")
    start, stop, step = slice(start, stop, step).indices(side)
    return rows.sliced(call, x, axis, start, stop, step)


def _select(call: Any) -> str:
    x = call.value(call["self"])
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    (index,) = rows.integers(call["index"], "the index")
    index %= call.shape(x)[axis]
    entry = rows.sliced(call, x, axis, index, index + 1)
    return rows.reshaped(call, entry, rows.result_shape(call))


def _narrow(call: Any) -> str:
    x = call.value(call["self"])
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    start, length = rows.integers([call["start"], call["length"]], "the range")
    start %= call.shape(x)[axis]
    return rows.sliced(call, x, axis, start, start + length)


def _parts(call: Any) -> tuple[str, ...]:
    """split, chunk, tensor_split, unbind: consecutive parts, as long as torch's results are."""
    x = call.value(call["self"])
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    count = len(call.fx_node.meta["val"])
    parts, start = [], 0
    for item in range(count):
        shape = rows.result_shape(call, item)
        stop = start + (1 if call.operator == "aten::unbind" else shape[axis])
        part = rows.sliced(call, x, axis, start, stop)
        parts.append(rows.reshaped(call, part, shape))
        start = stop
    return tuple(parts)


def _roll(call: Any) -> str:
    """The last ``shift`` entries of each axis come first."""
    x = call.value(call["self"])
    shifts, dims = (rows.integers(call[name], name) for name in ("shifts", "dims"))
    if not dims:
        raise UnsupportedOperator("rolls over the flattened batch: give dims")
    for shift, dim in zip(shifts, dims, strict=True):
        axis = rows.axis_of(dim, len(rows.torch_shape(call["self"])))
        side = call.shape(x)[axis]
        cut = -shift % side
        if cut:
            ends = [rows.sliced(call, x, axis, *ends) for ends in ((cut, side), (0, cut))]
            x = rows.concatenated(call, ends, axis)
    return x


# ---------------------------------------------------------------- the op


class Slice(Op):
    """Entries start, start + step, ... below stop."""

    name = "slice"
    parameters = (
        Parameter("axis", "axis"),
        Parameter("start", "integer", low=0, high=MAX_EXTENT),
        Parameter("stop", "integer", low=1, high=MAX_EXTENT),
        Parameter("step", "integer", low=1, high=MAX_EXTENT),
    )
    rearranges = True
    torch_rows = {
        "aten::slice": _slice,
        "aten::select": _select,
        "aten::narrow": _narrow,
        "aten::split": _parts,
        "aten::split_with_sizes": _parts,
        "aten::chunk": _parts,
        "aten::tensor_split": _parts,
        "aten::unbind": _parts,
        "aten::roll": _roll,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        if params["start"] >= params["stop"]:
            raise FormatError(f"start {params['start']} is not below stop {params['stop']}")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape, axis, start, stop = input_shapes[0], params["axis"], params["start"], params["stop"]
        if axis >= len(shape) or not 0 <= start < stop <= shape[axis]:
            raise ShapeError(f"input {list(shape)} has no entries {start} to {stop} on axis {axis}")
        return with_side(shape, axis, -((start - stop) // params["step"]))

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """Every other channel keeps all: between two of them as many must stay as were."""
        width, params = node.shape[0], node.params
        if params["axis"] != 0:
            return [np.arange(width)]
        return [params["start"] + np.arange(width) if params["step"] == 1 else None]

    def shrink(
        self, node: Node, live_inputs: Sequence[np.ndarray], live_output: np.ndarray
    ) -> None:
        """What stays of the channels from start to stop is the output's (see Op.ties)."""
        params, live = node.params, live_inputs[0]
        if params["axis"] == 0:
            start, stop = int(live[: params["start"]].sum()), int(live[: params["stop"]].sum())
            params.update(start=start, stop=stop)

    def parts(self, node: Node, shapes: Sequence[Shape]) -> int:
        """chunk(2) and [:, : channels // 2] cut into 2; numbers that the code holds look the
        same."""
        params, side = node.params, shapes[0][0]
        if params["axis"] != 0:
            return 1
        return (
            side // math.gcd(side, params["start"], params["stop"]) if params["step"] == 1 else side
        )

    def follow(self, node: Node, before: Sequence[Shape], after: Sequence[Shape]) -> None:
        params, side = node.params, after[0][0]
        if params["axis"] == 0 and side != before[0][0]:
            parts = self.parts(node, before)
            if side % parts:
                raise ShapeError(f"{side} channels are not {parts} equal parts")
            for end in ("start", "stop"):
                params[end] = params[end] * side // before[0][0]
        node.shape = self.infer(after, params, node.shape)

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        params = node.params
        part = slice(params["start"], params["stop"], params["step"])
        index = (slice(None),) * (params["axis"] + 1) + (part,)
        return as_module(lambda x: x[index])
