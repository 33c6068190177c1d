"""A view becomes a value of its own: the permute, gather and reshape nodes that put it in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.view import View
from kernelprune.graph.ir import Node, Shape
from kernelprune.graph.ops.base import MAX_RANK

# Called as (op, input, shape of the result, parameters, tensors); appends the node.
Append = Callable[[str, str, Shape, dict[str, Any], dict[str, np.ndarray]], Node]


class Arranger:
    """Makes values of views, each once. ``shapes`` and ``nodes``: of every value by name, which
    ``append`` keeps up to date."""

    def __init__(self, shapes: dict[str, Shape], nodes: dict[str, Node], append: Append):
        self.shapes = shapes
        self.nodes = nodes
        self.append = append
        self._known: dict[Any, str] = {}

    def value(self, view: View) -> str:
        """The value that holds the view's elements in the order and shape of its tensor."""
        if not view.batch_first():
            raise UnsupportedOperator(
                "needs the batch as the first axis: images of one batch would mix"
            )
        shape = view.shape or (1,)  # a tensor [N] is the value of shape [1]
        if len(shape) > MAX_RANK:
            raise UnsupportedOperator(
                f"needs a value of shape {list(shape)}: at most {MAX_RANK} axes per image"
            )
        return self.ordered(view.value, view.sides, view.order(), shape)

    def in_order(self, view: View) -> View:
        """The elements of a view, for each image, in the order of its tensor."""
        return View.of(self.value(view), (math.prod(view.sides),))

    def grouped(self, view: View, single: int | None = None) -> tuple[str, list[list[int]]] | None:
        """A value with the view's elements in their order of memory, and ``View.groups`` of it:
        the view's own value, or a reshape of it where the tensor's axes lie inside its axes. Axis
        ``single`` of the tensor is one axis of the value. None when it would take a permute, or
        too many axes."""
        own = self.shapes[view.value]
        merged = view.merged()
        sides = merged.sides
        if len(sides) == 2:  # tokens [C, T] are a map, as the layers along C want them
            sides = (sides[0], 1, sides[1])
        for shape in (own, merged.split_to(own).sides, sides):
            groups = view.groups(shape)
            if groups is None:  # for want of axes of side 1
                shape = (*shape, *[1] * sum(not parts for parts in view.axes))
                groups = view.groups(shape)
            fits = groups is not None and len(shape) <= MAX_RANK
            if fits and (single is None or len(groups[single]) == 1):  # type: ignore[index]
                return self.reshaped(view.value, shape), groups  # type: ignore[return-value]
        return None

    def ordered(self, value: str, sides: Shape, order: Sequence[int], shape: Shape) -> str:
        """A value of ``shape``: the elements of ``value``, taken as an array of ``sides`` and
        permuted to ``order``."""
        key = (value, sides, tuple(order), shape)
        if key not in self._known:
            self._known[key] = self._permuted(value, sides, list(order), shape)
        return self._known[key]

    def _permuted(self, value: str, sides: Shape, order: list[int], shape: Shape) -> str:
        if order == sorted(order):
            return self.reshaped(value, shape)
        own = self.shapes[value]
        groups = axes_in(sides, own)
        if (index := _shuffle(groups, sides, order)) is not None and own == shape:
            return self._add("gather", value, own, {"axis": 0}, {"index": index})
        if groups is not None and (axes := _whole(groups, order, own, shape)) is not None:
            permuted = tuple(own[axis] for axis in axes)
            return self.reshaped(self._add("permute", value, permuted, {"axes": axes}), shape)
        return self.reshaped(self._permuted_blocks(value, sides, order), shape)

    def _permuted_blocks(self, value: str, sides: Shape, order: list[int]) -> str:
        """Permutes runs of sides that stay together, as axes of a reshaped value; more than four by
        swapping two neighbours after another."""
        runs = _runs(order)
        starts = sorted(run[0] for run in runs)
        blocks = [math.prod(sides[part] for part in run) for run in sorted(runs)]
        wanted = [starts.index(run[0]) for run in runs]
        if len(blocks) <= MAX_RANK:
            value = self.reshaped(value, tuple(blocks))
            shape = tuple(blocks[block] for block in wanted)
            return self._add("permute", value, shape, {"axes": wanted})
        now = list(range(len(blocks)))
        for place in range(len(now)):
            first = now.index(wanted[place])
            if first == place:
                continue
            last = first + 1  # what follows in the wanted order moves along
            while last < len(now) and now[last] == wanted[place + last - first]:
                last += 1
            cuts = [now[:place], now[place:first], now[first:last], now[last:]]
            four = tuple(math.prod(blocks[block] for block in cut) for cut in cuts)
            value = self.reshaped(value, four)
            swapped = (four[0], four[2], four[1], four[3])
            value = self._add("permute", value, swapped, {"axes": [0, 2, 1, 3]})
            now = [*cuts[0], *cuts[2], *cuts[1], *cuts[3]]
        return value

    def reshaped(self, value: str, shape: Shape) -> str:
        """The same elements in another shape: a reshape of a reshape is one."""
        source = self.nodes.get(value)
        if source is not None and source.op == "reshape":
            value = source.inputs[0]
        if self.shapes[value] == shape:
            return value
        key = (value, "reshape", shape)
        if key not in self._known:
            op = "flatten" if len(shape) == 1 else "reshape"
            self._known[key] = self._add(op, value, shape, {})
        return self._known[key]

    def _add(
        self,
        op: str,
        value: str,
        shape: Shape,
        params: dict[str, Any],
        tensors: dict[str, np.ndarray] | None = None,
    ) -> str:
        return self.append(op, value, shape, params, tensors or {}).output


