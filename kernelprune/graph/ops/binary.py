"""binary: arithmetic of two values, with numpy's broadcasting. What one number, or one number per
channel, does to a value becomes ``affine`` or ``unary`` instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Row, Shape, as_module, broadcast
from kernelprune.graph.ops.integers import OnIntegers, added, multiplied
from kernelprune.graph.ops.unary import powered

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _mask(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a`` where ``b`` is not 0, else 0; NaN for a ``b`` that is not known."""
    return np.where(b == 0, 0.0, np.where(np.isnan(b), np.nan, a))


FUNCTIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "pow": np.power,
    "mask": _mask,
}

# The name of a value, or a constant per image with as many axes as the values it meets.
Operand = str | np.ndarray


def operand(call: Any, argument: Any, rank: int | None = None) -> Operand:
    """An argument of a call whose result has ``rank`` axes with the batch."""
    rank = len(call.fx_node.meta["val"].shape) if rank is None else rank
    if rows.is_constant(call, argument):
        return rows.constant_per_image(call, argument, rank).astype(np.float64)
    rows.check_floating(argument)
    if len(rows.torch_shape(argument)) != rank:
        raise UnsupportedOperator("broadcasting moves the batch to another axis")
    return _unexpanded(call, call.value(argument))


def _unexpanded(call: Any, value: str) -> str:
    """The value that ``value`` merely repeats along some axes."""
    node = rows.producer(call, value)
    return node.inputs[0] if node is not None and node.op == "expand" else value


def combined(call: Any, function: str, a: Operand, b: Operand) -> Operand:
    """``function`` of two operands, as simple nodes as there are; a constant of two constants."""
    if isinstance(a, str) and isinstance(b, str):
        return _of_values(call, function, a, b)
    if isinstance(a, str):
        assert isinstance(b, np.ndarray)
        return _by_constant(call, function, a, b)
    if isinstance(b, str):
        return _of_constant(call, function, a, b)
    with np.errstate(all="ignore"):
        return FUNCTIONS[function](a, b)


def _of_values(call: Any, function: str, a: str, b: str) -> str:
    if function == "mul" and a == b:
        return rows.unary(call, a, "square")
    if function == "add" and call.shape(a) == call.shape(b):
        return rows.emit(call, "add", [a, b], {"activation": "none"})
    if function == "div":
        norm = _norm_of(call, a, b)
        if norm is not None:
            return rows.emit(call, "l2_normalize", [a], norm)
    return rows.binary(call, function, a, b)


def _norm_of(call: Any, x: str, divisor: str) -> dict[str, Any] | None:
    """Parameters of l2_normalize if ``divisor`` is max(norm of x over one axis, eps)."""
    limit = rows.producer(call, divisor)
    if limit is None or limit.op != "unary" or limit.params["function"] != "clamp_min":
        return None
    norm, eps = rows.producer(call, limit.inputs[0]), limit.params["alpha"]
    if norm is None or norm.op != "reduce" or norm.inputs != [x] or eps < 0:
        return None
    axes = norm.params["axes"]
    if norm.params["function"] != "l2" or not norm.params["keepdim"] or len(axes) != 1:
        return None
    return {"axis": axes[0], "eps": eps}


def _by_constant(call: Any, function: str, x: str, array: np.ndarray) -> str:
    """function(x, array)."""
    numbers = rows.by_channel(array, call.shape(x))
    if numbers is not None:
        if function in ("add", "sub"):
            return rows.affine(call, x, 1.0, numbers if function == "add" else -numbers)
        with np.errstate(divide="ignore"):
            factor = 1.0 / numbers if function == "div" else numbers
        if function in ("mul", "div") and np.isfinite(factor.astype(np.float32)).all():
            return rows.affine(call, x, factor, 0.0)
        if (numbers == numbers[0]).all() and function == "pow":
            return powered(call, x, float(numbers[0]))
        if (numbers == numbers[0]).all() and function in ("minimum", "maximum"):
            name = "clamp_max" if function == "minimum" else "clamp_min"
            return rows.unary(call, x, name, rows.number(float(numbers[0]), "the bound"))
    return rows.binary(call, function, x, rows.constant(call, array))


def _of_constant(call: Any, function: str, array: np.ndarray, x: str) -> str:
    """function(array, x)."""
    if function in ("add", "mul", "minimum", "maximum"):
        return _by_constant(call, function, x, array)
    numbers = rows.by_channel(array, call.shape(x))
    if numbers is not None and function == "sub":
        return rows.affine(call, x, -1.0, numbers)
    if numbers is not None and function == "div":
        inverse = rows.unary(call, x, "reciprocal")
        return _by_constant(call, "mul", inverse, array)
    return rows.binary(call, function, rows.constant(call, array), x)


def as_value(call: Any, found: Operand) -> str:
    return found if isinstance(found, str) else rows.constant(call, _whole(call, found))


def _whole(call: Any, array: np.ndarray) -> np.ndarray:
    return np.broadcast_to(array, rows.result_shape(call))


# ---------------------------------------------------------------- rows


def _scaled(call: Any, found: Operand, factor: Any) -> Operand:
    """``factor * found``: add's alpha, addcmul's value."""
    factor = rows.number(factor, "the factor")
    if factor == 1:
        return found
    return rows.affine(call, found, factor, 0.0) if isinstance(found, str) else found * factor


