"""matmul: matrix products of two values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, broadcast, elements
from kernelprune.graph.ops.binary import Operand, combined, operand
from kernelprune.graph.ops.convolution import pointwise

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node

# ---------------------------------------------------------------- products


def product(call: Any, a: str, b: str, transpose_a: bool = False, transpose_b: bool = False) -> str:
    """A matmul node."""
    params = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    return rows.emit(call, "matmul", [a, b], params)


def product_of(call: Any, a: Any, b: Any) -> Any:
    """Of two arguments; what only swaps their last two axes becomes a parameter. If b lies swapped
    in memory, as the keys and values of attention do behind a layer along the channels, then so
    does the result: (a b)^T = b^T a^T."""
    (left, transpose_a), (right, transpose_b) = call.matrix(a), call.matrix(b)
    if not transpose_b:
        return product(call, left, right, transpose_a)
    return call.swapped(product(call, right, left, transpose_b=not transpose_a))


def _matmul(call: Any) -> Any:
    a, b = call["self"], call.get("mat2", call.get("other"))
    rank = len(call.fx_node.meta["val"].shape)
    if rows.is_constant(call, b):
        return _by_matrix(call, a, call.array(b))
    if rows.is_constant(call, a):
        return _of_matrix(call, call.array(a), b, rank)
    if len(rows.torch_shape(a)) != rank or len(rows.torch_shape(b)) != rank or rank < 3:
        raise UnsupportedOperator("a product that mixes the images of a batch")
    rows.check_floating(a, b)
    return product_of(call, a, b)


def _by_matrix(call: Any, x: Any, matrix: np.ndarray) -> Any:
    """x @ matrix."""
    if matrix.ndim == 2:
        return pointwise(call, x, -1, matrix.T, None)
    if matrix.ndim == 1:
        found = pointwise(call, x, -1, matrix[None], None)
        if isinstance(found, str):  # [N, 1]
            return found
        return found.with_axes(found.axes[:-1])  # the last axis has side 1, and no parts
    aligned = rows.constant_per_image(call, matrix, len(rows.torch_shape(x)))
    return product(call, call.value(x), rows.constant(call, aligned))


def _of_matrix(call: Any, matrix: np.ndarray, x: Any, rank: int) -> Any:
    """matrix @ x."""
    if rank < 3 or len(rows.torch_shape(x)) != rank or matrix.ndim < 2:
        raise UnsupportedOperator("a product that mixes the images of a batch")
    if matrix.ndim == 2 and rank == 3:
        return pointwise(call, x, 1, matrix, None)
    aligned = rows.constant_per_image(call, matrix, rank)
    return product(call, rows.constant(call, aligned), call.value(x))


def _baddbmm(call: Any) -> str:
    """beta * self + alpha * batch1 @ batch2."""
    (left, transpose_a), (right, transpose_b) = (call.matrix(call[n]) for n in ("batch1", "batch2"))
    found: Operand = product(call, left, right, transpose_a, transpose_b)
    parts = [found, operand(call, call["self"])]
    for place, name in enumerate(("alpha", "beta")):
        factor = rows.number(call[name], name)
        if factor != 1:
            parts[place] = combined(call, "mul", parts[place], np.full((1, 1), factor))
    return str(combined(call, "add", parts[1], parts[0]))


# ---------------------------------------------------------------- the op


class Matmul(Op):
    """Product of the last two axes, swapped first where a parameter says so; leading sides are
    equal or 1."""

    name = "matmul"
    min_inputs = max_inputs = 2
    parameters = (Parameter("transpose_a", "flag"), Parameter("transpose_b", "flag"))
    torch_rows = {
        "aten::matmul": _matmul,
        "aten::bmm": _matmul,
        "aten::mm": _matmul,
        "aten::baddbmm": _baddbmm,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        a, b = input_shapes
        if len(a) != len(b) or not 2 <= len(a) <= 4:
            raise ShapeError(f"multiplies {list(a)} and {list(b)}: needs one rank of 2 to 4")
        rows_a, depth_a = a[:-3:-1] if params["transpose_a"] else a[-2:]
        depth_b, columns = b[:-3:-1] if params["transpose_b"] else b[-2:]
        if depth_a != depth_b:
            raise ShapeError(f"multiplies rows of {depth_a} with columns of {depth_b}")
        return (*broadcast(a[:-2], b[:-2]), rows_a, columns)

    def macs(self, node: Node, shapes: Sequence[Shape]) -> int:
        depth = shapes[0][-2 if node.params["transpose_a"] else -1]
        return elements(node.shape) * int(depth)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """Matrices in front of the last two axes do not touch each other."""
        width = node.shape[0]
        if len(node.shape) == 2:
            return [None, None]
        return [np.arange(width) if s[0] == width else np.zeros(width, np.int64) for s in shapes]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        return [shape[0] == node.shape[0] for shape in shapes]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        first, second = node.params["transpose_a"], node.params["transpose_b"]

        def forward(a: Any, b: Any) -> Any:
            return torch.matmul(a.mT if first else a, b.mT if second else b)

        return as_module(forward)
