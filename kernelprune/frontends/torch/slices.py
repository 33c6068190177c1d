"""Parts of an axis that the model has split off another one: ``qkv.reshape(N, T, 3, heads, d)[:, :,
0]`` is a third of the channels, without a reshape."""

from __future__ import annotations

import math
from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.arrange import axes_in
from kernelprune.frontends.torch.call import Call
from kernelprune.frontends.torch.view import BATCH, View

_ALONE = ("select", "unbind")  # their results lack the axis
NAMES = ("slice", "split", "split_with_sizes", "chunk", *_ALONE)


def sliced(call: Call) -> Any:
    """The results of an operator of NAMES as slices of the value as it lies in memory. Raises
    UnsupportedOperator when the axis does not begin one of the value's axes."""
    view = call.view(call["self"])
    name = call.operator.removeprefix("aten::")
    axis = int(call["dim"]) % view.rank
    shape = call.shape(view.value)
    split = view.split_to(shape)
    groups = axes_in(split.sides, shape)
    if groups is None or len(split.axes[axis]) != 1 or split.axes[axis] == (BATCH,):
        raise UnsupportedOperator("an axis in several parts")
    part = split.axes[axis][0]
    own = next(place for place, group in enumerate(groups) if part in group)
    if groups[own][0] != part:
        raise UnsupportedOperator("an axis inside another one")
    each = math.prod(split.sides[p] for p in groups[own][1:])
    results = [
        _slice(call, split, part, axis, own, start, stop, each, name in _ALONE)
        for start, stop in _ranges(call, name, split.sides[part], axis)
    ]
    return tuple(results) if name not in ("slice", "select") else results[0]


def _ranges(call: Call, name: str, side: int, axis: int) -> list[tuple[int, int]]:
    """Start and stop of each result."""
    if name == "select":
        index = call["index"]
        if not isinstance(index, int):
            raise UnsupportedOperator("an index that is no plain number")
        return [(index % side, index % side + 1)]
    if name == "slice":
        numbers = (call["start"], call["end"], call["step"])
        if not all(number is None or isinstance(number, int) for number in numbers):
            raise UnsupportedOperator("a slice that depends on the batch")
        start, stop, step = slice(*numbers).indices(side)
        if step != 1 or stop <= start:
            raise UnsupportedOperator("a slice with steps")
        return [(start, stop)]
    items = call.fx_node.meta["val"]
    sizes = [1] * len(items) if name == "unbind" else [int(item.shape[axis]) for item in items]
    return [(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]


def _slice(
    call: Call,
    view: View,
    part: int,
    axis: int,
    own: int,
    start: int,
    stop: int,
    each: int,
    alone: bool,
) -> View:
    shape = call.shape(view.value)
    value = view.value
    if (start, stop) != (0, view.sides[part]):
        params = {"axis": own, "start": start * each, "stop": stop * each, "step": 1}
        kept = (*shape[:own], (stop - start) * each, *shape[own + 1 :])
        value = call.add("slice", [value], params, kept).output
    axes = list(view.axes)
    sides = list(view.sides)
    sides[part] = stop - start
    if sides[part] == 1:
        del sides[part]
        axes[axis] = ()
        axes = [tuple(p - (p > part) for p in parts) for parts in axes]
    if alone:
        del axes[axis]
    return View(value, tuple(sides), tuple(axes)).merged()
