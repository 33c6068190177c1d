"""Rows that run on values as they lie in memory, where torch sees their axes permuted.

Such an operator must not care which axis is which (it works element by element), or it names the
axes it works on. Its row then sees a *frame*: a call whose operands have the axes of the value, in
the value's order, and whose named axes are translated. The results get the order of the model back
as views. All other rows see tensors as the model has them, which may take a permute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch import slices
from kernelprune.frontends.torch.call import Call
from kernelprune.frontends.torch.frame import AnyOrder, AxisFrame, Frame, Groups, PerImage, replaced
from kernelprune.frontends.torch.view import BATCH, View
from kernelprune.graph.ir import Shape
from kernelprune.graph.ops.base import Row

# Element by element, though torch does not tag them so.
_POINTWISE = {"hardswish", "hardswish_", "log_sigmoid", "hardtanh_"}
# Operators whose argument dim names an axis. What becomes of it: it stays, it is reduced (to a side
# of 1, or left out), or it is left out.
_STAYS = {
    "softmax", "_softmax", "log_softmax", "_log_softmax", "glu", "cat", "concat", "slice", "split",
    "split_with_sizes", "chunk", "narrow", "index_select", "roll",
}  # fmt: skip
_REDUCED = {"mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "argmax"}
_LEFT_OUT = {"select", "unbind"}
# Operators on the channels, which torch has as axis 1 and a graph as the first of a value.
_CHANNELS = {"batch_norm", "_native_batch_norm_legit_no_training", "prelu", "group_norm"}

# Operators on the last two axes, whatever the axes in front are.
_MATRICES = {"matmul", "bmm", "scaled_dot_product_attention"}


def framed(call: Call, row: Row) -> Any:
    """What the row returns, run in a frame where there is one. Where it cannot do with that, the
    row sees the tensors in the order of the model."""
    name, views = call.operator.removeprefix("aten::"), _views(call)
    if any(not _is_plain(call, view) for view in views.values()):
        if name in slices.NAMES:
            with suppress(UnsupportedOperator):
                return slices.sliced(call)
        frame = _frame(call, name, views)
        if frame is not None:
            with suppress(UnsupportedOperator):
                return frame.run(row)
    return row(call)


def _views(call: Call) -> dict[Any, View]:
    """The operands that are read off a value."""
    env = call.walk.env
    return {a: env[a] for a in _nodes(call) if isinstance(env.get(a), View)}


def _nodes(call: Call) -> list[Any]:
    return [a for a in _flat(call.arguments.values()) if isinstance(a, torch.fx.Node)]


def _frame(call: Call, name: str, views: dict[Any, View]) -> Frame | None:
    operands = _nodes(call)
    if _is_pointwise(call, name):
        return _pointwise_frame(call, operands, views)
    if name in _MATRICES:
        return _per_image(call, operands, views)
    if name in _STAYS | _REDUCED | _LEFT_OUT and call.get("dim", call.get("dims")) is not None:
        return _axis_frame(call, name, operands, views)
    if name in _CHANNELS:
        frame = _together(call, operands[:1], {operands[0]: views[operands[0]]})
        return frame if frame is not None and frame.groups[1] == [0] else None
    return None


def _is_plain(call: Call, view: View) -> bool:
    return view == View.of(view.value, call.shape(view.value))


def _is_pointwise(call: Call, name: str) -> bool:
    tags = getattr(call.fx_node.target, "tags", ())
    return torch.Tag.pointwise in tags or name in _POINTWISE


# ---------------------------------------------------------------- frames


def _pointwise_frame(call: Call, operands: list[Any], views: dict[Any, View]) -> Frame | None:
    first = next(iter(views.values()))
    same = all(
        (view.sides, view.axes) == (first.sides, first.axes)
        and call.shape(view.value) == call.shape(first.value)
        for view in views.values()
    )
    if same and len(views) == len(operands):
        return AnyOrder(call, first, views)
    return _together(call, operands, views)


def _per_image(call: Call, operands: list[Any], views: dict[Any, View]) -> Frame | None:
    count = next(iter(views.values())).side(0)
    if len(views) != len(operands) or count == 1:
        return None
    inner = {}
    for argument, view in views.items():
        if view.axes[0][:1] != (BATCH,) or view.side(0) != count:
            return None
        own = view.with_axes([(BATCH,), view.axes[0][1:], *view.axes[1:]])
        inner[argument] = call.walk.stand_in(own, argument.meta["val"].dtype)
    return PerImage(call, count, replaced(call.arguments, inner))


def _axis_frame(
    call: Call, name: str, operands: list[Any], views: dict[Any, View]
) -> AxisFrame | None:
    if len(views) != len(operands) and name not in ("cat", "concat"):
        return None
    argument = "dims" if name == "roll" else "dim"
    many = isinstance(call[argument], (list, tuple))
    dims = call[argument] if many else [call[argument]]
    rank = next(iter(views.values())).rank
    if not dims or not all(isinstance(dim, int) for dim in dims):
        return None
    axes = tuple(dim % rank for dim in dims)
    along = axes[0] if name in ("cat", "concat") else None
    single = None if name in _REDUCED else axes[0]
    frame = _together(call, operands, views, along, single)
    if frame is None or any(BATCH in frame.groups[axis] for axis in axes):
        return None
    inner = [own + 1 for axis in axes for own in frame.groups[axis]]
    if len(inner) > len(dims) and not (many and name in _REDUCED):
        return None
    frame.given[argument] = inner if many else inner[0]
    if name in _REDUCED:
        frame.given["dim"] = sorted(inner) if many else inner[0]
        frame.keepdim, frame.reduced = bool(call["keepdim"]), axes
        frame.given["keepdim"] = True
    elif name in _LEFT_OUT:
        frame.left_out = axes[0]
    return frame


def _together(
    call: Call,
    operands: list[Any],
    views: dict[Any, View],
    along: int | None = None,
    single: int | None = None,
) -> AxisFrame | None:
    """The frame of the largest operand, with all others put into its order; ``along``: an axis
    whose sides may differ, ``single``: one that is one axis of the values."""
    rank = next(iter(views.values())).rank
    if any(view.rank != rank for view in views.values()):
        return None
    largest = max(math.prod(view.sides) for view in views.values())
    leads = [view for view in views.values() if math.prod(view.sides) == largest]
    lead = next((view for view in leads if not _is_plain(call, view)), leads[0])
    found = call.walk.arranger.grouped(lead, single)
    if found is None:
        return None
    value, groups = found
    shape = call.shape(value)
    if any(BATCH in group[1:] for group in groups):  # the batch inside an axis of others
        return None
    inner: dict[Any, Any] = {}
    for argument in operands:
        if argument in views:
            view = views[argument]
            own = value if view is lead else _like(call, view, shape, groups, along)
            if own is None:
                return None
            kept = View.of(own, call.shape(own))
            inner[argument] = call.walk.stand_in(kept, argument.meta["val"].dtype)
        else:
            constant = call.walk.env.get(argument)
            tensor = _constant_like(constant, shape, groups) if torch.is_tensor(constant) else None
            if tensor is None:
                return None
            inner[argument] = call.walk.stand_in(tensor)
    return AxisFrame(call, shape, groups, replaced(call.arguments, inner))


def _like(call: Call, view: View, shape: Shape, groups: Groups, along: int | None) -> str | None:
    """A value with the operand's elements, with the axes of the value that leads."""
    wanted: list[tuple[int, bool]] = []
    for axis, group in enumerate(groups):
        own = [shape[each] for each in group if each != BATCH]
        if BATCH in group:
            if view.axes[axis][:1] != (BATCH,) or view.side(axis) != math.prod(own):
                return None
            wanted += [(1, True), *((side, False) for side in own)]
            continue
        sides = _sides(view.side(axis), own, axis == along)
        if sides is None:
            return None
        wanted += [(side, False) for side in sides]
    cut = view.reshaped(wanted)
    if cut is None:
        cut = call.walk.arranger.in_order(view).reshaped(wanted)
    if cut is None:
        return None
    places = [own for group in groups for own in group]
    order = [places.index(axis) if axis in places else None for axis in range(len(shape))]
    axes = [cut.axes[place] if place is not None else () for place in order]
    return call.walk.arranger.value(cut.with_axes([(BATCH,), *axes]))


