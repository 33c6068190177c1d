"""The row of einsum: sums, permutes and one product."""

from __future__ import annotations

from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Row, elements
from kernelprune.graph.ops.matmul import product

_Part = tuple[str, str]  # the name of a value, the letters of its axes


def _einsum(call: Any) -> str:
    """One operand permuted and summed, or a product of two, the batch in front of each value."""
    equation = call["equation"].replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms, tensors = left.split(","), call["tensors"]
    single = all(len(set(term)) == len(term) for term in [*terms, out])
    if not arrow or "." in equation or len(terms) > 2 or not single:
        raise UnsupportedOperator(f"einsum '{equation}'")
    fixed = [rows.is_constant(call, argument) for argument in tensors]
    for term, is_fixed in zip(terms, fixed, strict=True):
        if (out[:1] in term) if is_fixed else (term[:1] != out[:1]):
            raise UnsupportedOperator("einsum that mixes the images of a batch")
    parts: list[_Part] = []
    for place, (term, argument) in enumerate(zip(terms, tensors, strict=True)):
        axes = term if fixed[place] else term[1:]
        found = rows.constant(call, call.array(argument)) if fixed[place] else call.value(argument)
        others = [out, *terms[:place], *terms[place + 1 :]]
        parts.append(_summed(call, (found, axes), "".join(others)))
    whole, order = parts[0] if len(parts) == 1 else _contracted(call, parts[0], parts[1], out[1:])
    return rows.permuted(call, whole, [order.index(letter) for letter in out[1:]])


def _summed(call: Any, part: _Part, others: str) -> _Part:
    """Without the axes that appear nowhere else."""
    x, axes = part
    alone = [place for place, letter in enumerate(axes) if letter not in others]
    if not alone:
        return part
    kept = "".join(letter for letter in axes if letter in others)
    return rows.reduced(call, x, "sum", alone, False), kept


def _contracted(call: Any, first: _Part, second: _Part, out: str) -> _Part:
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


TORCH_ROWS: dict[str, Row] = {"aten::einsum": _einsum}
