"""matmul: matrix products of two values, and what is made of them: attention, einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelprune.errors import ShapeError, UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, broadcast, elements
from kernelprune.graph.ops.binary import Operand, combined, operand
from kernelprune.graph.ops.convolution import linear, linear_along
from kernelprune.graph.ops.gather import gathered

# ---------------------------------------------------------------- products


def product(call: Any, a: str, b: str) -> str:
    """A matmul node; what only swaps the last two axes before it becomes its parameter."""
    (a, transpose_a), (b, transpose_b) = (_untransposed(call, each) for each in (a, b))
    params = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    return rows.emit(call, "matmul", [a, b], params)


def _untransposed(call: Any, value: str) -> tuple[str, bool]:
    node = rows.producer(call, value)
    if node is None or node.op != "permute":
        return value, False
    axes = list(range(len(node.shape)))
    axes[-2:] = axes[:-3:-1]
    return (node.inputs[0], True) if node.params["axes"] == axes else (value, False)


def _matmul(call: Any) -> str:
    a, b = call["self"], call.get("mat2", call.get("other"))
    rank = len(call.fx_node.meta["val"].shape)
    if rows.is_constant(call, b):
        return _by_matrix(call, a, call.array(b))
    if rows.is_constant(call, a):
        return _of_matrix(call, call.array(a), b, rank)
    if len(rows.torch_shape(a)) != rank or len(rows.torch_shape(b)) != rank or rank < 3:
        raise UnsupportedOperator("a product that mixes the images of a batch")
    rows.check_floating(a, b)
    return product(call, call.value(a), call.value(b))


def _by_matrix(call: Any, x: Any, matrix: np.ndarray) -> str:
    """x @ matrix."""
    value = call.value(x)
    last = len(call.shape(value)) - 1
    if matrix.ndim == 2:
        return linear_along(call, value, last, matrix.T, None)
    if matrix.ndim == 1:
        found = linear_along(call, value, last, matrix[None], None)
        return rows.reshaped(call, found, rows.result_shape(call))
    aligned = rows.constant_per_image(call, matrix, len(rows.torch_shape(x)))
    return product(call, value, rows.constant(call, aligned))


def _of_matrix(call: Any, matrix: np.ndarray, x: Any, rank: int) -> str:
    """matrix @ x."""
    value = call.value(x)
    if rank < 3 or len(rows.torch_shape(x)) != rank or matrix.ndim < 2:
        raise UnsupportedOperator("a product that mixes the images of a batch")
    if matrix.ndim == 2 and rank == 3:
        return linear_along(call, value, 0, matrix, None)
    aligned = rows.constant_per_image(call, matrix, rank)
    return product(call, rows.constant(call, aligned), value)


def _baddbmm(call: Any) -> str:
    """beta * self + alpha * batch1 @ batch2."""
    found: Operand = product(call, call.value(call["batch1"]), call.value(call["batch2"]))
    parts = [found, operand(call, call["self"])]
    for place, name in enumerate(("alpha", "beta")):
        factor = rows.number(call[name], name)
        if factor != 1:
            parts[place] = combined(call, "mul", parts[place], np.full((1, 1), factor))
    return str(combined(call, "add", parts[1], parts[0]))


# ---------------------------------------------------------------- attention


def _attention(call: Any) -> str:
    """softmax(scale * query @ key^T + mask) @ value."""
    if call.get("dropout_p"):
        raise UnsupportedOperator("dropout is on in eval mode")
    rows.check_floating(call["query"], call["key"], call["value"])
    query, key, value = (call.value(call[name]) for name in ("query", "key", "value"))
    shape = tuple(call.shape(query))
    if call.get("enable_gqa"):
        key, value = (_repeated_heads(call, each, shape[-3]) for each in (key, value))
    scale = call.get("scale")
    scale = 1.0 / math.sqrt(shape[-1]) if scale is None else rows.number(scale, "the scale")
    swap = list(range(len(shape)))
    swap[-2:] = swap[:-3:-1]
    scores: Operand = product(
        call, rows.affine(call, query, scale, 0.0), rows.permuted(call, key, swap)
    )
    mask = _mask(call, (*shape[:-2], shape[-2], call.shape(key)[-2]))
    if mask is not None:
        scores = combined(call, "add", scores, mask)
    axis = len(shape) - 1
    weights = rows.emit(call, "softmax", [str(scores)], {"axis": axis} if axis else {})
    return product(call, weights, value)


def _repeated_heads(call: Any, x: str, heads: int) -> str:
    """Grouped queries: several heads of the query share one of the key."""
    axis, own = len(call.shape(x)) - 3, call.shape(x)[-3]
    return gathered(call, x, axis, np.arange(own).repeat(heads // own))


def _mask(call: Any, shape: Shape) -> Operand | None:
    """What is added to the scores of ``shape``."""
    given, rank = call.get("attn_mask"), len(shape) + 1
    if call["is_causal"]:
        allowed = np.tril(np.ones(shape[-2:], bool)).reshape((1,) * (rank - 3) + shape[-2:])
    elif given is None:
        return None
    elif not rows.is_constant(call, given):
        return operand(call, given, rank)
    else:
        found = rows.constant_per_image(call, given, rank)
        if str(given.meta["val"].dtype) != "torch.bool":
            if np.isneginf(found).all(axis=-1).any():
                raise UnsupportedOperator("a mask that leaves nothing to attend to")
            return np.maximum(found, float(np.finfo(np.float32).min))
        allowed = found != 0
    if not allowed.any(axis=-1).all():
        raise UnsupportedOperator("a mask that leaves nothing to attend to")
    return np.where(allowed, 0.0, float(np.finfo(np.float32).min))


# ---------------------------------------------------------------- einsum


def _einsum(call: Any) -> str:
    """One operand permuted and summed, or a product of two, the batch in front of each value."""
    equation = call["equation"].replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms, tensors = left.split(","), call["tensors"]
    letters = "".join(terms) + out
    single = all(len(set(term)) == len(term) for term in [*terms, out])
    if not arrow or "." in letters or len(terms) > 2 or not single:
        raise UnsupportedOperator(f"einsum '{equation}'")
    batch = out[:1]
    parts = []
    for term, argument in zip(terms, tensors, strict=True):
        if rows.is_constant(call, argument):
            if batch in term:
                raise UnsupportedOperator("a constant reaches into the batch axis")
            parts.append((rows.constant(call, call.array(argument)), term))
        elif term[:1] != batch:
            raise UnsupportedOperator("mixes the images of a batch")
        else:
            parts.append((call.value(argument), term[1:]))
    parts = [_summed(call, *part, [t for t in terms if t is not term] + [out]) for part, term in zip(parts, terms, strict=True)]
    found, order = parts[0] if len(parts) == 1 else _contracted(call, *parts, out[1:])
    return rows.permuted(call, found, [order.index(letter) for letter in out[1:]])


def _summed(call: Any, x: str, axes: str, others: Sequence[str]) -> tuple[str, str]:
    """Without the axes that appear nowhere else."""
    alone = [place for place, letter in enumerate(axes) if not any(letter in o for o in others)]
    if not alone:
        return x, axes
    kept = "".join(letter for place, letter in enumerate(axes) if place not in alone)
    return rows.reduced(call, x, "sum", alone, False), kept


def _contracted(
    call: Any, first: tuple[str, str], second: tuple[str, str], out: str
) -> tuple[str, str]:
    """The product over the shared axes that ``out`` lacks, and the order of its axes."""
    (a, axes_a), (b, axes_b) = first, second
    sides = dict(zip(axes_a + axes_b, (*call.shape(a), *call.shape(b)), strict=True))
    lead = [letter for letter in out if letter in axes_a and letter in axes_b]
    inner = [letter for letter in axes_a if letter in axes_b and letter not in out]
    free_a, free_b = ([x for x in axes if x not in lead + inner] for axes in (axes_a, axes_b))
    blocks = [elements(tuple(sides[x] for x in group)) for group in (lead, free_a, inner, free_b)]
    leading, rows_a, depth, columns = blocks
    a = rows.permuted(call, a, [axes_a.index(x) for x in lead + free_a + inner])
    b = rows.permuted(call, b, [axes_b.index(x) for x in lead + inner + free_b])
    found = product(
        call,
        rows.reshaped(call, a, (leading, rows_a, depth)),
        rows.reshaped(call, b, (leading, depth, columns)),
    )
    order = lead + free_a + free_b
    return rows.reshaped(call, found, [sides[x] for x in order] or [1]), "".join(order)


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
        "aten::linear": linear,
        "aten::baddbmm": _baddbmm,
        "aten::scaled_dot_product_attention": _attention,
        "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
        "aten::einsum": _einsum,
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

    def macs(self, node: Any, shapes: Sequence[Shape]) -> int:
        depth = shapes[0][-2 if node.params["transpose_a"] else -1]
        return elements(node.shape) * int(depth)

    def channel_sources(self, node: Any, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """Matrices in front of the last two axes do not touch each other."""
        width = node.shape[0]
        if len(node.shape) == 2:
            return [None, None]
        return [np.arange(width) if s[0] == width else np.zeros(width, np.int64) for s in shapes]

    def ties(self, node: Any, shapes: Sequence[Shape]) -> list[bool]:
        return [shape[0] == node.shape[0] for shape in shapes]

    def to_torch(self, node: Any, shapes: Sequence[Shape]) -> Any:
        import torch

        first, second = node.params["transpose_a"], node.params["transpose_b"]

        def forward(a: Any, b: Any) -> Any:
            return torch.matmul(a.mT if first else a, b.mT if second else b)

        return as_module(forward)