def _constant_like(tensor: torch.Tensor, shape: Shape, groups: Groups) -> torch.Tensor | None:
    """A constant ``[1, *sides]`` with the axes of the value that leads."""
    if tensor.dim() > len(groups):
        return None
    outer = [1] * (len(groups) - tensor.dim()) + list(tensor.shape)
    sides: list[int] = []
    for side, group in zip(outer, groups, strict=True):
        own = [1] * len(group) if BATCH in group else [shape[axis] for axis in group]
        cut = _sides(side, own, False)
        if cut is None:
            return None
        sides += cut
    places = [own for group in groups for own in group]
    order = [places.index(BATCH), *(places.index(a) for a in range(len(shape)) if a in places)]
    cut_tensor = tensor.reshape(sides).permute(order)
    for axis in range(len(shape)):
        if axis not in places:
            cut_tensor = cut_tensor.unsqueeze(axis + 1)
    return cut_tensor


def _sides(side: int, own: Sequence[int], free: bool) -> list[int] | None:
    """The sides of an operand where the leading value has ``own``: the same, or all 1; any if
    ``free``."""
    if side == math.prod(own):
        return list(own)
    if side == 1:
        return [1] * len(own)
    return [side] if free and len(own) == 1 else None


def _flat(arguments: Any) -> list[Any]:
    found: list[Any] = []
    for argument in arguments:
        found += _flat(argument) if isinstance(argument, (list, tuple)) else [argument]
    return found
