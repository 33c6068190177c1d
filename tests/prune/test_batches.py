"""Batch norm recalibration."""

from __future__ import annotations

import pytest
import torch
from prune.networks import Chain
from torch import nn

from kernelprune.errors import Error
from kernelprune.prune import recalibrate


def test_statistics_are_the_plain_mean_over_the_batches():
    """Running averages weight the last batches, or dropout and modes leak in."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), Chain())
    model.train()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    data = torch.randn(12, 3, 8, 8) * 3 + 1
    loader = [(part, None) for part in data.split(4)]
    net = model[1]
    net.bn1.momentum = 0.3
    maps = net.conv1(data)
    means = torch.stack([part.mean((0, 2, 3)) for part in maps.split(4)]).mean(0)
    variances = torch.stack([p.var((0, 2, 3), unbiased=True) for p in maps.split(4)]).mean(0)
    assert recalibrate(model, loader) is model
    assert torch.allclose(net.bn1.running_mean, means, atol=1e-5)
    assert torch.allclose(net.bn1.running_var, variances, rtol=1e-4)
    assert net.bn1.momentum == 0.3 and all(module.training for module in model.modules())
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


def test_number_of_batches():
    """batches= reads more of the loader than asked (it may be endless)."""
    model = Chain().eval()
    first = torch.randn(4, 3, 8, 8)

    def endless():
        yield first
        raise AssertionError("read on")

    recalibrate(model, endless(), batches=1)
    expected = model.conv1(first).mean((0, 2, 3))
    assert torch.allclose(model.bn1.running_mean, expected, atol=1e-5)
    assert not any(module.training for module in model.modules())


def test_loaders_without_use():
    """An empty loader leaves statistics of 0 and 1 behind."""
    model = Chain()
    model.bn1.running_mean.fill_(3)
    with pytest.raises(Error, match="gave no batch"):
        recalibrate(model, [])
    assert model.bn1.running_mean.eq(3).all()
    with pytest.raises(Error, match="gives str"):
        recalibrate(model, ["images"])
    with pytest.raises(Error, match="batches=0"):
        recalibrate(model, [torch.randn(4, 3, 8, 8)], batches=0)
