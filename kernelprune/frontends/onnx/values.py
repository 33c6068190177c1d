"""How a tensor of an ONNX graph is a value of ours, whose shape is per image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ir import Shape

# The batch of a file that leaves it free, in sizes that are computed: a prime beyond every side
# that a value may have, so that it is recognised, and what mixes images does not pass for a size.
FREE_BATCH = 1048583


@dataclass(frozen=True)
class Tensor:
    """``sides`` are ONNX's without the batch, which is axis ``batch``, or nowhere (None) where the
    file has dropped a batch of one. A tensor without other axes is the value of shape [1]."""

    value: str
    sides: Shape
    batch: int | None = 0

    @property
    def rank(self) -> int:
        """As ONNX counts, with the batch."""
        return len(self.sides) + (self.batch is not None)

    def shape(self, batch: int) -> list[int]:
        """ONNX's, for a size of the batch."""
        found = list(self.sides)
        if self.batch is not None:
            found.insert(self.batch, batch)
        return found

    def axis(self, dim: int) -> int:
        """Axis per image of ONNX's axis ``dim``. Raises UnsupportedOperator for the batch."""
        place = self.place(dim)
        if place == self.batch:
            raise UnsupportedOperator("works along the batch: images of one batch would mix")
        return place - (self.batch is not None and place > self.batch)

    def place(self, dim: int) -> int:
        """``dim`` counted from the front."""
        if not -self.rank <= dim < max(self.rank, 1):
            raise UnsupportedOperator(f"names axis {dim} of {self.rank}")
        return dim % max(self.rank, 1)

    def axes(self, dims: Sequence[int]) -> list[int]:
        return sorted({self.axis(int(dim)) for dim in dims})

    def of(self, value: str, sides: Sequence[int] | None = None) -> Tensor:
        """The tensor with the same batch axis that is another value."""
        return replace(self, value=value, sides=self.sides if sides is None else tuple(sides))


def reshaped(x: Tensor, target: Sequence[int], batch: int) -> tuple[Shape, int | None]:
    """(sides per image, axis of the batch) of ``x`` in the shape ``target``, which may have one -1.

    A batch of ``batch`` images stays free where the axes in front of it and those behind it keep
    their elements; a literal 1 counts as the batch, too. Raises UnsupportedOperator where images
    would mix.
    """
    total = math.prod(x.sides)
    before = math.prod(x.sides[: x.batch or 0])
    for size in dict.fromkeys((batch, 1)):
        sides = [int(side) for side in target]
        if sides.count(-1) == 1:
            known = -math.prod(sides)
            whole = total * (1 if x.batch is None else size)
            if known == 0 or whole % known:
                continue
            sides[sides.index(-1)] = whole // known
        if min(sides, default=0) < 0:
            continue
        for place, side in enumerate(sides):
            rest = sides[:place] + sides[place + 1 :]
            if side == size and math.prod(sides[:place]) == before and math.prod(rest) == total:
                return tuple(rest), place
        if size == 1 and math.prod(sides) == total:
            return tuple(sides), None
    raise UnsupportedOperator(
        f"reshapes {[*x.sides]} per image to {[*target]}: images of one batch would mix, or the "
        "elements are not as many"
    )
