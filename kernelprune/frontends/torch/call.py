"""What a row of the capture table sees of one operator call."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.view import BATCH, View
from kernelprune.graph.ir import Node, Shape

if TYPE_CHECKING:
    from kernelprune.frontends.torch.walk import Walk


def arguments_of(fx_node: Any) -> dict[str, Any]:
    """Arguments by their names in the ATen schema, defaults filled in."""
    arguments: dict[str, Any] = {}
    for position, formal in enumerate(fx_node.target._schema.arguments):
        if position < len(fx_node.args):
            arguments[formal.name] = fx_node.args[position]
        elif formal.name in fx_node.kwargs:
            arguments[formal.name] = fx_node.kwargs[formal.name]
        else:
            arguments[formal.name] = formal.default_value
    return arguments


@dataclass
class Call:
    """One call of an operator: its arguments by schema name, and the walk it belongs to.

    Most rows ask for ``value``: the name of a value whose shape is the tensor's, batch left out.
    ``view`` is for rows that can also use a value whose axes the model has permuted or merged, and
    so need no node for that. A row returns the name of a value, a view, or several of them.
    """

    walk: Walk
    fx_node: Any
    operator: str
    arguments: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    # ------------------------------------------------------------ operands

    def view(self, argument: Any) -> View:
        """How an argument is read off a value; constants and numbers are refused."""
        found = self.walk.env.get(argument) if isinstance(argument, torch.fx.Node) else argument
        if isinstance(found, View):
            return found
        if isinstance(found, str):
            return View.of(found, self.shape(found))
        if argument in self.walk.constants.sizes:
            raise UnsupportedOperator("an operand is computed from the size of the batch")
        raise UnsupportedOperator("an operand is a constant, not a result of the model's input")

    def value(self, argument: Any) -> str:
        """Name of the value that holds an argument's elements in order, which may take a permute
        and a reshape; constants and numbers are refused."""
        return self.walk.arranger.value(self.view(argument))

    def ordered(self, argument: Any, axes: Sequence[Sequence[int]]) -> str:
        """Name of a value whose axes are the argument's: axis i is made of the torch axes
        ``axes[i]`` (counted with the batch), or has side 1 if there are none."""
        view = self.view(argument)
        parts = [tuple(part for axis in group for part in view.axes[axis]) for group in axes]
        return self.walk.arranger.value(view.with_axes([view.axes[0], *parts]))

    def stacked(self, argument: Any) -> tuple[str, ...] | None:
        """Names of the values that lie side by side in an argument, if they are kept apart."""
        found = self.walk.env.get(argument) if isinstance(argument, torch.fx.Node) else None
        return found if isinstance(found, tuple) and isinstance(found[0], str) else None

    def row(self, argument: Any) -> str:
        """Name of a value [C, 1, L] for a tensor [N, C, L]; ``row_result`` is the way back."""
        view = self.view(argument)
        if view.rank != 3:
            raise UnsupportedOperator(f"needs a tensor [N,C,L], has {view.rank} axes")
        return self.ordered(argument, [[1], [], [2]])

    def row_result(self, value: str) -> View:
        """The result [N, C, L] that is the value [C, 1, L]."""
        return self.result(value, [[0], [2]])

    def matrix(self, argument: Any) -> tuple[str, bool]:
        """Name of a value that holds matrices, the last two axes of an argument, and whether these
        are swapped: as they lie in memory, if that is one of both."""
        view = self.view(argument)
        swapped = view.permuted([*range(view.rank - 2), view.rank - 1, view.rank - 2])
        lies_swapped = list(swapped.order()) == sorted(swapped.order())
        if lies_swapped and list(view.order()) != sorted(view.order()):
            return self.walk.arranger.value(swapped), True
        return self.value(argument), False

    def swapped(self, value: str) -> View:
        """The result that is a value with its last two axes swapped."""
        rank = len(self.shape(value)) + 1
        view = View.of(value, self.shape(value))
        return view.permuted([*range(rank - 2), rank - 1, rank - 2])

    def along(self, argument: Any, dim: int) -> tuple[str, int, View]:
        """Name of a value with the argument's elements, the axis of it that is the argument's axis
        ``dim``, and the argument as a view of it; in their order of memory if that is possible."""
        view = self.view(argument)
        axis = dim % view.rank
        if BATCH in view.axes[axis]:
            raise UnsupportedOperator("works along the batch: images of one batch would mix")
        found = self.walk.arranger.grouped(view, axis)
        if found is not None:
            return found[0], found[1][axis][0], view.of_value(found[0])
        value = self.value(argument)
        return value, axis - 1, View.of(value, self.shape(value))

    def front(self, argument: Any, dim: int) -> tuple[str, View]:
        """Name of a map whose channels are the argument's axis ``dim``, and the argument as a view
        of it. The other axes may be in any order, and the batch anywhere but in ``dim``."""
        view = self.view(argument)
        axis = dim % view.rank
        channels = view.axes[axis]
        if BATCH in channels:
            raise UnsupportedOperator("works along the batch: images of one batch would mix")
        rest = sorted(set(view.order()) - set(channels))
        own = self.shape(view.value)
        shape = (view.side(axis), 1, view.extent(rest))
        if len(own) == 3 and own[0] == shape[0]:
            shape = own
        elif rest:
            last = next(p for p in reversed(view.order()) if p in rest)
            columns = view.extent([last])
            shape = (shape[0], shape[2] // columns, columns)
        value = self.walk.arranger.ordered(view.value, view.sides, (*channels, *rest), shape)
        first = int(shape[0] != 1)
        number = {part: place + first for place, part in enumerate(rest)} | {BATCH: BATCH}
        sides = (*shape[:first], *(view.sides[part] for part in rest))
        axes = [tuple(number[p] for p in parts if p in number) for parts in view.axes]
        axes[axis] = tuple(range(first))
        return value, View(value, sides, tuple(axes))

    def front_result(self, value: str, source: View, dim: int) -> View:
        """What ``source``, a view of ``front``, is with another map's channels along ``dim``."""
        axis, first = dim % source.rank, int(self.shape(value)[0] != 1)
        less = len(source.axes[axis])
        move = first - less
        axes = [tuple(p + move if p != BATCH else BATCH for p in parts) for parts in source.axes]
        axes[axis] = tuple(range(first))
        sides = (*self.shape(value)[:first], *source.sides[less:])
        return View(value, sides, tuple(axes)).merged()

    def is_constant(self, argument: Any) -> bool:
        """Is it a tensor that does not depend on the model's input? ``array`` has its numbers."""
        return isinstance(argument, torch.fx.Node) and isinstance(
            self.walk.env.get(argument), torch.Tensor
        )

    def shape(self, value: str) -> Shape:
        return self.walk.shapes[value]

    def map(self, argument: Any) -> str:
        """Name of a value that must be a map [C,H,W]."""
        value = self.value(argument)
        if len(self.shape(value)) != 3:
            raise UnsupportedOperator(f"needs a map [C,H,W], has {list(self.shape(value))}")
        return value

    def array(self, argument: Any) -> np.ndarray | None:
        """A parameter as numpy, float64 when the model is float64, else float32."""
        if argument is None:
            return None
        tensor = self.walk.env.get(argument)
        if not isinstance(tensor, torch.Tensor):
            raise UnsupportedOperator("a weight is computed from the model's input")
        tensor = tensor.detach().cpu()
        return tensor.numpy() if tensor.dtype == torch.float64 else tensor.float().numpy()

    def groups(self) -> int:
        """What the module that makes this call says of itself: a pattern of connections does not
        tell which of the missing ones a grouped layer never had."""
        return int(getattr(self.walk.module_of(self.fx_node), "groups", 1))

    def user_operators(self) -> set[str]:
        """Names of the operators that read the result."""
        targets = [user.target for user in self.fx_node.users]
        return {t._schema.name if hasattr(t, "_schema") else str(t) for t in targets}

    def is_reduced_over(self, dim: int, operators: Collection[str]) -> bool:
        """Do only ``operators`` read the result, each over its axis ``dim``, which goes?"""
        if not self.user_operators() <= set(operators):
            return False
        rank = self.fx_node.meta["val"].ndim
        for user in self.fx_node.users:
            given = arguments_of(user)
            dims = given.get("dim")
            dims = [dims] if isinstance(dims, int) else dims
            if given.get("keepdim") or not dims or [each % rank for each in dims] != [dim]:
                return False
        return True

    # ------------------------------------------------------------ results

    def is_double(self) -> bool:
        """Is the (first) result float64?"""
        value = self.fx_node.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        return bool(value.dtype == torch.float64)

    def output_shape(self) -> tuple[Any, ...]:
        """Shape per image of the (first) result, as torch infers it."""
        value = self.fx_node.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        return self.walk.shape_per_image(value)

    def add(
        self, op: str, inputs: list[str], params: dict[str, Any], shape: Shape | None = None
    ) -> Node:
        """Appends a node; ``shape`` per image is the (first) result's unless it is given."""
        shape = self.output_shape() if shape is None else shape
        return self.walk.add(self.fx_node, op, inputs, shape, params)

    def result(self, value: str, axes: Sequence[Sequence[int]]) -> View:
        """The result with the batch first, whose axis i + 1 is made of the axes ``axes[i]`` of a
        value; axes of side 1 may be left out."""
        return View.arranged(value, self.shape(value), axes)

    def owned(self, **roles: Any) -> dict[str, str]:
        """Role -> the model's parameter, for arguments that are a parameter of this call alone."""
        names = {role: self.walk.owned.get(argument) for role, argument in roles.items()}
        return {role: name for role, name in names.items() if name is not None}
