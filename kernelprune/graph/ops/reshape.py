"""reshape: the same elements in another shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Shape, as_module, elements

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def _reshape(call: Any) -> str:
    x, shape = call.value(call["self"]), rows.result_shape(call)
    shuffle = _channel_shuffle(call, x, shape)
    if shuffle is not None or tuple(call.shape(x)) == shape:
        return shuffle or x
    sizes = call.get("shape", call.get("size")) or []
    # "literal": the model's code holds the number of channels, so it cannot be made smaller.
    literal = {"literal": True} if len(sizes) > 1 and sizes[1] != -1 else {}
    return rows.emit(call, "reshape", [x], literal, shape=shape)


def _channel_shuffle(call: Any, x: str, shape: Shape) -> str | None:
    """reshape, permute, reshape back that only reorders channels, as ShuffleNet writes it: one
    gather. None if the call is not the end of such a chain."""
    permute = rows.producer(call, x)
    split = rows.producer(call, permute.inputs[0]) if permute is not None else None
    if split is None or (split.op, permute.op) != ("reshape", "permute"):
        return None
    source = split.inputs[0]
    extra = len(split.shape) - len(shape)
    if tuple(call.shape(source)) != shape or extra < 1 or split.shape[1 + extra :] != shape[1:]:
        return None
    axes = permute.params["axes"]
    if axes[1 + extra :] != list(range(1 + extra, len(axes))):
        return None
    channels = np.arange(shape[0]).reshape(split.shape[: 1 + extra])
    index = channels.transpose(axes[: 1 + extra]).reshape(-1).astype(np.uint32)
    return rows.emit(call, "gather", [source], {"axis": 0}, shape=shape, tensors={"index": index})


# ---------------------------------------------------------------- the op


class Reshape(Op):
    """As many elements as x, row-major; the node's shape says how."""

    name = "reshape"
    rearranges = True
    torch_rows = {
        f"aten::{name}": _reshape
        for name in (
            "view", "_unsafe_view", "reshape", "view_as", "reshape_as", "flatten", "unflatten",
            "squeeze", "squeeze_", "unsqueeze", "unsqueeze_",
        )
    }  # fmt: skip

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape = input_shapes[0]
        if elements(shape) != elements(declared) or not declared:
            raise ShapeError(f"reshapes {list(shape)} to {list(declared)}: not as many elements")
        return tuple(declared)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """A channel of the result is a part of one channel of x, or several whole ones, unless the
        two cut the elements in ways that do not fit."""
        before, after = elements(shapes[0][1:]), elements(node.shape[1:])
        width = np.arange(node.shape[0])
        if before % after == 0:
            return [width // (before // after)]
        if after % before == 0:
            several = after // before
            return [width[:, None] * several + np.arange(several)]
        return [None]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        shape = tuple(node.shape)
        return as_module(lambda x: x.reshape(x.shape[0], *shape))
