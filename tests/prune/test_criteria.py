"""Baselines: which connections go, and that they stay gone if asked."""

from __future__ import annotations

import pytest
import torch
from prune.networks import Chain, lived_in, train, two_blocks
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.prune import (
    CRITERIA,
    finalize_masks,
    masks_of,
    prune_channels,
    prune_connections,
    scale_penalty,
)
from kernelprune.prune.channels import input_scales
from kernelprune.prune.compact import compact
from kernelprune.prune.layers import find_layers

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(4) % 5
LOADER = [(X[:3], LABELS[:3]), (X[3:], LABELS[3:])]


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
    plan = prune_connections(model, density=0.5, criterion=criterion, scope="global")
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
    plan = prune_connections(
        model, density=0.5, criterion="largest", scope="global", ignore="conv3"
    )
    assert largest[plan.masks["conv2"]].min() > largest[~plan.masks["conv2"]].max()


def test_unknown_criterion():
    """A typing error prunes by something else."""
    with pytest.raises(Error, match="criterion 'l3': must be one of l1, l2, random, taylor"):
        prune_connections(chain(), density=0.5, criterion="l3")


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    twin = chain()
    nn.functional.cross_entropy(twin(X), LABELS).backward()
    return {name: twin.get_submodule(name).weight.grad for name in ("conv2", "conv3")}


def test_gradient_criteria() -> None:
    """If this fails, Taylor scores or gradient norms are of another loss."""
    model = chain().train()
    weights = {
        name: model.get_submodule(name).weight.detach().clone() for name in ("conv2", "conv3")
    }
    model.conv2.weight.requires_grad_(False)
    expected = {
        "taylor": {n: (g * weights[n]).abs().sum((2, 3)) for n, g in gradients(model).items()},
        "gradient": {n: g.flatten(2).norm(dim=2) for n, g in gradients(model).items()},
    }
    for criterion, scores in expected.items():
        again = chain().train()
        again.conv2.weight.requires_grad_(False)
        plan = prune_connections(
            again, density=0.5, criterion=criterion, scope="global", loader=LOADER
        )
        threshold = torch.cat([score.flatten() for score in scores.values()]).sort().values[-42]
        for name, score in scores.items():
            assert torch.equal(plan.masks[name], score >= threshold), criterion
        assert again.training and not again.conv2.weight.requires_grad
        assert all(p.grad is None for p in again.parameters())
    with pytest.raises(Error, match="say loader="):
        prune_connections(chain(), density=0.5, criterion="taylor")


@pytest.mark.parametrize("criterion", ["l1", "taylor", "slimming", "random"])
def test_channels(criterion: str) -> None:
    """If this fails, other channels go than the criterion says, or some connections of one stay."""
    model = chain()
    scores = {
        "l1": {n: model.get_submodule(n).weight.detach().abs().sum((0, 2, 3)) for n in NAMES},
        "taylor": {
            n: (g * model.get_submodule(n).weight.detach()).abs().sum((0, 2, 3))
            for n, g in gradients(model).items()
        },
        "slimming": {"conv2": model.bn1.weight.abs(), "conv3": model.bn2.weight.abs()},
    }
    options = {"ratio": 0.3, "criterion": criterion, "loader": LOADER, "scope": "global"}
    plan = prune_channels(model, X, **options)
    kept = {name: mask[0] for name, mask in plan.masks.items()}
    for name, mask in plan.masks.items():
        assert torch.equal(mask, kept[name].expand_as(mask))
        assert not model.get_submodule(name).weight[:, ~kept[name]].any()
    assert sum(int(mask.sum()) for mask in kept.values()) == 8
    if criterion in scores:
        threshold = torch.cat([scores[criterion][n].detach() for n in NAMES]).sort().values[-8]
        for name in NAMES:
            assert torch.equal(kept[name], scores[criterion][name] >= threshold)
    smaller = compact(model, X)
    assert smaller.conv2.in_channels == int(kept["conv2"].sum())
    assert smaller.conv1.out_channels == smaller.conv2.in_channels


