"""What a row of the capture table sees of one operator call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.view import View
from kernelprune.graph.ir import Node, Shape

if TYPE_CHECKING:
    from kernelprune.frontends.torch.walk import Walk


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

    def is_constant(self, argument: Any) -> bool:
        """Is it a tensor that does not depend on the model's input? ``array`` has its numbers."""
        return isinstance(argument, torch.fx.Node) and isinstance(
            self.walk.env.get(argument), torch.Tensor
        )

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

    # ------------------------------------------------------------ results

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
