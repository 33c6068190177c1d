"""Channels go first (DCP), then connections of what is left (Synaptic Strength), into one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from models.small_zoo import build
from prune.networks import lived_in
from torch import nn

import kernelprune as kp
from kernelprune.format import read


@pytest.mark.parametrize(
    "style",
    # What a vgg has is in the branches of a resnet.
    [pytest.param("vgg", marks=pytest.mark.extensive), "resnet", "mobilenet_v1"],
)
def test_channels_then_connections(style: str, tmp_path: Path) -> None:
    """If this fails, the second pruning undoes the first, or the file is of only one of them."""
    model = lived_in(build(style))
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = sum(p.numel() for p in model.parameters())

    dcp = kp.DiscriminationAware(model, x, [(x, torch.arange(4) % 5)], channels_per_step=4)
    dcp.prune(ratio=0.5)
    smaller = kp.compact(dcp.finalize(), x)
    between = sum(p.numel() for p in smaller.parameters())
    assert between < before

    strength = kp.SynapticStrength(smaller, x)
    plan = strength.prune(density=0.3)
    pruned = strength.finalize().eval()
    assert plan.prunable_density == pytest.approx(0.3, abs=0.05)
    kp.export(pruned, x[:1], tmp_path / "both.safetensors")

    graph, _ = read(tmp_path / "both.safetensors")
    written = [node for node in graph.nodes if node.op == "conv2d"]
    convolutions = [m for m in pruned.modules() if isinstance(m, nn.Conv2d)]
    kept = sum(int(m.weight.detach().flatten(2).ne(0).any(2).sum()) for m in convolutions)
    assert 0 < sum(node.kept_connections() for node in written) <= kept
    got = kp.Engine(tmp_path / "both.safetensors").run(x.float().numpy())
    with torch.no_grad():
        wanted = pruned(x).numpy()
    assert isinstance(got, np.ndarray)
    assert np.linalg.norm(got - wanted) <= 1e-5 * np.linalg.norm(wanted)
