"""What depends on constants and sizes alone is computed while a file is read, by ONNX's own
reference implementation. How much may be computed follows from the size of the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.values import FREE_BATCH

# Numbers that a file of no bytes may compute, and those more for each byte.
_BASE, _PER_BYTE = 1 << 22, 16

# (inputs, attributes) -> how many numbers an operator makes or looks at.
Cost = Callable[[Sequence[np.ndarray], dict[str, Any]], int]


def _largest(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    return max((array.size for array in inputs), default=1)


def _broadcast(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    return math.prod(np.broadcast_shapes(*(array.shape for array in inputs)))


def _sum(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    return sum(array.size for array in inputs)


def _filled(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    return math.prod(int(side) for side in inputs[0])


def _expanded(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    return inputs[0].size * math.prod(max(1, int(side)) for side in inputs[1])


def _range(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    start, limit, step = (float(array.reshape(-1)[0]) for array in inputs)
    if step == 0:
        raise UnsupportedOperator("a range with steps of 0")
    return max(0, math.ceil((limit - start) / step))


def _gathered(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    side = inputs[0].shape[attributes.get("axis", 0)]
    return inputs[0].size // max(1, side) * inputs[1].size


def _product(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    return inputs[0].size * max(1, inputs[1].shape[-1] if inputs[1].ndim > 1 else 1)


def _padded(inputs: Sequence[np.ndarray], attributes: dict[str, Any]) -> int:
    ends = [int(end) for end in (inputs[1] if len(inputs) > 1 else attributes.get("pads", []))]
    rank = inputs[0].ndim
    if len(ends) != 2 * rank or len(inputs) > 3:
        raise UnsupportedOperator("pads a constant along some axes")
    sides = zip(inputs[0].shape, ends[:rank], ends[rank:], strict=True)
    return math.prod(max(0, sum(parts)) for parts in sides)


_COSTS: dict[str, Cost] = {
    **dict.fromkeys(
        (
            "Abs Acos Asin Atan ArgMax ArgMin Cast Ceil Cos CumSum Erf Exp Flatten Floor Identity"
            " Log Neg Not ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reciprocal Relu"
            " Reshape Round Shape Sigmoid Sign Sin Size Slice Softmax Split Sqrt Squeeze Tanh"
            " Transpose Trilu Unsqueeze"
        ).split(),
        _largest,
    ),
    **dict.fromkeys(
        (
            "Add And Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul"
            " Or Pow Sub Sum Where Xor"
        ).split(),
        _broadcast,
    ),
    "Concat": _sum,
    "ConstantOfShape": _filled,
    "DequantizeLinear": _largest,
    "Expand": _expanded,
    "Gather": _gathered,
    "MatMul": _product,
    "Pad": _padded,
    "QuantizeLinear": _largest,
    "Range": _range,
    "Tile": _expanded,
}

# The place of the input that is a shape, or a number of copies.
_SHAPES = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}


class Folder:
    """``size``: of the file, in bytes."""

    def __init__(self, size: int, opset: int):
        self._left = _BASE + _PER_BYTE * size
        self._opset = opset

    def fold(
        self, node: Any, attributes: dict[str, Any], inputs: Sequence[np.ndarray | None]
    ) -> list[np.ndarray]:
        """All results of ``node``, of which ``inputs`` are the constants (None: left out).

        Raises UnsupportedOperator if it cannot be computed here, or that were too much.
        """
        cost = _COSTS.get(node.op_type)
        if cost is None:
            raise UnsupportedOperator("computes constants in a way that is not known here")
        inputs = self._of_one_image(node.op_type, inputs)
        given = [array for array in inputs if array is not None]
        try:
            count = max(cost(given, attributes), _largest(given, attributes), 1)
        except (IndexError, ValueError, OverflowError) as error:
            raise UnsupportedOperator(f"constants that do not go together: {error}") from error
        self.spend(count)
        try:
            with np.errstate(all="ignore"):
                found = self._evaluated(node, inputs)
        except Exception as error:  # whatever numpy and onnx raise for what is wrong
            raise UnsupportedOperator(f"constants that do not go together: {error}") from error
        return [np.asarray(array) for array in found]

    def spend(self, count: int) -> None:
        """Raises UnsupportedOperator if ``count`` more numbers are too much."""
        self._left -= count
        if self._left < 0:
            raise UnsupportedOperator("computes more from constants than a file of this size may")

    def _of_one_image(
        self, op: str, inputs: Sequence[np.ndarray | None]
    ) -> Sequence[np.ndarray | None]:
        """A constant that is repeated for every image is the constant of one."""
        place = _SHAPES.get(op)
        if place is None or place >= len(inputs) or inputs[place] is None:
            return inputs
        sides = np.array(inputs[place])
        return [*inputs[:place], np.where(sides == FREE_BATCH, 1, sides), *inputs[place + 1 :]]

    def _evaluated(self, node: Any, inputs: Sequence[np.ndarray | None]) -> list[Any]:
        from onnx import TypeProto, ValueInfoProto, helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in node.input if name]
        feeds = {
            name: array for name, array in zip(node.input, inputs, strict=True) if array is not None
        }
        infos = [ValueInfoProto(name=name, type=TypeProto()) for name in dict.fromkeys(names)]
        results = [ValueInfoProto(name=name, type=TypeProto()) for name in node.output if name]
        graph = helper.make_graph([node], "constants", infos, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        return list(ReferenceEvaluator(model).run(None, feeds))  # type: ignore[arg-type]
