"""gather: entries of one axis in a given order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, tensor, with_side

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def gathered(call: Any, x: str, axis: int, index: np.ndarray) -> str:
    """Entries ``index`` (whole numbers of any sign) of an axis."""
    shape = tuple(call.shape(x))
    side = shape[axis]
    index = np.asarray(index).reshape(-1).astype(np.int64)
    if not index.size or index.min() < -side or index.max() >= side:
        raise UnsupportedOperator(f"takes no entries, or some outside 0..{side - 1}")
    index = np.where(index < 0, index + side, index)
    if np.array_equal(index, np.arange(side)):
        return x
    shape = with_side(shape, axis, index.size)
    tensors = {"index": index.astype(np.uint32)}
    return rows.emit(call, "gather", [x], {"axis": axis}, shape=shape, tensors=tensors)


def _index_select(call: Any) -> str:
    if not rows.is_constant(call, call["index"]):
        raise UnsupportedOperator("an index that depends on the model's input")
    x = call.value(call["self"])
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    return gathered(call, x, axis, call.array(call["index"]))


def _index(call: Any) -> str:
    """x[:, index]: one constant tensor of whole numbers, along one axis."""
    indices = call["indices"]
    given = [dim for dim, index in enumerate(indices) if index is not None]
    if len(given) != 1 or not rows.is_constant(call, indices[given[0]]):
        raise UnsupportedOperator("needs one constant index along one axis")
    x, axis = call.value(call["self"]), rows.axis_of(given[0], len(indices) + 1)
    found = gathered(call, x, axis, call.array(indices[given[0]]))
    return rows.reshaped(call, found, rows.result_shape(call))


def _flip(call: Any) -> str:
    x = call.value(call["self"])
    for axis in rows.axes_of(call["dims"], len(rows.torch_shape(call["self"]))):
        x = gathered(call, x, axis, np.arange(call.shape(x)[axis])[::-1])
    return x


def _channel_shuffle(call: Any) -> str:
    x = call.value(call["self"])
    return gathered(call, x, 0, _shuffle(call.shape(x)[0], int(call["groups"])))


def _repeat_interleave(call: Any) -> str:
    """Every entry several times."""
    if call.get("dim") is None:
        raise UnsupportedOperator("repeats images of the batch: give dim")
    x = call.value(call["self"])
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    (repeats,) = rows.integers(call["repeats"], "the number of copies")
    return gathered(call, x, axis, np.arange(call.shape(x)[axis]).repeat(repeats))


def _shuffle(side: int, groups: int) -> np.ndarray:
    """The order of a channel shuffle: the first of every group, the second of every group, ..."""
    return np.arange(side).reshape(groups, -1).T.reshape(-1)


def _shuffled_groups(node: Node, side: int) -> int | None:
    """How many groups of channels the index shuffles; None if it does something else."""
    index = node.tensors["index"].astype(np.int64)
    step = int(index[1]) if index.size == side > 1 else 0
    if step <= 0 or side % step or not np.array_equal(index, _shuffle(side, side // step)):
        return None
    return side // step


# ---------------------------------------------------------------- the op


class Gather(Op):
    """Entry i along the axis is entry index[i] of x."""

    name = "gather"
    parameters = (Parameter("axis", "axis"),)
    rearranges = True
    torch_rows = {
        "aten::index_select": _index_select,
        "aten::index": _index,
        "aten::flip": _flip,
        "aten::channel_shuffle": _channel_shuffle,
        "aten::repeat_interleave": _repeat_interleave,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape, axis = input_shapes[0], params["axis"]
        if len(declared) != len(shape) or axis >= len(shape):
            raise ShapeError(f"gathers {list(declared)} along axis {axis} of {list(shape)}")
        return with_side(shape, axis, declared[axis])

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        return {"index": (np.dtype(np.uint32), (node.shape[node.params["axis"]],))}

    def check_tensors(self, node: Node, shapes: Sequence[Shape]) -> None:
        side = shapes[0][node.params["axis"]]
        if node.tensors["index"].max(initial=0) >= side:
            raise FormatError(f"index holds an entry past {side - 1}")

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        if node.params["axis"] != 0:
            return [np.arange(node.shape[0])]
        return [node.tensors["index"].astype(np.int64)]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        return [node.params["axis"] != 0]

    def shrink(
        self, node: Node, live_inputs: Sequence[np.ndarray], live_output: np.ndarray
    ) -> None:
        if node.params["axis"] == 0:
            place = np.cumsum(live_inputs[0]) - 1
            node.tensors["index"] = place[node.tensors["index"][live_output]].astype(np.uint32)

    def parts(self, node: Node, shapes: Sequence[Shape]) -> int:
        side = shapes[0][0]
        return (_shuffled_groups(node, side) or side) if node.params["axis"] == 0 else 1

    def follow(self, node: Node, before: Sequence[Shape], after: Sequence[Shape]) -> None:
        side = after[0][0]
        if node.params["axis"] != 0:
            node.shape = self.infer(after, node.params, node.shape)
        elif side != before[0][0]:
            groups = _shuffled_groups(node, before[0][0])
            if not groups or side % groups:
                raise ShapeError(f"node '{node.name}' gathers numbered channels")
            node.tensors["index"] = _shuffle(side, groups).astype(np.uint32)
            node.shape = after[0]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        dim = node.params["axis"] + 1
        return as_module(
            lambda x, index: x.index_select(dim, index), index=tensor(node.tensors["index"])
        )
