"""Baselines: which connections go, and that they stay gone if asked."""

from __future__ import annotations

import pytest
import torch
from prune.networks import Chain, lived_in, train, two_blocks
from torch import nn

from kernelprune.errors import Error
from kernelprune.prune import CRITERIA, finalize_masks, masks_of, prune_connections

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(4) % 5


def chain() -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain())


@pytest.mark.parametrize("criterion, order", [("l1", 1), ("l2", 2)])
def test_norms_keep_the_largest_kernels(criterion, order):
    """A criterion that ranks by something else than its name says."""
    model = chain()
    norms = {n: model.get_submodule(n).weight.detach().flatten(2) for n in ("conv2", "conv3")}
    norms = {name: torch.linalg.vector_norm(v, order, dim=2) for name, v in norms.items()}
    before = {name: model.get_submodule(name).weight.detach().clone() for name in norms}
    plan = prune_connections(model, density=0.5, criterion=criterion)
    threshold = torch.cat([norm.flatten() for norm in norms.values()]).sort().values[-42]
    for name, norm in norms.items():
        assert torch.equal(plan.masks[name], norm >= threshold)
        weight = model.get_submodule(name).weight
        assert isinstance(weight, nn.Parameter) and isinstance(model.conv2, nn.Conv2d)
        assert torch.equal(weight[plan.masks[name]], before[name][plan.masks[name]])
        assert not weight[~plan.masks[name]].any()


def test_random_depends_on_the_seed_alone():
    """Random pruning that cannot be repeated, depends on the weights, or repeats by layer."""
    torch.manual_seed(1)
    first = prune_connections(chain(), density=0.5, criterion="random", seed=3).masks
    torch.manual_seed(2)
    drawn = torch.rand(())
    other_weights = Chain()
    same = prune_connections(other_weights, density=0.5, criterion="random", seed=3).masks
    alone = prune_connections(
        chain(), density=0.5, criterion="random", seed=3, ignore="conv3", scope="layer"
    ).masks
    torch.manual_seed(2)
    assert torch.equal(drawn, torch.rand(()))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert set(alone) == {"conv2"} and int(alone["conv2"].sum()) == 18
    twins = prune_connections(two_blocks(), density=0.5, criterion="random", scope="layer").masks
    assert not torch.equal(twins["layer1.0.conv1"], twins["layer1.0.conv2"])
    other = prune_connections(chain(), density=0.5, criterion="random", seed=4).masks
    assert not torch.equal(first["conv2"], other["conv2"])


def test_hold_keeps_zeros_through_training():
    """hold=True does not hold, or a second round revives what the first dropped."""
    model = chain()
    first = prune_connections(model, density=0.5, hold=True, x=X)
    train(model, model.parameters(), X, LABELS, 3)
    second = prune_connections(model, density=0.25, hold=True, x=X)
    assert second.prunable_kept == 21
    for name, mask in second.masks.items():
        assert not (mask & ~first.masks[name]).any()
    train(model, model.parameters(), X, LABELS, 3)
    assert all(torch.equal(m, second.masks[name]) for name, m in masks_of(model).items())
    finalize_masks(model)
    for name, mask in second.masks.items():
        assert torch.equal(model.get_submodule(name).weight.ne(0).flatten(2).any(2), mask)


def test_a_new_criterion_is_one_row(monkeypatch):
    """A criterion cannot be added without touching the code."""
    monkeypatch.setitem(CRITERIA, "largest", lambda layer: layer.weight.abs().amax((2, 3)))
    model = chain()
    largest = model.conv2.weight.detach().abs().amax((2, 3))
    plan = prune_connections(model, density=0.5, criterion="largest", ignore="conv3")
    assert largest[plan.masks["conv2"]].min() > largest[~plan.masks["conv2"]].max()


def test_unknown_criterion():
    """A typing error prunes by something else."""
    with pytest.raises(Error, match="criterion 'l3': must be one of l1, l2, random"):
        prune_connections(chain(), density=0.5, criterion="l3")
