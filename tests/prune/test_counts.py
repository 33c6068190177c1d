"""Connections, parameters and multiply-adds against figures worked out by hand."""

from __future__ import annotations

import torch
from prune.networks import Chain

from kernelprune import models
from kernelprune.frontends.torch import capture
from kernelprune.prune import SynapticStrength, count, prune_connections

X = torch.randn(1, 3, 8, 8)


def test_dense_and_pruned_counts():
    """Reported savings that are not those of the model."""
    torch.manual_seed(0)
    model = Chain(groups=2)
    dense = count(model, X)
    connections = 18 + 6 * 3 + 48 + 160
    macs = 18 * 9 * 64 + 18 * 9 * 16 + 48 * 4 + 160
    parameters = 18 * 9 + (18 * 9 + 6) + 48 + (160 + 5) + 2 * (6 + 6 + 8)
    assert (dense.connections, dense.connections_kept) == (connections, connections)
    assert (dense.macs, dense.macs_kept) == (macs, macs)
    assert (dense.parameters, dense.parameters_kept) == (parameters, parameters)
    assert dense.parameters == sum(p.numel() for p in model.parameters())
    plan = prune_connections(model, density=0.4, x=X)
    after = count(model, X)
    gone = {row.name: row.connections - row.kept for row in plan.rows}
    exported = capture(model, X)  # without channels that nobody reads
    assert (after.connections, after.macs, after.parameters) == (connections, macs, parameters)
    assert after.connections_kept == plan.exported == exported.kept_connections() < plan.kept
    assert after.macs_kept == plan.macs_kept == exported.macs()
    assert after.parameters_kept == parameters - gone["conv2"] * 9 - gone["conv3"]
    assert after.density == plan.exported / connections


def test_counts_in_the_middle_of_training():
    """The parameters that Synaptic Strength adds are counted as the model's."""
    torch.manual_seed(0)
    model = Chain()
    dense = count(model, X)
    pruner = SynapticStrength(model, X)
    assert count(model, X) == dense
    plan = pruner.prune(density=0.25)
    during = count(model, X)
    assert during.connections_kept == plan.exported and during.macs_kept == plan.macs_kept
    pruner.finalize()
    assert count(model, X) == during


def test_resnet18_multiply_adds():
    """A well known figure: 1.81 G multiply-adds of ResNet-18 at 224x224."""
    model = models.create("resnet18", num_classes=1000)
    assert round(count(model, torch.zeros(1, 3, 224, 224)).macs / 1e9, 2) == 1.81
