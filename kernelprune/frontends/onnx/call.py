"""What a converter sees of one node of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ir import Node, Shape
from kernelprune.graph.ops import rows

if TYPE_CHECKING:
    from kernelprune.frontends.onnx.walk import Walk

# What rows of the capture table call the operators that they look for among the readers.
_ATEN = {"Softmax": "aten::softmax", "MaxPool": "aten::max_pool2d"}


@dataclass
class Call:
    """One node. A converter returns the tensor that is its (first) result, or a list of several.

    The functions of ``graph.ops`` that append nodes take it in place of a call of torch's.
    """

    walk: Walk
    node: Any
    attributes: dict[str, Any]
    module: str | None = None  # qualified name of the layer with weights, if it has one of its own

    @property
    def operator(self) -> str:
        return str(self.node.op_type)

    @property
    def opset(self) -> int:
        return self.walk.file.opset

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    # ------------------------------------------------------------ operands

    def has(self, place: int) -> bool:
        return place < len(self.node.input) and self.node.input[place] != ""

    def operand(self, place: int) -> Tensor | np.ndarray:
        """An input: a tensor that depends on the model's input, or a constant."""
        if not self.has(place):
            raise UnsupportedOperator(f"has no input {place}")
        return self.walk.env[self.node.input[place]]

    def operands(self) -> list[Tensor | np.ndarray]:
        return [self.operand(place) for place in range(len(self.node.input)) if self.has(place)]

    def tensor(self, place: int = 0) -> Tensor:
        found = self.operand(place)
        if not isinstance(found, Tensor):
            raise UnsupportedOperator(f"input {place} is a constant, not a result of the input")
        return found

    def constant(self, place: int, what: str) -> np.ndarray:
        found = self.operand(place)
        if not isinstance(found, np.ndarray):
            raise UnsupportedOperator(f"{what} is computed from the model's input")
        return found

    def weight(self, place: int, what: str = "a weight") -> np.ndarray:
        """A constant of floating point."""
        array = self.constant(place, what)
        if array.dtype.kind != "f":
            raise UnsupportedOperator(f"{what} holds {array.dtype}")
        return array

    def integers(self, place: int, name: str, default: Any = None) -> list[int] | None:
        """A list that newer opsets take as an input, older ones as the attribute ``name``."""
        if self.has(place):
            found = self.constant(place, name).reshape(-1)
        else:
            given = self.get(name, default)
            if given is None:
                return None
            found = np.asarray(given).reshape(-1)
        return [int(number) for number in found]

    def number(self, place: int, name: str, default: float | None = None) -> float | None:
        """A number that newer opsets take as an input, older ones as the attribute ``name``."""
        if not self.has(place):
            given = self.get(name, default)
            return None if given is None else float(given)
        found = self.constant(place, name)
        if found.size != 1:
            raise UnsupportedOperator(f"{name} is not one number")
        return float(found.reshape(-1)[0])

    def vector(self, place: int = 0) -> Tensor:
        """A tensor of vectors [N, F]."""
        return self._of_rank(self.tensor(place), 1, "vectors [N,F]")

    def map(self, place: int = 0) -> Tensor:
        """A tensor of maps [N, C, H, W]."""
        return self._of_rank(self.tensor(place), 3, "maps [N,C,H,W]")

    def row(self, place: int = 0) -> Tensor:
        """A tensor [N, C, L] as maps that are one row high."""
        x = self._of_rank(self.tensor(place), 2, "rows [N,C,L]")
        return x.of(rows.reshaped(self, x.value, (x.sides[0], 1, x.sides[1])))

    def row_result(self, value: str) -> Tensor:
        """The tensor [N, C, L] that is the value [C, 1, L]."""
        channels, _, length = self.shape(value)
        return self.result(rows.reshaped(self, value, (channels, length)))

    def _of_rank(self, x: Tensor, rank: int, what: str) -> Tensor:
        if x.batch != 0 or len(x.sides) != rank:
            raise UnsupportedOperator(f"needs {what}, has {x.shape(0)} with 0 for the batch")
        return x

    # ------------------------------------------------------------ results

    def result(self, value: str, batch: int | None = 0) -> Tensor:
        """The tensor whose axes are a value's and the batch."""
        return Tensor(value, tuple(self.shape(value)), batch)

    def shape(self, value: str) -> Shape:
        return self.walk.shapes[value]

    def add(
        self, op: str, inputs: list[str], params: dict[str, Any], shape: Shape | None = None
    ) -> Node:
        """Appends a node; ``shape`` per image is what the op infers unless it is given."""
        return self.walk.add(self, op, inputs, params, shape)

    def emit(self, op: str, x: Tensor, params: dict[str, Any] | None = None, **more: Any) -> Tensor:
        """``rows.emit`` of one tensor, for results that keep their axes."""
        value = rows.emit(self, op, [x.value], params, **more)
        return x.of(value, self.shape(value) if x.sides else ())

    def unary(self, x: Tensor, function: str, *numbers: float) -> Tensor:
        return x.of(rows.unary(self, x.value, function, *numbers))

    def is_double(self) -> bool:
        return False

    def user_operators(self) -> set[str]:
        """What reads the (first) result, by torch's names where rows know them."""
        readers = self.walk.readers.get(self.node.output[0], ())
        return {_ATEN.get(op, op) for op in readers}

    def reads(self, results: Sequence[str]) -> bool:
        """Does anything read one of these results?"""
        return any(name in self.walk.readers for name in results if name)
