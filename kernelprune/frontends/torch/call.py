"""What a row of the capture table sees of one operator call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ir import Node, Shape

if TYPE_CHECKING:
    from kernelprune.frontends.torch.trace import _Walk


@dataclass
class Call:
    """One call of an operator: its arguments by schema name, and the walk it belongs to."""

    walk: _Walk
    fx_node: Any
    operator: str
    arguments: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def value(self, argument: Any) -> str:
        """Name of the value that an argument is; constants and numbers are refused."""
        found = self.walk.env.get(argument) if isinstance(argument, torch.fx.Node) else argument
        if not isinstance(found, str):
            raise UnsupportedOperator("an operand is a constant, not a result of the model's input")
        return found

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
        tensor = self.walk.env[argument]
        if not isinstance(tensor, torch.Tensor):
            raise UnsupportedOperator("a weight is computed from the model's input")
        tensor = tensor.detach().cpu()
        return tensor.numpy() if tensor.dtype == torch.float64 else tensor.float().numpy()

    def groups(self) -> int:
        """What the module that makes this call says of itself: a pattern of connections does not
        tell which of the missing ones a grouped layer never had."""
        return int(getattr(self.walk.module_of(self.fx_node), "groups", 1))

    def output_shape(self) -> tuple[Any, ...]:
        """Shape per image of the (first) result, as torch infers it."""
        value = self.fx_node.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        shape = tuple(value.shape[1:])
        if not all(isinstance(side, int) for side in shape):
            raise UnsupportedOperator(
                f"gives shape {list(value.shape)}: the batch is mixed with an image's axes"
            )
        return shape

    def add(self, op: str, inputs: list[str], params: dict[str, Any]) -> Node:
        return self.walk.add(self.fx_node, op, inputs, self.output_shape(), params)

    def owned(self, **roles: Any) -> dict[str, str]:
        """Role -> the model's parameter, for arguments that are a parameter of this call alone."""
        names = {role: self.walk.owned.get(argument) for role, argument in roles.items()}
        return {role: name for role, name in names.items() if name is not None}