NAMES = ("conv2", "conv3")


def test_channels_within_a_budget() -> None:
    """If this fails, a budget counts a channel as one connection, or held channels come back."""
    model = chain()
    first = prune_channels(model, X, ratio=0.3, hold=True)
    plan = prune_channels(model, X, macs=0.72, scope="global", hold=True)
    assert plan.macs_density <= 0.72
    assert not any((plan.masks[name] & ~first.masks[name]).any() for name in NAMES)
    train(model, model.parameters(), X, LABELS, 2)
    finalize_masks(model)
    for name, mask in plan.masks.items():
        assert torch.equal(model.get_submodule(name).weight.ne(0).flatten(2).any(2), mask)


def test_reconstruction() -> None:
    """If this fails, the ThiNet-like choice needs classifiers, or forgets to compensate."""
    before = chain()
    model = chain()
    plan = prune_channels(
        model, X, ratio=0.5, criterion="reconstruction", loader=LOADER, select_epochs=2
    )
    assert [int(plan.masks[name][0].sum()) for name in NAMES] == [3, 3]
    kept = plan.masks["conv2"]
    assert not torch.equal(model.conv2.weight[kept], before.conv2.weight[kept])
    assert isinstance(model.conv2.weight, nn.Parameter)
    for wrong in ({"macs": 0.5}, {"scope": "global"}, {"ratio": None}, {"loader": None}):
        options = {"ratio": 0.5, "loader": LOADER, "criterion": "reconstruction", **wrong}
        with pytest.raises(Error, match="needs loader= and ratio="):
            prune_channels(chain(), X, **options)
    with pytest.raises(Error, match="has no option 'select_epochs'"):
        prune_channels(chain(), X, ratio=0.5, select_epochs=2)


def test_penalty_of_scales() -> None:
    """If this fails, training before slimming does not press the scales, or presses shifts too."""
    model = chain()
    penalty = scale_penalty(model, 0.5)
    norms = (model.bn1, model.bn2, model.bn3)
    assert float(penalty().detach()) == pytest.approx(
        0.5 * sum(float(norm.weight.detach().abs().sum()) for norm in norms)
    )
    penalty().backward()
    assert torch.equal(model.bn2.weight.grad, 0.5 * model.bn2.weight.sign())
    assert model.bn2.bias.grad is None and model.conv2.weight.grad is None
    with pytest.raises(Error, match="no batch norm"):
        scale_penalty(nn.Conv2d(3, 3, 3), 0.5)


class Joined(nn.Module):
    """A convolution that reads two batch norms through a concatenation; one that reads a sum."""

    def __init__(self):
        super().__init__()
        self.a, self.bn_a = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        self.b, self.bn_b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.c, self.bn_c, self.d = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = torch.cat([self.bn_a(self.a(x)).relu(), self.bn_b(self.b(x)).relu()], 1)
        x = nn.functional.max_pool2d(x, 2)
        return self.fc(self.d(self.bn_c(self.c(x)) + x).mean((2, 3)))


def test_scales_of_the_batch_norm_before() -> None:
    """If this fails, slimming compares the wrong gammas, or invents some behind a sum."""
    model = lived_in(Joined())
    graph = trace(model, X)
    layers = {layer.name: layer for layer in find_layers(model, graph)}
    gammas = torch.cat([model.bn_a.weight, model.bn_b.weight]).detach()
    assert torch.equal(input_scales(graph, layers["c"]), gammas)
    assert input_scales(graph, layers["d"]) is None and input_scales(graph, layers["a"]) is None
    assert {row.name for row in prune_channels(model, X, ratio=0.4).rows if row.prunable} == {"c"}
    with pytest.raises(Error, match="must be one of l1, .*, slimming"):
        prune_channels(model, X, ratio=0.4, criterion="thinet")