def _row(function: str, *, swapped: bool = False) -> Row:
    def row(call: Any) -> str:
        if call.get("rounding_mode") is not None:
            raise UnsupportedOperator("division that rounds")
        if "other" not in call.arguments and "exponent" not in call.arguments:
            raise UnsupportedOperator("of one tensor")  # reduce has a row for these
        a, b = call["self"], call.get("other", call.get("exponent"))
        if function == "pow" and isinstance(b, (int, float)):
            raise UnsupportedOperator("an exponent that is a number")  # see unary
        first, second = operand(call, a), operand(call, b)
        if swapped:
            first, second = second, _scaled(call, first, call.get("alpha", 1))
        else:
            second = _scaled(call, second, call.get("alpha", 1))
        if function in ("add", "sub") and isinstance(second, np.ndarray):
            second = rows.finite_for(call, second, rows.SOFTMAX)
        return as_value(call, combined(call, function, first, second))

    return row


def _addc(function: str) -> Row:
    """self + value * function(tensor1, tensor2)."""

    def row(call: Any) -> str:
        base, a, b = (operand(call, call[name]) for name in ("self", "tensor1", "tensor2"))
        product = _scaled(call, combined(call, function, a, b), call["value"])
        return as_value(call, combined(call, "add", base, product))

    return row


def _clamp(call: Any) -> str:
    """Bounds that are tensors."""
    if all(
        call.get(name) is None or isinstance(call[name], (int, float)) for name in ("min", "max")
    ):
        raise UnsupportedOperator("bounds that are numbers")  # see unary
    found = operand(call, call["self"])
    for name, function in (("min", "maximum"), ("max", "minimum")):
        if call.get(name) is not None:
            found = combined(call, function, found, operand(call, call[name]))
    return as_value(call, found)


def _where(call: Any) -> str:
    if not rows.is_constant(call, call["condition"]):
        raise UnsupportedOperator("a condition that depends on the model's input")
    chosen = operand(call, call["condition"])
    first, second = operand(call, call["self"]), operand(call, call["other"])
    return as_value(call, chosen_of(call, chosen, first, second, rows.result_shape(call)))


def _masked_fill(call: Any) -> str:
    if not rows.is_constant(call, call["mask"]):
        raise UnsupportedOperator("a mask that depends on the model's input")
    mask = operand(call, call["mask"])
    filling, other = operand(call, call["value"]), operand(call, call["self"])
    return as_value(call, chosen_of(call, mask, filling, other, rows.result_shape(call)))


def chosen_of(call: Any, mask: Operand, a: Operand, b: Operand, shape: Shape) -> Operand:
    """a where the constant ``mask`` is not 0, else b; ``shape`` is the result's. What is not chosen
    leaves no trace, were it a NaN: the sum of both, each with zeros in place of what the other has.
    """
    assert isinstance(mask, np.ndarray)
    taken = mask != 0
    parts = [_masked(call, part, kept) for part, kept in ((a, taken), (b, ~taken))]
    for part, other in (parts, parts[::-1]):
        is_zero = isinstance(other, np.ndarray) and not other.any()
        if is_zero and isinstance(part, str) and tuple(call.shape(part)) == shape:
            return part
    return combined(call, "add", *parts)


def _masked(call: Any, part: Operand, kept: np.ndarray) -> Operand:
    """``part`` where ``kept`` (bools), else 0."""
    if isinstance(part, np.ndarray):
        return rows.finite_for(call, np.where(kept, part, 0.0), rows.SOFTMAX)
    if kept.all():
        return part
    if not kept.any():
        return np.zeros_like(kept, np.float64)
    return rows.binary(call, "mask", part, rows.constant(call, kept.astype(np.float64)))


_ON_INTEGERS: dict[str, OnIntegers] = {"add": added, "mul": multiplied}


class Binary(Op):
    """``function`` of the two inputs' elements; sides of 1 are repeated."""

    name = "binary"
    min_inputs = max_inputs = 2
    parameters = (Parameter("function", "choice", choices=tuple(FUNCTIONS)),)
    torch_rows = {
        **rows.rows(["add"], _row("add")),
        **rows.rows(["sub", "subtract"], _row("sub")),
        **rows.rows(["mul", "multiply"], _row("mul")),
        **rows.rows(["div", "divide", "true_divide"], _row("div")),
        **rows.rows(["pow"], _row("pow")),
        **rows.rows(["addcmul"], _addc("mul")),
        **rows.rows(["addcdiv"], _addc("div")),
        **rows.rows(["clamp", "clip", "clamp_min", "clamp_max"], _clamp),
        **rows.rows(["masked_fill"], _masked_fill),
        "aten::rsub": _row("sub", swapped=True),
        "aten::minimum": _row("minimum"),
        "aten::maximum": _row("maximum"),
        "aten::min": _row("minimum"),
        "aten::max": _row("maximum"),
        "aten::where": _where,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return broadcast(input_shapes[0], input_shapes[1])

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        width = node.shape[0]
        return [np.arange(width) if s[0] == width else np.zeros(width, np.int64) for s in shapes]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        return [shape[0] == node.shape[0] for shape in shapes]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        a, b = (np.broadcast_to(each, node.shape[:1]) for each in inputs)
        function = node.params["function"]
        with np.errstate(all="ignore"):
            found = FUNCTIONS[function](a, b)
        if function in ("mul", "mask"):
            found = np.where((a == 0) | (b == 0), 0.0, found)
        return np.asarray(found, np.float64)

    def quantizable(self, node: Node) -> bool:
        return node.params["function"] in _ON_INTEGERS

    def on_integers(self, node: Node, shapes: Sequence[Shape], to_bytes: bool) -> OnIntegers | None:
        return _ON_INTEGERS.get(node.params["function"]) if to_bytes else None

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        if node.params["function"] == "mask":
            return as_module(lambda a, b: torch.where(b == 0, torch.zeros_like(a), a))
        return as_module(getattr(torch, node.params["function"]))
