"""Linear layers that work at each place of a map are pruned as the 1x1 convolutions that they
are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.small_zoo import build
from torch import nn

import kernelprune as kp
from kernelprune.prune import masks_of
from kernelprune.prune.layers import find_layers

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(4)
POINTWISE = {f"features.{i}.{name}" for i in (2, 5) for name in ("expand", "project")}


def convnext() -> nn.Module:
    """Its layer norms and pointwise layers as if trained, not near to doing nothing."""
    model = build("convnext").eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def engine_output(model: nn.Module, path: Path) -> torch.Tensor:
    kp.export(model, X, path)
    return torch.from_numpy(kp.runtime.Engine(path).run(X.numpy()))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_pruned_to_a_tenth(tmp_path: Path) -> None:
    """If this fails, a ConvNeXt keeps nine tenths of its connections, or its file computes
    something else than the pruned torch model."""
    model = convnext()
    plan = kp.prune_connections(model, density=0.1, x=X)
    assert {row.name for row in plan.rows if row.prunable} == POINTWISE | {"features.4"}
    assert plan.prunable_density == pytest.approx(0.1, abs=1e-3)
    for name in POINTWISE:
        weight = model.get_submodule(name).weight
        assert torch.equal(weight.ne(0), plan.masks[name])
    expected = model(X)
    assert relative(engine_output(model, tmp_path / "pruned.safetensors"), expected) < 1e-5
    smaller = kp.compact(model, X)
    assert relative(smaller(X), expected) < 1e-5


def test_without_an_example_they_stay() -> None:
    """If this fails, linear layers on vectors may be pruned: without a graph nobody knows."""
    names = {layer.name for layer in find_layers(convnext()) if layer.prunable}
    assert not names & POINTWISE


def test_strengths_train_and_export(tmp_path: Path) -> None:
    """If this fails, Synaptic Strength changes a ConvNeXt, measures a linear layer's maps along the
    wrong axis, does not train its strengths, or leaves what an export cannot hold."""
    model = convnext()
    seen: dict[str, torch.Tensor] = {}

    def see(name: str):
        return lambda module, args: seen.update({name: args[0]})

    hooks = [model.get_submodule(n).register_forward_pre_hook(see(n)) for n in sorted(POINTWISE)]
    with torch.no_grad():
        expected = model(X)
    for hook in hooks:
        hook.remove()
    pruner = kp.SynapticStrength(model, X, scale="measured")
    assert relative(model(X).detach(), expected) < 1e-5
    for name in POINTWISE:
        weight = model.get_submodule(name).weight.detach()
        scale = seen[name].square().mean((0, 1, 2)).sqrt()  # of [N, H, W, C]
        assert torch.allclose(pruner.strengths()[name], scale * weight.abs(), rtol=1e-4, atol=1e-7)
    before = {name: strength.clone() for name, strength in pruner.strengths().items()}
    optimiser = torch.optim.SGD(pruner.parameter_groups(), lr=0.05)
    model.train()
    for _ in range(2):
        optimiser.zero_grad()
        (nn.functional.cross_entropy(model(X), LABELS) + pruner.penalty()).backward()
        optimiser.step()
    model.eval()
    assert all(not torch.equal(pruner.strengths()[name], before[name]) for name in POINTWISE)
    plan = pruner.prune(density=0.3)
    model = pruner.finalize()
    assert set(POINTWISE) <= set(plan.masks)
    for name in POINTWISE:
        module = model.get_submodule(name)
        assert type(module).__name__ == "Linear" and isinstance(module.weight, nn.Parameter)
        assert not module.weight[~plan.masks[name]].any()
    with torch.no_grad():
        expected = model(X)
    assert relative(engine_output(model, tmp_path / "synaptic.safetensors"), expected) < 1e-5


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_channels_are_the_hidden_width(criterion: str) -> None:
    """If this fails, the inner channels of a ConvNeXt's blocks stay, or compact computes something
    else without them."""
    model = convnext()
    with pytest.warns(UserWarning, match="input channels stay, in 3 layers"):
        plan = kp.prune_channels(model, X, ratio=0.5, criterion=criterion, loader=[(X, LABELS)])
    assert set(plan.masks) == {"features.2.project", "features.5.project"}
    assert plan.tied["features.4"] == {"layer_norm, which mixes channels": 8}
    with torch.no_grad():
        expected = model(X)
        smaller = kp.compact(model, X)
        assert relative(smaller(X), expected) < 1e-5
    for index, width in ((2, 16), (5, 24)):
        block = smaller.features[index]
        assert block.expand.out_features == block.project.in_features == width
        assert block.project.weight.shape == (block.project.out_features, width)


@pytest.mark.parametrize("granularity", ["channel", "kernel"])
def test_chosen_by_gradients(granularity: str) -> None:
    """If this fails, DCP and DKP leave the linear layers of a ConvNeXt as they are, or fail."""
    model = convnext()
    options = {"channels_per_step": 8 if granularity == "channel" else 4, "discrimination": 0.0}
    pruner = kp.DiscriminationAware(model, X, [X], granularity=granularity, **options)
    names = {layer.name for layer in pruner.chosen}
    assert names == (POINTWISE | {"features.4"} if granularity == "kernel" else set(names))
    assert "features.5.project" in names
    plan = pruner.prune(ratio=0.5)
    assert masks_of(model)["features.5.project"].sum() == 12 * 48 // 2
    assert plan.prunable_density == pytest.approx(0.5, abs=0.01)
