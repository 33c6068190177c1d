"""In-place operators: captured is what torch would compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import kernelprune as kp
from kernelprune.frontends.torch import program, pure


class Run(nn.Module):
    def __init__(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def residual_is_overwritten(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    return F.relu_(y) * 2 + y  # y is what relu_ left


def read_before(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    before = y.abs()
    y.relu_()
    return y + before


def chain(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = m.norm(m.conv(x))
    return F.hardswish(F.relu6(y, inplace=True), inplace=True).add_(y)


def view_sees_it(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    view = y.flatten(2)
    y.relu_()
    return view.sum(-1) + y.mean((2, 3))


def of_a_view(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    y[:, :2].relu_()
    return y


def into_reshape(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    z = y.reshape(y.shape[0], 2, 2, y.shape[2], y.shape[3])
    z.neg_()
    return y


def dropped(m: Run, x: torch.Tensor) -> torch.Tensor:
    y = F.dropout(m.conv(x), 0.3, m.training)
    return F.relu_(y) + y


PLAIN = {residual_is_overwritten, read_before, chain, dropped}
CASES = [*PLAIN, view_sees_it, of_a_view, into_reshape]


@pytest.mark.parametrize("function", sorted(set(CASES) - {of_a_view}, key=lambda f: f.__name__))
def test_computes_what_torch_does(function, tmp_path) -> None:
    """If this fails, an operator that overwrites its input is taken for one that does not, and a
    file computes something else than the model."""
    torch.manual_seed(0)
    model = Run(function).eval()
    x = torch.randn(2, 3, 5, 6)
    path = tmp_path / "model.safetensors"
    kp.export(model, x[:1], path)
    with torch.no_grad():
        want = model(x.clone())
    torch.testing.assert_close(torch.from_numpy(kp.Engine(path).run(x.numpy())), want)


@pytest.mark.parametrize("function", sorted(CASES, key=lambda f: f.__name__))
def test_knows_what_it_may_replace(function) -> None:
    """If this fails, plain models are traced twice, or memory that is shared is overlooked."""
    exported = program._export(Run(function).eval(), (torch.randn(2, 3, 5, 6),))
    before = str(exported.graph)
    assert pure.make_pure(exported) == (function in PLAIN)
    if function not in PLAIN:
        assert str(exported.graph) == before