def axes_in(sides: Shape, shape: Shape) -> list[list[int]] | None:
    """For each axis of ``shape`` the sides that it is made of; None if one lies across axes."""
    groups, part = [], 0
    for extent in shape:
        group = []
        while extent > 1:
            if part == len(sides) or extent % sides[part]:
                return None
            extent //= sides[part]
            group.append(part)
            part += 1
        groups.append(group)
    return groups


def _shuffle(groups: list[list[int]] | None, sides: Shape, order: list[int]) -> np.ndarray | None:
    """The index of a gather along axis 0, when the order moves entries of that axis alone."""
    if groups is None or sorted(order[: len(groups[0])]) != groups[0]:
        return None
    channel = groups[0]
    if order[len(channel) :] != sorted(order[len(channel) :]):
        return None
    own = [sides[part] for part in channel]
    index = np.arange(math.prod(own)).reshape(own)
    return np.ascontiguousarray(index.transpose(order[: len(channel)]).ravel(), dtype=np.uint32)


def _whole(groups: list[list[int]], order: list[int], own: Shape, shape: Shape) -> list[int] | None:
    """Axes of a permute of the value as it is, when its axes stay in one piece; axes of side 1
    where ``shape`` has them, if it has as many axes."""
    starts = {group[0]: axis for axis, group in enumerate(groups) if group}
    axes, place = list[int](), 0
    while place < len(order):
        axis = starts.get(order[place])
        if axis is None or order[place : place + len(groups[axis])] != groups[axis]:
            return None
        axes.append(axis)
        place += len(groups[axis])
    ones = [axis for axis, side in enumerate(own) if side == 1]
    if len(own) == len(shape) and tuple(own[a] for a in axes) == tuple(s for s in shape if s != 1):
        rest = iter(axes)
        return [ones.pop(0) if side == 1 else next(rest) for side in shape]
    return [*ones, *axes]


def _runs(order: list[int]) -> list[list[int]]:
    """The order cut into runs of ascending neighbours."""
    runs: list[list[int]] = []
    for part in order:
        if runs and runs[-1][-1] + 1 == part:
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs
