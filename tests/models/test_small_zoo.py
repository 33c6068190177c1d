"""What every style of network in the zoo must survive: capture, export, compact, Synaptic
Strength."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from frontends.torch.networks import randomise
from models.small_zoo import BUILDERS, NOT_YET_CAPTURED, awake, build, captured, numbers
from torch import nn

import kernelprune as kp
from kernelprune import models
from kernelprune.prune.compact import compact

X = torch.randn(3, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    # Most outputs depend on the image: where a convolution gives them, one was dropped.
    assert float(expected.std(0).median()) > 1e-4 * float(expected.abs().max())
    return float((found - expected).norm() / expected.norm())


def drop_some(model: nn.Module) -> nn.Module:
    """Half of the connections of every convolution but depthwise ones and the first, and all that
    write channel 1."""
    generator = torch.Generator().manual_seed(5)
    for conv in [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]:
        if conv.groups == 1:
            gone = torch.rand(conv.weight.shape[:2], generator=generator) < 0.5
            gone[1] = True
            conv.weight[gone] = 0
    return model


@pytest.mark.parametrize("name", BUILDERS)
@torch.no_grad()
def test_networks_see_the_image(name: str) -> None:
    """If this fails, a network of this style gives the same for any image, and a test that
    compares its outputs proves nothing."""
    found = numbers(awake(randomise(build(name)))(X))
    assert float(found.std(0).max()) > 1e-3 * float(found.abs().max())


def test_what_is_not_captured_exists() -> None:
    """If this fails, a name is misspelt, and a model that is meant to be left out is not."""
    assert {*models.names(), *BUILDERS} >= NOT_YET_CAPTURED


@pytest.mark.parametrize("name", captured(BUILDERS))
@torch.no_grad()
def test_engine_and_compact_agree_with_torch(name: str, tmp_path: Path) -> None:
    """If this fails, a network of this style runs wrong in the engine, or compact breaks it."""
    model = drop_some(awake(randomise(build(name))))
    expected = numbers(model(X))
    smaller = compact(model, X)
    assert relative(numbers(smaller.eval()(X)), expected) <= 1e-10
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    kp.export(model.float(), X.float(), tmp_path / "model.safetensors")
    found = numbers(kp.Engine(tmp_path / "model.safetensors").run(X.float()))
    rounded = numbers(model.double()(X.float().double()))  # weights, images as the file has them
    assert relative(found.double(), rounded) <= 1e-5


# Style, batch norms whose scale moves into strengths, prunable convolutions.
STRENGTHS = [
    ("vgg", 3, 3),
    ("resnet", 3, 7),
    ("bottleneck", 5, 8),
    ("densenet", 8, 8),  # all: each batch norm is read by one convolution or by the classifier
    ("mobilenet_v1", 3, 3),  # depthwise convolutions are left out
    ("mobilenet_v2", 2, 8),  # ReLU6 takes no factor: the linear ones remain
    ("inception", 9, 12),  # the four of the last module go to the classifier
]


@pytest.mark.parametrize(("name", "norms", "convolutions"), STRENGTHS, ids=lambda v: str(v))
@torch.no_grad()
def test_strengths_keep_the_function(name: str, norms: int, convolutions: int) -> None:
    """If this fails, Synaptic Strength changes a network of this style before it prunes."""
    model = randomise(build(name))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight[::3] *= -1
    expected = model(X)
    pruner = kp.SynapticStrength(model, X)
    assert relative(model(X), expected) <= 1e-10
    moved = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and _is_frozen(m)]
    assert (len(moved), len(pruner.strengths())) == (norms, convolutions)
    assert relative(pruner.finalize()(X), expected) <= 1e-10


def _is_frozen(norm: nn.BatchNorm2d) -> bool:
    return not norm.weight.requires_grad
