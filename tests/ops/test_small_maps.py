"""The operator and its gradients with kernels of 1x1 to 9x9 on maps of 1x1 to 9x9."""

from __future__ import annotations

import pytest
import torch
from ops.layers import pruned, whole
from runtime.test_small_maps import Geometry, geometries
from torch.nn import functional

from kernelprune import _core
from kernelprune.ops import SparseConv2d

pytestmark = pytest.mark.usefixtures("one_thread")


def gradients(y: torch.Tensor, *parts: torch.Tensor) -> list[torch.Tensor]:
    grad = whole(*y.shape, seed=3).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, parts, grad)]


def by_torch(conv: torch.nn.Conv2d, x: torch.Tensor, g: Geometry) -> list[torch.Tensor]:
    """Output and gradients for input, kept connections and bias, dense and in float64."""
    top, left, bottom, right = g.padding
    x, conv = x.double().requires_grad_(), conv.double()
    padded = functional.pad(x, [left, right, top, bottom])
    y = functional.conv2d(padded, conv.weight, conv.bias, g.stride, 0, g.dilation)
    found = gradients(y, x, conv.weight, conv.bias)
    found[2] = found[2][conv.weight.detach().flatten(2).ne(0).any(2)]
    return found


@pytest.mark.parametrize("isa", _core.available_isas())
def test_output_and_gradients(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a layer on small maps computes or learns something else than torch's. Whole
    numbers leave no rounding."""
    monkeypatch.setenv("KERNELPRUNE_ISA", isa)
    for i, g in enumerate(geometries(150, seed=17)):
        conv = pruned((0.2, 0.2, 1.0)[i % 3], seed=i, kernel_size=g.kernel)
        layer = SparseConv2d.from_dense(conv)
        x = whole((1, 1, 19)[i // 3 % 3], 12, *g.size, seed=i).requires_grad_()
        y = torch.ops.kernelprune.conv2d(
            x, layer.weight, layer.row_ptr, layer.col, layer.bias, 12, g.stride, g.padding,
            g.dilation,
        )  # fmt: skip
        found = gradients(y, x, layer.weight, layer.bias)
        for want, have in zip(by_torch(conv, x.detach(), g), found, strict=True):
            assert torch.equal(want, have.double()), g
