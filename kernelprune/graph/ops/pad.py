"""pad: more entries at the ends of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import MAX_EXTENT, Op, Parameter, Shape, as_module, tensor

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# The name of each mode in numpy.pad.
MODES: dict[str, Any] = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}
_MAX_POOLS = {"aten::max_pool2d", "aten::max_pool2d_with_indices", "aten::max_pool1d"}

# ---------------------------------------------------------------- rows


def padded(
    call: Any, x: str, ends: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0
) -> str:
    """``ends``: for each axis how many entries come before and after; negative ones are cut off."""
    for axis, (before, after) in enumerate(ends):
        side = call.shape(x)[axis]
        if min(before, after) < 0:
            x = rows.sliced(call, x, axis, max(0, -before), side + min(0, after))
    added = [[max(0, end[side]) for end in ends] for side in (0, 1)]
    if not any(map(any, added)):
        return x
    params = {"before": added[0], "after": added[1], "mode": mode, "value": float(value)}
    return rows.emit(call, "pad", [x], params)


def _pad(call: Any) -> str:
    mode = call.get("mode", "constant")
    flat = rows.integers(call["pad"], "the padding")
    return _padded(call, flat, mode, call.get("value"))


def _padded(call: Any, flat: Sequence[int], mode: str, value: float | None = None) -> str:
    """``flat``: torch's list, the last axis first."""
    rank = len(rows.torch_shape(call["self"]))
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (rank - len(pairs)) + pairs
    if len(pairs) != rank or pairs[0] != (0, 0):
        raise UnsupportedOperator("pads the batch")
    filler = rows.finite_for(call, np.asarray(0.0 if value is None else value), _MAX_POOLS)
    number = rows.number(float(filler), "the value of the padding")
    return padded(call, call.value(call["self"]), pairs[1:], mode, number)


def _mode(mode: str) -> Any:
    return lambda call: _padded(call, rows.integers(call["padding"], "the padding"), mode)


# ---------------------------------------------------------------- the op


class Pad(Op):
    """``before`` and ``after``: entries for each axis. ``reflect`` does not repeat the border."""

    name = "pad"
    parameters = (
        Parameter("before", "integers", per_axis=True, low=0, high=MAX_EXTENT),
        Parameter("after", "integers", per_axis=True, low=0, high=MAX_EXTENT),
        Parameter("mode", "choice", choices=tuple(MODES)),
        Parameter("value", "number"),
    )
    torch_rows = {
        "aten::pad": _pad,
        "aten::constant_pad_nd": _pad,
        "aten::reflection_pad1d": _mode("reflect"),
        "aten::reflection_pad2d": _mode("reflect"),
        "aten::replication_pad1d": _mode("replicate"),
        "aten::replication_pad2d": _mode("replicate"),
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        if params["mode"] != "constant" and params["value"] != 0:
            raise FormatError(f"value is not 0, but the mode is {params['mode']}")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape, before, after = input_shapes[0], params["before"], params["after"]
        if not len(shape) == len(before) == len(after):
            raise ShapeError(f"input {list(shape)} has not {len(before)} axes")
        mode = params["mode"]
        for side, ends in zip(shape, zip(before, after, strict=True), strict=True):
            limit = {"reflect": side - 1, "circular": side}.get(mode, MAX_EXTENT)
            if max(ends) > limit:
                raise ShapeError(f"padding of {max(ends)} in mode {mode} on a side of {side}")
        return tuple(sum(each) for each in zip(shape, before, after, strict=True))

    def laid_around(self, node: Node) -> tuple[list[int], float] | None:
        params = node.params
        if params["mode"] != "constant" or len(node.shape) != 3:
            return None
        (front, *before), (back, *after) = params["before"], params["after"]
        return None if front or back else ([*before, *after], float(params["value"]))

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        before, after = node.params["before"][0], node.params["after"][0]
        if (before or after) and node.params["mode"] != "constant":
            return [None]
        source = np.arange(node.shape[0]) - before
        return [np.where(source < shapes[0][0], np.maximum(source, -1), -1)]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        (source,) = self.channel_sources(node, shapes)
        if source is None:
            return np.full(node.shape[0], np.nan)
        params, value = node.params, float(node.params["value"])
        own = inputs[0][np.maximum(source, 0)]
        if params["mode"] == "constant" and (any(params["before"][1:]) or any(params["after"][1:])):
            own = np.where(own == value, own, np.nan)
        return np.where(source < 0, value, own)

    def shrink(
        self, node: Node, live_inputs: Sequence[np.ndarray], live_output: np.ndarray
    ) -> None:
        before, after = list(node.params["before"]), list(node.params["after"])
        inside = live_output.size - after[0]
        after[0] = int(live_output[inside:].sum())
        before[0] = int(live_output[: before[0]].sum())
        node.params.update(before=before, after=after)

    def keeps_quantization(self, node: Node) -> bool:
        return bool(node.params["value"] == 0)

    def quantizable(self, node: Node) -> bool:
        return True

    def scales_with(self, node: Node) -> bool:
        return node.params["value"] == 0 and not (
            node.params["before"][0] or node.params["after"][0]
        )

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        params = node.params
        ends = list(zip(params["before"], params["after"], strict=True))
        if params["mode"] == "constant":
            flat = [number for end in reversed(ends) for number in end]
            return as_module(lambda x: torch.nn.functional.pad(x, flat, value=params["value"]))
        # One gather per axis: torch's own padding takes some ranks and axes only.
        parts = {
            f"axis{axis}": tensor(np.pad(np.arange(side), end, MODES[params["mode"]]))
            for axis, (side, end) in enumerate(zip(shapes[0], ends, strict=True))
            if any(end)
        }

        def forward(x: Any, **indices: Any) -> Any:
            for name, index in indices.items():
                x = x.index_select(int(name[4:]) + 1, index)
            return x

        return as_module(forward, **parts)
