"""Calls as the rows of the capture table may see them: with operands in another order than the
model has them. frames.py says which operator sees what."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.call import Call
from kernelprune.frontends.torch.view import BATCH, View
from kernelprune.graph.ir import Shape
from kernelprune.graph.ops.base import Row

Groups = list[list[int]]


class Frame(Protocol):
    """A call as a row may see it."""

    def run(self, row: Row) -> Any:
        """What the row returns, with the axes of the model."""


@dataclass
class AxisFrame:
    """``shape``: of the value that leads, per image. ``groups``: for each of torch's axes the
    value's axes that it is made of (or BATCH), those of side 1 included. ``given``: arguments of
    the call in the frame. ``left_out``, ``reduced``: torch's axes that the results lack, or have
    with side 1."""

    call: Call
    shape: Shape
    groups: Groups
    given: dict[str, Any]
    left_out: int | None = None
    reduced: tuple[int, ...] = ()
    keepdim: bool = True

    def run(self, row: Row) -> Any:
        value = self.call.fx_node.meta["val"]
        many = isinstance(value, (tuple, list))
        inner = [self._inner(item) for item in (value if many else [value])]
        shadow = _Shadow(self.call.fx_node, inner if many else inner[0])
        arguments = {**self.call.arguments, **self.given}
        result = row(dataclasses.replace(self.call, fx_node=shadow, arguments=arguments))
        if isinstance(result, (tuple, list)):
            return tuple(self._outer(one) for one in result)
        return self._outer(result)

    def _inner(self, item: Any) -> Any:
        """A result as torch would infer it in the frame."""
        sides = list(self.shape)
        outer = list(item.shape)
        gone = len(self.reduced) if not self.keepdim else int(self.left_out is not None)
        if len(outer) != len(self.groups) - gone:
            return item  # statistics that come along
        for axis, group in enumerate(self.groups):
            if axis == self.left_out:
                continue
            if axis in self.reduced:
                for own in group:
                    sides[own] = 1
                if self.keepdim:
                    outer.pop(0)
                continue
            side = outer.pop(0)
            if group != [BATCH] and len(group) == 1:
                sides[group[0]] = side
        if self.left_out is not None:
            del sides[self.groups[self.left_out][0]]
        return self.call.walk.tensor(tuple(sides), item.dtype)

    def _outer(self, result: Any) -> Any:
        """A result of the frame as the model sees it."""
        if not isinstance(result, str):
            return result
        shape = self.call.shape(result)
        number = list(range(len(self.shape)))
        groups = [list(group) for group in self.groups]
        if self.left_out is not None:
            gone = groups.pop(self.left_out)[0]
            number = [axis - (axis > gone) for axis in number]
        elif not self.keepdim:
            groups = [g for axis, g in enumerate(groups) if axis not in self.reduced]
        front = [[a for a in group if a == BATCH] for group in groups]
        parts = [[number[a] for a in group if a != BATCH] for group in groups]
        view = View.arranged(result, shape, parts)
        axes = [
            ((BATCH,) if batch else ()) + own
            for batch, own in zip(front, view.axes[1:], strict=True)
        ]
        return view.with_axes(axes)


@dataclass
class AnyOrder:
    """The frame of an operator on elements whose operands all lie in memory alike: whatever order
    the model has them in, the result has it too."""

    call: Call
    view: View
    views: dict[Any, View]

    def run(self, row: Row) -> Any:
        walk, shape = self.call.walk, self.call.shape(self.view.value)
        inner = {
            argument: walk.stand_in(View.of(view.value, shape), argument.meta["val"].dtype)
            for argument, view in self.views.items()
        }
        value = walk.tensor(shape, self.call.fx_node.meta["val"].dtype)
        arguments = replaced(self.call.arguments, inner)
        shadow = _Shadow(self.call.fx_node, value)
        result = row(dataclasses.replace(self.call, fx_node=shadow, arguments=arguments))
        if isinstance(result, str) and self.call.shape(result) == shape:
            return View(result, self.view.sides, self.view.axes)
        raise UnsupportedOperator("changes the shape")


@dataclass
class PerImage:
    """The frame of an operator on matrices of which every image has several, where torch's first
    axis is that of all matrices of all images."""

    call: Call
    count: int
    given: dict[str, Any]

    def run(self, row: Row) -> Any:
        item = self.call.fx_node.meta["val"]
        shadow = _Shadow(
            self.call.fx_node, self.call.walk.tensor((self.count, *item.shape[1:]), item.dtype)
        )
        result = row(dataclasses.replace(self.call, fx_node=shadow, arguments=self.given))
        view = View.of(result, self.call.shape(result)) if isinstance(result, str) else result
        batch, matrices, *rest = view.axes
        return view.with_axes([batch + matrices, *rest])


class _Shadow:
    """A torch.fx node with another result."""

    def __init__(self, fx_node: Any, value: Any):
        self._fx_node = fx_node
        self.meta = {**fx_node.meta, "val": value}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fx_node, name)

    def __str__(self) -> str:
        return str(self._fx_node)


def replaced(arguments: dict[str, Any], inner: dict[Any, Any]) -> dict[str, Any]:
    def replace(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [replace(item) for item in argument]
        return inner.get(argument, argument) if isinstance(argument, torch.fx.Node) else argument

    return {name: replace(argument) for name, argument in arguments.items()}
