"""A budget of multiply-adds is one of what is exported; no choice cuts a layer off."""

from __future__ import annotations

import pytest
import torch
from prune.networks import Chain, lived_in
from torch import nn

from kernelprune import Engine, export, models
from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.footprint import Footprint
from kernelprune.graph.passes import run_all
from kernelprune.models.densenet import DenseNet
from kernelprune.prune import (
    DiscriminationAware,
    Plan,
    SynapticStrength,
    count,
    finalize_masks,
    prune_channels,
    prune_connections,
)

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ZOO = {
    "vgg16": {"width": 0.25},
    "resnet20": {},
    "mobilenet_v2": {"width": 0.5},
    "densenet40": {"growth": 6},
}


def network(name: str) -> nn.Module:
    if name == "densenet13":  # the blocks of densenet40, a quarter of them
        return lived_in(DenseNet(13, 12, num_classes=10, in_channels=3)).float()
    return lived_in(models.create(name, num_classes=10, seed=0, **ZOO[name])).float()


@pytest.mark.parametrize(
    "name",
    ["vgg16", "resnet20", "mobilenet_v2", "densenet13",
     pytest.param("densenet40", marks=pytest.mark.extensive)],
)  # fmt: skip
def test_channels_keep_the_budget_of_what_is_exported(name: str, tmp_path, monkeypatch) -> None:
    """A budget counts channels that go with others as kept, depthwise layers as full ones, or
    leaves out batch norms that fold into no layer: then the file has a fraction of it."""
    model = network(name)
    graph = trace(model, X)
    # Once is slow enough.
    monkeypatch.setattr("kernelprune.prune.layers.trace_all", lambda *_, **__: (graph, []))
    dense = run_all(graph.copy()).macs()
    for macs in (0.7, 0.5, 0.3):
        plan = prune_channels(model, X, macs=macs, hold=True)
        assert plan.macs == dense and not plan.notes
        assert 0.98 * macs <= plan.macs_density <= macs
    export(finalize_masks(model), X, tmp_path / "model.safetensors")
    layers = Engine(tmp_path / "model.safetensors").layers()
    assert sum(layer.macs for layer in layers) == plan.macs_kept
    assert f"{plan.macs_kept:,}" in str(plan) and f"{dense:,}" in str(plan)


def chain() -> nn.Module:
    """conv2's strongest connections write channel 0, conv3's read channel 1."""
    torch.manual_seed(1)
    model = lived_in(Chain())
    with torch.no_grad():
        model.conv2.weight[0] += 9
        model.conv3.weight[:, 1] += 9
        for part in model.modules():  # every ReLU lets something through
            if isinstance(part, nn.Conv2d):
                part.weight.abs_()
            if isinstance(part, nn.BatchNorm2d):
                part.weight.fill_(1.0)
                part.running_mean.zero_()
    return model


SMALL = X[:, :, :8, :8].double()


def by_criterion(model: nn.Module, **budget) -> Plan:
    return prune_connections(model, x=SMALL, **budget)


def by_strength(model: nn.Module, **budget) -> Plan:
    pruner = SynapticStrength(model, SMALL)
    plan = pruner.prune(**budget)
    pruner.finalize()
    return plan


@pytest.mark.parametrize("prune", [by_criterion, by_strength])
@pytest.mark.parametrize("budget", [{"density": 0.05}, {"macs": 0.25}])
def test_no_layer_is_cut_off(prune, budget) -> None:
    """The connections that are left do not meet: the network gives the same for every image."""
    model = chain()
    plan = prune(model, **budget)
    assert not any("cut off" in note for note in plan.notes)
    assert all(row.exported > 0 for row in plan.rows)
    if "macs" in budget:
        assert plan.macs_density <= 0.25
    else:
        assert plan.prunable_kept == 4
    scores = model(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    assert not torch.allclose(scores[0], scores[1])


def test_connections_keep_the_budget_of_what_is_exported(tmp_path) -> None:
    """Connections that nobody needs any more count as kept, or a cut branch is taken for a cheap
    one."""
    model = lived_in(Chain(24)).float()
    plan = prune_connections(model, x=SMALL.float(), macs=0.3, scope="global")
    assert 0.98 * 0.3 <= plan.macs_density <= 0.3
    export(model, SMALL.float(), tmp_path / "model.safetensors")
    layers = Engine(tmp_path / "model.safetensors").layers()
    assert (
        sum(layer.macs for layer in layers)
        == plan.macs_kept
        == count(model, SMALL.float()).macs_kept
    )


def test_what_a_budget_cannot_do_is_said() -> None:
    """A budget that cannot be used up, or not be held, goes unnoticed."""
    model = chain()
    with torch.no_grad():
        model.bn2.weight.zero_()  # conv2 is gone already, and all that it reads
    plan = prune_channels(model, SMALL, macs=0.9)
    assert plan.notes == [
        f"macs=0.9: the exported network has {plan.macs_density:.1%} of the multiply-adds: nothing "
        "more is there to keep"
    ]
    assert f"warning: {plan.notes[0]}" in str(plan)
    plan = prune_channels(chain(), SMALL, macs=0.6)
    assert plan.notes == [] or "the next larger choice is over the budget" in plan.notes[0]
    assert plan.macs_density <= 0.6
    with pytest.raises(Error, match=r"macs=0.01: at least .*% of the multiply-adds .* raise the"):
        prune_channels(chain(), SMALL, macs=0.01)


def test_a_selection_says_what_is_exported() -> None:
    """The plan of a greedy choice counts channels that go with others as kept."""
    model = chain()
    pruner = DiscriminationAware(
        model, SMALL, [(SMALL, torch.tensor([1, 2]))], discrimination=0.0, stage_epochs=0
    )
    planned = pruner.plan(ratio=0.5)
    assert not planned.masks
    done = pruner.prune(ratio=0.5)
    assert [row.exported for row in planned.rows] == [row.exported for row in done.rows]
    assert {row.name: row.exported for row in done.rows}["conv1"] == 9  # three of six outputs
    assert done.macs_kept == count(pruner.finalize(), SMALL).macs_kept


def test_shared_and_grouped_layers() -> None:
    """A layer that is called twice counts once, or a grouped one as a full one."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv(self.conv(self.stem(x)).relu()).mean((2, 3)))

    footprint = Footprint(trace(Twice(), SMALL.float()))
    assert footprint.dense.layer_macs == {"stem": 12 * 64, "conv": 2 * 8 * 9 * 64, "fc": 8}
    assert footprint.dense.layer_connections["conv"] == 8
    mask = torch.ones(4, 2, dtype=torch.bool)
    mask[1, 0] = False  # in both calls, and nothing dies of it
    assert footprint.size({"conv": mask}).layer_macs["conv"] == 2 * 7 * 9 * 64
    assert footprint.cut_off({"conv": mask & False}) == ["conv"]
