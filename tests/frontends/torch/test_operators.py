"""Every row of the capture table against torch in float64, and every refusal."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as f

from kernelprune import UnsupportedOperator
from kernelprune.frontends.torch import to_torch, trace
from kernelprune.graph.passes import run_all


class Apply(nn.Module):
    """A model that is one function of x and of some parameters."""

    def __init__(self, function) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.function = function
        self.k = nn.Parameter(torch.randn(4, 4, 3, 2, generator=generator, dtype=torch.float64))
        self.m = nn.Parameter(torch.randn(5, 4, generator=generator, dtype=torch.float64))
        self.v = nn.Parameter(torch.rand(4, generator=generator, dtype=torch.float64) + 0.5)
        self.b = nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return self.function(self, x)


def batch_norm(p, x, weight=True):
    scale = p.v if weight else None
    return f.batch_norm(x, p.v * 2, p.v, scale, p.m[0] if weight else None, False, 0.1, 1e-3)


def vector(x):
    return x.mean((2, 3))


# name, function of (parameters, x [N,4,9,8]), ops that the trace must hold
CASES = [
    ("conv2d", lambda p, x: f.conv2d(x, p.k, p.v, (2, 1), (1, 0)), "conv2d"),
    ("conv2d dilated", lambda p, x: f.conv2d(x, p.k, None, 1, (2, 1), (2, 3)), "conv2d"),
    ("conv2d same", lambda p, x: f.conv2d(x, p.k, p.v, 1, "same"), "conv2d"),
    ("conv2d same dilated", lambda p, x: f.conv2d(x, p.k, p.v, 1, "same", 3), "conv2d"),
    ("conv2d valid", lambda p, x: f.conv2d(x, p.k, p.v, 2, "valid"), "conv2d"),
    ("conv2d groups", lambda p, x: f.conv2d(x, p.k[:, :2], p.v, groups=2), "conv2d"),
    ("conv2d depthwise", lambda p, x: f.conv2d(x, p.k[:, :1], groups=4), "conv2d"),
    ("conv2d multiplier", lambda p, x: f.conv2d(x, p.k.reshape(16, 1, 3, 2), groups=4), "conv2d"),
    (
        "convolution",
        lambda p, x: torch.convolution(x, p.k, p.v, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
        "conv2d",
    ),
    ("linear", lambda p, x: f.linear(vector(x), p.m, p.b), "global_avg_pool flatten linear"),
    ("linear no bias", lambda p, x: f.linear(vector(x), p.m), "global_avg_pool flatten linear"),
    (
        "addmm",
        lambda p, x: torch.addmm(p.b, vector(x), p.m.t()),
        "global_avg_pool flatten linear",
    ),
    ("matmul", lambda p, x: vector(x) @ p.m.t(), "global_avg_pool flatten linear"),
    ("batch_norm", batch_norm, "batch_norm"),
    ("batch_norm plain", lambda p, x: batch_norm(p, x, False), "batch_norm"),
    ("batch_norm 1d", lambda p, x: batch_norm(p, vector(x)), "global_avg_pool flatten batch_norm"),
    ("relu", lambda p, x: x.relu(), "activation"),
    ("relu_", lambda p, x: (x + x).relu_(), "add activation"),
    ("relu6", lambda p, x: f.relu6(x), "activation"),
    ("hardtanh", lambda p, x: f.hardtanh(x, 0.0, 6.0), "activation"),
    ("hardtanh_", lambda p, x: f.hardtanh_(x + x, 0, 6), "add activation"),
    ("clamp", lambda p, x: x.clamp(0, 6), "activation"),
    ("clamp min", lambda p, x: x.clamp(min=0), "activation"),
    ("clamp_min", lambda p, x: torch.clamp_min(x, 0), "activation"),
    ("max_pool2d", lambda p, x: f.max_pool2d(x, 2), "max_pool2d"),
    ("max_pool2d padded", lambda p, x: f.max_pool2d(x, 3, 2, 1), "max_pool2d"),
    ("max_pool2d ceil", lambda p, x: f.max_pool2d(x, (3, 2), 3, 1, 1, True), "max_pool2d"),
    ("max_pool2d dilated", lambda p, x: f.max_pool2d(x, 3, 2, 1, 2), "max_pool2d"),
    (
        "max_pool2d indices",
        lambda p, x: f.max_pool2d(x, 2, return_indices=True)[0],
        "max_pool2d",
    ),
    ("avg_pool2d", lambda p, x: f.avg_pool2d(x, (3, 2), 2), "avg_pool2d"),
    ("avg_pool2d padded", lambda p, x: f.avg_pool2d(x, 3, 2, 1), "avg_pool2d"),
    ("avg_pool2d inside", lambda p, x: f.avg_pool2d(x, 3, 2, 1, False, False), "avg_pool2d"),
    ("avg_pool2d ceil", lambda p, x: f.avg_pool2d(x, 2, 3, 0, True), "avg_pool2d"),
    (
        "avg_pool2d ceil inside",
        lambda p, x: f.avg_pool2d(x, 3, 4, 1, True, False),
        "avg_pool2d",
    ),
    ("avg_pool2d divisor", lambda p, x: f.avg_pool2d(x, 2, divisor_override=4), "avg_pool2d"),
    ("avg_pool2d ceil counted", lambda p, x: f.avg_pool2d(x, 3, 4, 1, True), "avg_pool2d"),
    (
        "avg_pool2d any divisor",
        lambda p, x: f.avg_pool2d(x, 3, 2, 1, divisor_override=7),
        "avg_pool2d",
    ),
    ("adaptive same", lambda p, x: f.adaptive_avg_pool2d(x, (9, 8)).relu(), "activation"),
    ("adaptive one", lambda p, x: f.adaptive_avg_pool2d(x, 1), "global_avg_pool"),
    ("adaptive divisible", lambda p, x: f.adaptive_avg_pool2d(x, (3, 4)), "avg_pool2d"),
    ("adaptive max", lambda p, x: f.adaptive_max_pool2d(x, (3, 4)), "max_pool2d"),
    ("mean keep", lambda p, x: x.mean((-1, 2), keepdim=True), "global_avg_pool"),
    ("mean", lambda p, x: x.mean((2, 3)), "global_avg_pool flatten"),
    ("add", lambda p, x: x + x.relu(), "activation add"),
    ("add_", lambda p, x: x.relu().add_(x), "activation add"),
    ("cat", lambda p, x: torch.cat([x, x.relu(), x], 1), "activation concat"),
    ("cat vectors", lambda p, x: torch.cat([vector(x)] * 2, -1), "global_avg_pool flatten concat"),
    ("cat height", lambda p, x: torch.cat([x, x.relu()], 2), "activation concat"),
    ("cat one", lambda p, x: torch.cat([x], 1).relu(), "activation"),
    ("flatten", lambda p, x: torch.flatten(x, 1), "flatten"),
    ("view", lambda p, x: x.view(x.size(0), -1), "flatten"),
    ("view sizes", lambda p, x: x.view(-1, x.size(1) * 72), "flatten"),
    ("reshape", lambda p, x: x.reshape(x.shape[0], 288), "flatten"),
    ("view same", lambda p, x: x.view(x.shape).relu(), "activation"),
    ("squeeze", lambda p, x: x.mean((2, 3), True).squeeze((2, 3)), "global_avg_pool flatten"),
    ("dropout", lambda p, x: f.dropout(f.dropout2d(x, 0.5, False), 0.5, False), ""),
    ("softmax", lambda p, x: x.softmax(1), "softmax"),
    ("softmax rows", lambda p, x: x.softmax(3), "softmax"),
    ("softmax last", lambda p, x: vector(x).softmax(-1), "global_avg_pool flatten softmax"),
    (
        "identities",
        lambda p, x: x.clone().detach().contiguous().to(torch.float64).relu(),
        "activation",
    ),
    ("constant expression", lambda p, x: f.conv2d(x, p.k * (p.k > 0).double() / 2), "conv2d"),
]


def images(**options) -> torch.Tensor:
    return 3 * torch.randn(3, 4, 9, 8, dtype=torch.float64, **options)


@pytest.mark.parametrize(("name", "function", "ops"), CASES, ids=[case[0] for case in CASES])
def test_operator(name: str, function, ops: str) -> None:
    """If this fails, a model that uses this operator computes something else after capture."""
    x = images(generator=torch.Generator().manual_seed(1))
    model = Apply(function).eval()
    graph = trace(model, x[:1].clone())
    assert [node.op for node in graph.nodes] == ops.split()
    with torch.no_grad():
        expected = model(x.clone())
        for found in (
            to_torch(graph, torch.float64)(x.clone()),
            to_torch(run_all(graph.copy()), torch.float64)(x.clone()),
        ):
            assert found.shape == expected.shape
            assert (found - expected).norm() <= 1e-13 * expected.norm()


REFUSED = [
    ("cat batch", lambda p, x: torch.cat([x, x], 0).reshape(-1, 576), "aten::"),
    ("softmax batch", lambda p, x: x.softmax(0), "aten::softmax.*axis"),
    ("divisor 0", lambda p, x: f.avg_pool2d(x, 2, divisor_override=-1), "divisor_override"),
    ("cumulative sum", lambda p, x: x.cumsum(1), "aten::cumsum"),
    ("batch in view", lambda p, x: x.view(1, -1), "batch as the first axis"),
    ("batch statistics", lambda p, x: f.batch_norm(x, None, None, training=True), "batch norm"),
    ("wide kernel", lambda p, x: f.max_pool2d(f.pad(x, (99, 99)), (1, 99)), "at most 64"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "message"), REFUSED, ids=[r[0] for r in REFUSED])
def test_refused(name: str, function, message: str) -> None:
    """If this fails, a model is captured wrongly, or the message does not say which operator."""
    with pytest.raises(UnsupportedOperator, match=message) as caught:
        trace(Apply(function).eval(), images())
    assert "test_operators.py:" in str(caught.value)
    assert "\n" not in str(caught.value)
