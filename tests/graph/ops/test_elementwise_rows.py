"""Rows of ATen operators that work element by element: functions, arithmetic, constants."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from graph.ops.capture import Model, captured, images, ops
from graph.ops.op_cases import UNARY, needs_positive
from torch import nn
from torch.nn import functional as F

from kernelprune import _core
from kernelprune.format.writer import to_bytes
from kernelprune.frontends.torch import to_torch
from kernelprune.frontends.torch.trace import trace

MAP = (4, 3, 5)

# name -> function. All of a group are captured at once, each as one output of a model.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "special": lambda x: (torch.special.expit(x), torch.special.erf(x)),
    "in place": lambda x: F.silu(F.hardswish(F.leaky_relu(x * 1.5, 0.3, True), True), True),
    "clamps": lambda x: (
        torch.clamp(x, -0.3, 0.4), torch.clamp(x, min=-0.3), torch.clamp(x, max=0.4),
        x.clamp_min(0.2), x.clamp_max(0.2), F.hardtanh(x), F.hardtanh(x, -0.5, 2.0),
        torch.clamp(x, 0, 6), torch.clamp(x, min=0), F.hardtanh(x, -float("inf"), 0.5),
        torch.clamp(x, -1, float("inf")), torch.clamp(x, torch.tensor(-0.5), torch.tensor(0.5)),
    ),
    "powers": lambda x: (
        x**2, x**3, x**-1, x**1, torch.pow(x, 2.0), torch.pow(x, torch.tensor(2.0)), 2**x,
    ),
    "composed": lambda x: (
        F.tanhshrink(x), F.softsign(x), F.glu(x, 1), F.rrelu(x, 0.1, 0.3),
    ),
    "numbers": lambda x: (
        x + 1, 1 + x, x - 2, 2 - x, x * 3, x / 4, 4 / x, torch.add(x, 2, alpha=3),
        torch.sub(x, 2, alpha=3), torch.rsub(x, 2, alpha=3), x + torch.tensor(1.5),
        torch.minimum(x, torch.tensor(0.5)), torch.maximum(torch.tensor(0.5), x),
    ),
    "channels": lambda x: (
        x + torch.arange(4.0)[:, None, None], x * torch.arange(4.0)[None, :, None, None],
        x / (torch.arange(4.0) + 1)[:, None, None], x - torch.ones(4, 1, 1),
        torch.ones(4, 1, 1) - x, torch.ones(4, 1, 1) / x,
    ),
    "constants": lambda x: (
        x + torch.arange(5.0), x * torch.arange(3.0)[:, None], x / torch.zeros(5),
        torch.arange(60.0).reshape(4, 3, 5) - x, torch.minimum(x, torch.arange(5.0) / 5),
        (torch.arange(5.0) + 1) / x,
    ),
    "masks": lambda x: (
        x.masked_fill(torch.arange(5) > 2, -1e9), torch.where(torch.arange(5) > 2, x, 0.5),
        torch.where(torch.arange(3)[:, None] > 1, 2.0, x),
        torch.where(torch.arange(5) > 2, x, x + 1),
        x.masked_fill(torch.ones(5, dtype=torch.bool), 3.0),
        x.masked_fill(torch.arange(5) < 0, 3.0),
        x[:, :1].masked_fill(torch.arange(4)[:, None, None] > 1, 0.0),
        torch.softmax(x.masked_fill(torch.arange(5) > 2, -float("inf")), -1),
        torch.softmax(x + torch.where(torch.arange(5) > 2, 0.0, -float("inf")), -1),
    ),
    "like": lambda x: (
        x + torch.zeros_like(x), x * torch.ones_like(x), x + torch.full_like(x, 2.5),
        x + x.new_zeros(x.shape[0], 1, 1, 5), x + x.new_full((5,), 3.0),
    ),
}  # fmt: skip

PAIRS: dict[str, Callable[..., Any]] = {
    "same shape": lambda x, y: (
        x + y, x - y, x * y, x / y, torch.minimum(x, y), torch.maximum(x, y), torch.max(x, y),
        torch.min(x, y), torch.add(x, y, alpha=2), torch.sub(x, y, alpha=0.5), x * x,
        torch.rsub(x, y), torch.addcmul(x, x, y, value=0.5), torch.addcdiv(x, x, y, value=2),
        torch.clamp(x, y - 1, y + 1), torch.addcmul(x, y, torch.tensor(2.0)),
    ),
    "repeated sides": lambda x, y: (
        x * y.mean((2, 3), keepdim=True), x + y.mean(1, keepdim=True), x - y[:, :1, :, :1],
        y.mean((2, 3))[:, :, None, None] * x, x * y.mean(1, keepdim=True).expand_as(x),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    """If this fails, the row of one of these operators computes something else than torch."""
    captured(Model(FUNCTIONS[name]), [MAP])


@pytest.mark.parametrize("positive", [False, True], ids=["any", "positive"])
def test_every_unary_function(positive: bool) -> None:
    """If this fails, a function of ``unary`` has no row for torch's own, or one that computes
    something else: in training code it is refused, or exported wrongly."""
    oracles = [case.oracle for case in UNARY if needs_positive(case) == positive]
    graph = captured(
        Model(lambda x: tuple(oracle(x) for oracle in oracles)), [MAP], positive=positive
    )
    assert len(graph.outputs) == len(oracles)


@pytest.mark.parametrize("name", PAIRS)
def test_of_two_values(name: str) -> None:
    """If this fails, arithmetic of two values computes something else than torch."""
    captured(Model(PAIRS[name]), [MAP, MAP])


def test_positive_numbers() -> None:
    """If this fails, a function that negative numbers have not is captured wrongly."""
    functions = lambda x, y: (  # noqa: E731
        torch.log(x), torch.sqrt(x), torch.rsqrt(x), x**0.5, x**-0.5, x**1.7, torch.pow(x, y),
    )  # fmt: skip
    captured(Model(functions), [MAP, MAP], positive=True)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (2, 3, 4, 5)], ids=str)
def test_other_ranks(shape: tuple[int, ...]) -> None:
    """If this fails, vectors, sequences or volumes cannot be computed with."""
    captured(Model(lambda x: F.gelu(x * 2 + 1) * torch.arange(5.0 + (len(shape) == 1))), [shape])


@pytest.mark.parametrize("slopes", [1, 4])
@pytest.mark.parametrize("shape", [MAP, (4,)], ids=str)
def test_prelu(slopes: int, shape: tuple[int, ...]) -> None:
    """If this fails, the slopes of a PReLU get lost."""
    module = nn.PReLU(slopes)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-0.3, 0.8, slopes))
    graph = captured(Model(lambda prelu, x: prelu(x), module), [shape])
    assert ops(graph) == ["prelu" if slopes == 4 else "unary"]


FORMS: list[tuple[Callable[..., Any], list[str]]] = [
    (lambda x: x * 2 + 1, ["affine"]),
    (lambda x: 3 - x, ["affine"]),
    (lambda x: x / (torch.arange(4.0) + 1)[:, None, None], ["affine"]),
    (lambda x: x / torch.zeros(4, 1, 1), ["constant", "binary"]),
    (lambda x: x + torch.arange(5.0), ["constant", "binary"]),
    (lambda x: x + x.abs(), ["unary", "add"]),
    (lambda x: x * x, ["unary"]),
    (lambda x: F.normalize(x), ["l2_normalize"]),
    (lambda x: F.normalize(x, dim=3, eps=0.1), ["l2_normalize"]),
    (lambda x: F.normalize(x, dim=(2, 3)), ["reduce", "unary", "binary"]),
    (lambda x: torch.clamp(x, 0, 6), ["activation"]),
    (lambda x: torch.clamp(x, 0, 1), ["unary"]),
    (lambda x: x**2, ["unary"]),
]


@pytest.mark.parametrize("position", range(len(FORMS)))
def test_the_simplest_nodes(position: int) -> None:
    """If this fails, an operation takes more nodes than it must, or ones that nothing folds."""
    function, wanted = FORMS[position]
    assert ops(captured(Model(function), [MAP])) == wanted


def test_a_scale_folds_into_the_convolution() -> None:
    """If this fails, x * scale + shift behind a convolution is computed on its own."""
    conv = nn.Conv2d(4, 6, 3)
    graph = captured(Model(lambda conv, x: (conv(x) - 0.5) / 0.25, conv), [MAP])
    assert ops(graph) == ["conv2d"]


def test_constants_keep_the_type_of_the_model() -> None:
    """If this fails, a model in float32 counts as one in float64, or the other way round."""
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(2, *MAP, dtype=dtype)
        graph = trace(Model(lambda x: x * 0.1 + torch.arange(5, dtype=x.dtype)), x)
        kinds = {array.dtype for node in graph.nodes for array in node.tensors.values()}
        assert kinds == {np.dtype(str(dtype).removeprefix("torch."))}


CHOICES: list[Callable[..., Any]] = [
    lambda x: x.masked_fill(torch.arange(5) > 2, 0.5),
    lambda x: torch.where(torch.arange(3)[:, None] > 1, 2.0, x),
    lambda x: torch.where(torch.arange(4)[:, None, None] > 1, x, torch.roll(x, 1, 3)),
    lambda x: torch.where(torch.arange(4)[:, None, None] > 1, x, 0.0),
]


@pytest.mark.parametrize("device", ["cpu", "cuda-emulated"])
@pytest.mark.parametrize("position", range(len(CHOICES)))
def test_what_is_not_chosen_leaves_no_trace(position: int, device: str) -> None:
    """If this fails, a NaN or an infinity that a mask leaves out gets through, as 0 * NaN is NaN:
    in the engine, in its reference or in the model that a graph becomes."""
    function = CHOICES[position]
    graph = captured(Model(function), [MAP])
    (x,) = images([MAP], 3)
    for image, value in enumerate((math.nan, math.inf, -math.inf)):
        x[image, torch.rand(MAP, generator=torch.Generator().manual_seed(image)) < 0.5] = value
    wanted = function(x).numpy()
    assert (np.isnan(x[0].numpy()) & np.isfinite(wanted[0])).any() and np.isnan(wanted[0]).any()
    twin = to_torch(graph, torch.float64)(x).numpy()
    np.testing.assert_array_equal(twin, wanted)
    engine = _core.Engine.load_bytes(to_bytes(graph), "file", 1, "", 0, device=device)
    given = [np.ascontiguousarray(x.numpy(), np.float32)]
    np.testing.assert_allclose(engine.run(given)[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(engine.run_reference(given)[0], wanted, rtol=1e-6)
