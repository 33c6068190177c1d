"""Depthwise and grouped layers: counted by their groups, left alone unless they are named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import kernelprune as kp
from kernelprune import models

DEPTHWISE = 17  # layers of a MobileNetV2, with 1,784 connections at a width of 0.25


def mobilenet() -> nn.Module:
    torch.manual_seed(1)
    options = {"num_classes": 10, "in_channels": 3, "stem": "imagenet", "width": 0.25}
    return models.create("mobilenet_v2", **options).eval()


def depthwise(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }


@pytest.fixture(scope="module")
def pruned() -> tuple[nn.Module, kp.prune.Plan]:
    model = mobilenet()
    return model, kp.prune_connections(model, density=0.5, x=torch.zeros(1, 3, 64, 64))


def test_a_mobilenet_is_counted_as_what_it_is(pruned: tuple[nn.Module, kp.prune.Plan]) -> None:
    """If this fails, a plan counts connections that depthwise layers cannot have, and an unpruned
    MobileNetV2 looks pruned."""
    _, plan = pruned
    assert (plan.connections, plan.macs) == (137_800, 2_014_208)
    rows = [row for row in plan.rows if row.in_channels == row.out_channels == row.connections]
    assert len(rows) == DEPTHWISE and sum(row.connections for row in rows) == 1_784
    assert all(row.macs == 9 * row.connections * row.map_size[0] * row.map_size[1] for row in rows)


def test_depthwise_layers_are_left_alone(pruned: tuple[nn.Module, kp.prune.Plan]) -> None:
    """If this fails, pruning cuts channels off at their only connection, or a density counts layers
    that it leaves alone."""
    model, plan = pruned
    for name, layer in depthwise(model).items():
        assert layer.weight.flatten(2).ne(0).any(2).all(), name
    kept = {row.name: row for row in plan.rows if not row.prunable}
    assert set(depthwise(model)) <= set(kept)
    assert all(row.kept == row.connections for row in kept.values())
    # Beside those of depthwise layers: the first convolution's and the classifier's.
    assert plan.connections - plan.prunable_connections == 1_784 + 3 * 8 + 320 * 10
    assert plan.prunable_kept == (plan.prunable_connections + 1) // 2


def test_a_named_depthwise_layer_is_pruned() -> None:
    """If this fails, nobody can prune a depthwise layer even on purpose."""
    model = mobilenet()
    name = next(iter(depthwise(model)))
    plan = kp.prune_connections(model, density=0.5, scope="layer", include=name)
    row = next(row for row in plan.rows if row.name == name)
    assert row.prunable and row.kept == row.connections // 2
    assert sum(row.prunable for row in plan.rows if row.name in depthwise(model)) == 1


class ResNeXtBlock(nn.Module):
    """A bottleneck of 4 groups of 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 1)
        self.reduce = nn.Conv2d(32, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.expand = nn.Conv2d(16, 32, 1)
        self.classifier = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = torch.relu(self.grouped(torch.relu(self.reduce(x))))
        return self.classifier(torch.relu(self.expand(y) + x).mean((2, 3)))


def test_grouped_layers_are_pruned_within_their_groups() -> None:
    """If this fails, a ResNeXt's density and multiply-adds are against connections that it never
    had."""
    torch.manual_seed(1)
    plan = kp.SynapticStrength(ResNeXtBlock(), torch.randn(2, 3, 6, 6)).plan(density=0.25)
    rows = {row.name: row for row in plan.rows}
    assert {name: row.connections for name, row in rows.items()} == {
        "stem": 96, "reduce": 512, "grouped": 64, "expand": 512, "classifier": 160,
    }  # fmt: skip
    assert rows["grouped"].prunable and rows["grouped"].macs == 36 * 9 * 64
    assert plan.masks["grouped"].shape == (16, 4)
    assert (plan.prunable_connections, plan.prunable_kept) == (1088, 272)
    assert plan.macs == 36 * (96 + 512 + 9 * 64 + 512) + 160
