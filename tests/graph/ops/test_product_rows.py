"""Rows of matrix products: matmul, attention, einsum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph.ops.capture import Model, captured, ops
from torch import nn
from torch.nn import functional as F

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.trace import trace


def counting(*shape: int) -> torch.Tensor:
    return torch.arange(float(math.prod(shape)), dtype=torch.float64).reshape(shape)


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "matrices": (
        lambda a, b: (
            a @ b, torch.bmm(a, b), b.transpose(1, 2) @ a.transpose(1, 2),
            a @ a.transpose(1, 2), a.transpose(1, 2) @ a, torch.baddbmm(a @ b, a, b),
            torch.baddbmm(counting(5), a, b, beta=0.5, alpha=2.0),
        ),
        [(3, 4), (4, 5)],
    ),
    "stacked matrices": (
        lambda a, b: (a @ b.mT, a @ b[:, :1].mT, a[:, :1] @ b.mT, torch.matmul(b, a.mT)),
        [(2, 3, 4), (2, 5, 4)],
    ),
    "constant matrices": (
        lambda a: (
            a @ counting(4, 6), counting(5, 2) @ a.flatten(1, 2)[:, :2],
            a @ counting(4), a @ counting(2, 4, 6),
            counting(2, 2, 3) @ a, a.flatten(1) @ counting(24, 3),
            counting(5, 3) @ a,
        ),
        [(2, 3, 4)],
    ),
    "einsum": (
        lambda a, b: (
            torch.einsum("nij,nkj->nik", a, b), torch.einsum("nij,nkj->nki", a, b),
            torch.einsum("nij,nkj->nj", a, b), torch.einsum("nij->nji", a),
            torch.einsum("nij->ni", a), torch.einsum("nij,nkj->nijk", a, b),
            torch.einsum("nij,oj->noi", a, counting(2, 4)),
            torch.einsum("nij,j->ni", a, counting(4)), torch.einsum("nij,nij->n", a, a),
        ),
        [(3, 4), (5, 4)],
    ),
    "einsum of maps": (
        lambda a, b: (
            torch.einsum("bchw,bcuw->bhu", a, b), torch.einsum("bchw,bchv->bcwv", a, b),
            torch.einsum("bhqd,bhkd->bhqk", a, b),
        ),
        [(2, 3, 4), (2, 3, 4)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    """If this fails, a product sums over the wrong axis."""
    function, shapes = FUNCTIONS[name]
    captured(Model(function), shapes)


def test_swapped_axes_are_parameters() -> None:
    """If this fails, a permute is computed that the product does on its way."""
    model = Model(lambda a, b: a.transpose(1, 2) @ b)
    graph = captured(model, [(4, 3), (4, 5)])
    assert ops(graph) == ["matmul"]
    assert graph.nodes[0].params == {"transpose_a": True, "transpose_b": False}
    assert graph.macs() == 3 * 4 * 5


def _attention(**options: Any) -> Callable[..., Any]:
    return lambda q, k: F.scaled_dot_product_attention(q, k, k * 0.5, **options)


HEADS = [(2, 3, 4), (2, 5, 4)]
ATTENTION: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "heads": (_attention(), HEADS),
    "no heads": (_attention(), [(3, 4), (5, 4)]),
    "scale": (_attention(scale=0.3), HEADS),
    "causal": (_attention(is_causal=True), HEADS),
    "added mask": (_attention(attn_mask=counting(3, 5)), HEADS),
    "allowed": (_attention(attn_mask=(torch.arange(5) > 1)[None]), HEADS),
    "minus infinity": (
        _attention(attn_mask=torch.where(counting(1, 5) > 1, 0.0, -math.inf).double()),
        HEADS,
    ),
    "grouped queries": (_attention(enable_gqa=True), [(4, 3, 4), (2, 5, 4)]),
    "by hand": (
        lambda q, k: torch.softmax(q @ k.transpose(-2, -1) / 2 + 0.5, -1) @ k,
        HEADS,
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    """If this fails, attention looks at other places than torch's."""
    function, shapes = ATTENTION[name]
    captured(Model(function), shapes)


def test_mask_of_the_input() -> None:
    """If this fails, a mask that the model computes is left out."""
    model = Model(lambda q, k: F.scaled_dot_product_attention(q, k, k, q @ k.mT))
    captured(model, HEADS)


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(batch_first: bool) -> None:
    """If this fails, torch's own attention layer cannot be captured, with either order of axes."""
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(attention: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = x if batch_first else x.transpose(0, 1)
        found = attention(x, x, x, need_weights=False)[0]
        return found if batch_first else found.transpose(0, 1)

    captured(Model(forward, module), [(5, 8)])


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "all masked": (_attention(attn_mask=torch.zeros(1, 5, dtype=torch.bool)), "nothing to attend"),
    "a product of images": (
        lambda a, b: a.flatten(1) @ a.flatten(1).t() @ b.flatten(1),
        "batch",
    ),
    "a diagonal": (lambda a, b: torch.einsum("nhii->nhi", a @ a.mT), "einsum"),
    "einsum of images": (lambda a, b: torch.einsum("nhid,mhid->nm", a, a), "batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, images of a batch mix, or a product is taken for another."""
    function, reason = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=reason):
        trace(Model(function), tuple(torch.zeros(2, *shape) for shape in HEADS))
