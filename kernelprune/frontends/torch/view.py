"""How a torch tensor is read off a value of the graph: permutes and reshapes that move nothing.

``x.permute(0, 2, 3, 1)`` changes no number, so trace gives it no node. It changes how the value is
read, and only an operator that needs the numbers in another order makes a node of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernelprune.graph.ir import Shape

BATCH = -1  # stands for the batch among the parts of an axis

Axes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class View:
    """A torch tensor, whose elements are those of ``value``.

    In the order of memory they are an array of shape ``sides`` for each image (a refinement of the
    value's own shape; sides of 1 are left out). Entry k of ``axes`` names the parts that axis k of
    the tensor is made of, the outermost first: indices of ``sides``, or BATCH. An axis without
    parts has side 1. Every side, and BATCH, is part of exactly one axis.
    """

    value: str
    sides: tuple[int, ...]
    axes: Axes

    @classmethod
    def of(cls, value: str, shape: Shape) -> View:
        """The tensor ``[N, *shape]`` that is the value itself."""
        return cls.arranged(value, shape, [(axis,) for axis in range(len(shape))])

    @classmethod
    def arranged(cls, value: str, shape: Shape, axes: Sequence[Sequence[int]]) -> View:
        """The tensor with the batch first, whose other axes are made of the value's axes
        ``axes``; axes of side 1 may be left out, or named where they do not matter."""
        number = {
            axis: place for place, axis in enumerate(a for a, s in enumerate(shape) if s != 1)
        }
        parts = [tuple(number[a] for a in group if a in number) for group in axes]
        sides = tuple(side for side in shape if side != 1)
        return cls(value, sides, ((BATCH,), *parts)).merged()

    # ------------------------------------------------------------ questions

    @property
    def rank(self) -> int:
        """Axes of the torch tensor, the batch's included."""
        return len(self.axes)

    def side(self, axis: int) -> int:
        """Side of an axis, without the batch's factor."""
        return self.extent(self.axes[axis])

    def extent(self, parts: Iterable[int]) -> int:
        return math.prod(self.sides[part] for part in parts if part != BATCH)

    @property
    def shape(self) -> Shape:
        """Shape per image, for a view with the batch first."""
        return tuple(self.side(axis) for axis in range(1, self.rank))

    def batch_first(self) -> bool:
        return bool(self.axes) and self.axes[0] == (BATCH,)

    def order(self) -> tuple[int, ...]:
        """All parts but BATCH as the tensor has them, the outermost first."""
        return tuple(part for parts in self.axes for part in parts if part != BATCH)

    def groups(self, shape: Shape) -> list[list[int]] | None:
        """For each axis of the tensor the axes of the value, of ``shape``, that it is made of (or
        BATCH). An axis of side 1 gets one of side 1. None when an axis of the value is split, or
        those of side 1 do not suffice."""
        split = self.split_to(shape)
        own = [axis for axis, side in enumerate(shape) if side != 1]
        if split.sides != tuple(shape[axis] for axis in own):
            return None
        ones = [axis for axis, side in enumerate(shape) if side == 1]
        groups: list[list[int]] = []
        for parts in split.axes:
            groups.append([BATCH if part == BATCH else own[part] for part in parts])
            if not parts:
                if not ones:
                    return None
                groups[-1].append(ones.pop(0))
        return groups

    def of_value(self, value: str) -> View:
        """The same view of another value with as many elements."""
        return View(value, self.sides, self.axes)

    # ------------------------------------------------------------ other views of the same value

    def merged(self) -> View:
        """The same with as few sides as possible: parts that lie next to each other, in memory and
        in the tensor, become one. Equal tensors of one value then have equal views."""
        follows = {
            right
            for parts in self.axes
            for left, right in zip(parts, parts[1:], strict=False)
            if left != BATCH and right == left + 1
        }
        number, sides = {}, list[int]()
        for part, side in enumerate(self.sides):
            if part in follows:
                sides[-1] *= side
            else:
                number[part] = len(sides)
                sides.append(side)
        number[BATCH] = BATCH
        axes = tuple(tuple(number[p] for p in parts if p not in follows) for parts in self.axes)
        return View(self.value, tuple(sides), axes)

    def split(self, part: int, outer: int) -> View:
        """The same with a part cut in two, ``outer`` and what it leaves."""
        sides = (
            *self.sides[:part], outer, self.sides[part] // outer, *self.sides[part + 1 :]
        )  # fmt: skip
        axes = tuple(
            tuple(q for p in parts for q in ((p, p + 1) if p == part else (p + (p > part),)))
            for parts in self.axes
        )
        return View(self.value, sides, axes)

    def split_to(self, shape: Shape) -> View:
        """The same with sides cut so that, where possible, each lies in one axis of the value."""
        view, part = self, 0
        for side in (side for side in shape if side != 1):
            while side > 1 and part < len(view.sides):
                have = view.sides[part]
                if have > side and have % side == 0:
                    view, have = view.split(part, side), side
                if side % have:
                    return view
                side //= have
                part += 1
        return view

    def with_axes(self, axes: Iterable[tuple[int, ...]]) -> View:
        """Another tensor of the same sides."""
        return View(self.value, self.sides, tuple(axes))

    def permuted(self, order: Sequence[int]) -> View:
        return self.with_axes(self.axes[axis] for axis in order)

    def reshaped(self, wanted: Sequence[tuple[int, bool]]) -> View | None:
        """The tensor reshaped, in its own order; ``wanted``: for each axis its side without the
        batch's factor, and whether it has that factor. None when an axis would begin inside one
        part and end inside another: then the elements must be put in order first."""
        view = self
        rest = [part for parts in view.axes for part in parts]
        axes: list[list[int]] = []
        for side, batch in wanted:
            axes.append([])
            while side > 1 or batch:
                if not rest:
                    return None
                part = rest.pop(0)
                if part == BATCH:
                    if not batch:
                        return None
                    batch = False
                elif side % view.sides[part] == 0:
                    side //= view.sides[part]
                elif side > 1 and view.sides[part] % side == 0:
                    view = view.split(part, side)
                    rest = [part + 1, *(p + (p > part) for p in rest)]
                    axes = [[p + (p > part) for p in parts] for parts in axes]
                    side = 1
                else:
                    return None
                axes[-1].append(part)
        return None if rest else view.with_axes(map(tuple, axes)).merged()
