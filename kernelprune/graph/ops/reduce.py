"""reduce: mean, sum, largest, smallest, or norm over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import getitem
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import MAX_RANK, Op, Parameter, Row, Shape, as_module
from kernelprune.graph.ops.binary import combined

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- rows


def _axes(call: Any) -> list[int]:
    rows.check_floating(call["self"])
    rows.check_dtype(call)
    return rows.axes_of(call.get("dim"), len(rows.torch_shape(call["self"])))


# How a reduction over an axis of operands that lie apart is made of two at a time.
OVER_OPERANDS = {"aten::sum": "add", "aten::mean": "add", "aten::amax": "maximum",
                 "aten::amin": "minimum"}  # fmt: skip


def _over(call: Any, function: str, operands: Sequence[str]) -> str:
    found: Any = operands[0]
    for other in operands[1:]:
        found = combined(call, OVER_OPERANDS[f"aten::{function}"], found, other)
    return str(rows.affine(call, found, 1 / len(operands), 0.0) if function == "mean" else found)


def _row(function: str) -> Row:
    def row(call: Any) -> str:
        operands = call.stacked(call["self"])
        if operands is not None:
            return _over(call, function, operands)
        axes = _axes(call)
        x = call.value(call["self"])
        return rows.reduced(call, x, function, axes, call.get("keepdim", False))

    return row


def _extreme(function: str) -> Row:
    """max or min over one axis: (values, indices)."""

    def row(call: Any) -> Any:
        if "other" in call.arguments:
            raise UnsupportedOperator("of two tensors")  # binary has a row for these
        axes = _axes(call)
        x = call.value(call["self"])
        values = rows.reduced(call, x, function, axes, call.get("keepdim", False))
        users = [user for user in call.fx_node.users if user.target is getitem]
        if "dim" not in call.arguments or not any(user.args[1] == 1 for user in users):
            return values
        if function == "amin":
            x = rows.unary(call, x, "neg")
        params = {"axis": axes[0], "keepdim": bool(call["keepdim"])}
        return values, rows.emit(call, "argmax", [x], params)

    return row


def variance(call: Any, x: str, axes: Sequence[int], correction: float) -> tuple[str, str, str]:
    """(variance, mean, x - mean) over axes, with sides of 1 where these were."""
    count = math.prod(call.shape(x)[axis] for axis in axes)
    if count <= correction:
        raise UnsupportedOperator(f"the variance of {count} numbers with correction {correction}")
    mean = rows.reduced(call, x, "mean", axes, True)
    centred = rows.binary(call, "sub", x, mean)
    found = rows.reduced(call, rows.unary(call, centred, "square"), "mean", axes, True)
    if correction:
        found = rows.affine(call, found, count / (count - correction), 0.0)
    return found, mean, centred


def _var(call: Any, *, root: bool = False, with_mean: bool = False) -> Any:
    axes = _axes(call)
    correction = call.get("correction", 1 if call.get("unbiased", True) else 0)
    correction = rows.number(1 if correction is None else correction, "the correction")
    found, mean, _ = variance(call, call.value(call["self"]), axes, correction)
    found = rows.unary(call, found, "sqrt") if root else found
    shapes = [rows.result_shape(call, item) for item in (0, 1 if with_mean else 0)]
    found, mean = (
        rows.reshaped(call, each, shape) for each, shape in zip((found, mean), shapes, strict=True)
    )
    return (found, mean) if with_mean else found


def _norm(call: Any) -> str:
    axes, keepdim = _axes(call), call.get("keepdim", False)
    order = call.get("ord", call.get("p"))
    order = 2.0 if order is None else float(order)
    x = call.value(call["self"])
    if order == 2:
        return rows.reduced(call, x, "l2", axes, keepdim)
    if order <= 0 and order != -math.inf:
        raise UnsupportedOperator(f"a norm of order {order}")
    size = rows.unary(call, x, "abs")
    if order == 1:
        return rows.reduced(call, size, "sum", axes, keepdim)
    if math.isinf(order):
        return rows.reduced(call, size, "amax" if order > 0 else "amin", axes, keepdim)
    total = rows.reduced(call, rows.unary(call, size, "pow", order), "sum", axes, keepdim)
    return rows.unary(call, total, "pow", 1.0 / order)


def log_sum_exp(call: Any, x: str, axes: Sequence[int]) -> str:
    """log(sum(exp(x - largest))) + largest, with sides of 1 where the axes were."""
    largest = rows.reduced(call, x, "amax", axes, True)
    scaled = rows.unary(call, rows.binary(call, "sub", x, largest), "exp")
    total = rows.unary(call, rows.reduced(call, scaled, "sum", axes, True), "log")
    return rows.binary(call, "add", total, largest)


def _logsumexp(call: Any) -> str:
    axes = _axes(call)
    found = log_sum_exp(call, call.value(call["self"]), axes)
    return rows.reshaped(call, found, rows.result_shape(call))


# ---------------------------------------------------------------- the op


class Reduce(Op):
    """``function`` over ``axes``: sides of 1, left out without ``keepdim``."""

    name = "reduce"
    parameters = (
        Parameter("function", "choice", choices=("mean", "sum", "amax", "amin", "l2")),
        Parameter("axes", "integers", low=0, high=MAX_RANK - 1),
        Parameter("keepdim", "flag"),
    )
    torch_rows = {
        "aten::mean": _row("mean"),
        "aten::sum": _row("sum"),
        "aten::amax": _row("amax"),
        "aten::amin": _row("amin"),
        "aten::max": _extreme("amax"),
        "aten::min": _extreme("amin"),
        "aten::var": _var,
        "aten::std": lambda call: _var(call, root=True),
        "aten::var_mean": lambda call: _var(call, with_mean=True),
        "aten::std_mean": lambda call: _var(call, root=True, with_mean=True),
        "aten::linalg_vector_norm": _norm,
        "aten::norm": _norm,
        "aten::logsumexp": _logsumexp,
    }

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        axes = list(params["axes"])
        if axes != sorted(set(axes)):
            raise FormatError(f"axes {axes} are not ascending")

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape, axes = input_shapes[0], params["axes"]
        if max(axes) >= len(shape):
            raise ShapeError(f"input {list(shape)} has no axis {max(axes)}")
        if params["keepdim"]:
            return tuple(1 if axis in axes else side for axis, side in enumerate(shape))
        return tuple(side for axis, side in enumerate(shape) if axis not in axes) or (1,)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [None if 0 in node.params["axes"] else np.arange(node.shape[0])]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        axes, function = node.params["axes"], node.params["function"]
        if 0 in axes:
            return np.full(node.shape[0], np.nan)
        count = math.prod(shapes[0][axis] for axis in axes)
        if function == "l2":
            return np.abs(inputs[0]) * math.sqrt(count)
        return inputs[0] * count if function == "sum" else inputs[0]

    def scales_with(self, node: Node) -> bool:
        return 0 not in node.params["axes"]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        name, keepdim = node.params["function"], node.params["keepdim"]
        function = torch.linalg.vector_norm if name == "l2" else getattr(torch, name)
        dims = [axis + 1 for axis in node.params["axes"]]
        whole = not keepdim and len(dims) == len(shapes[0])  # [N], which is the value [1]

        def forward(x: Any) -> Any:
            found = function(x, dim=dims, keepdim=keepdim)
            return found[:, None] if whole else found

        return as_module(forward)
