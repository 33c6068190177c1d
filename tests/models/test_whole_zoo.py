"""Every model of the zoo under its own name: what pruning does to it without changing it."""

from __future__ import annotations

import pytest
import torch
from models.small_zoo import awake, captured, deep_ones_extensive, numbers, small_options
from prune.networks import zoo
from torch import nn

import kernelprune as kp
from kernelprune import models
from kernelprune.prune import recalibrate


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert float(expected.std(0).max()) > 1e-6 * float(expected.abs().max())  # sees the image
    return float((found - expected).norm() / expected.norm())


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", deep_ones_extensive(captured(models.names())))
@torch.no_grad()
def test_function_is_kept(name: str) -> None:
    """If this fails, Synaptic Strength, `finalize` or `compact` changes what a model computes."""
    torch.set_num_threads(1)
    model = awake(zoo(name, num_classes=5, width=0.25, **small_options(name)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.abs_().add_(0.3)
            module.weight[::3] *= -1
    x = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    recalibrate(model, [x])  # with any other statistics deep networks lose the image
    expected = numbers(model(x))
    # A depthwise convolution has one connection per channel: few of those lose the image too.
    depthwise = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    pruner = kp.SynapticStrength(model, x[:1], ignore=depthwise)
    assert relative(numbers(model(x)), expected) <= 1e-10
    # Without batch norms the layers are on no common scale, and whole ones would go.
    normed = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    pruner.prune(density=0.2, scope=None if normed else "layer")
    pruned = numbers(model(x))
    assert float((pruned - expected).norm()) > 1e-3 * float(expected.norm())
    plain = pruner.finalize()
    assert relative(numbers(plain(x)), pruned) <= 1e-10
    smaller = kp.compact(plain, x[:1])
    assert relative(numbers(smaller.eval()(x)), pruned) <= 1e-10
    assert parameters(smaller) < parameters(plain)
