"""``reconstruct`` as a whole: what it keeps, fits and leaves alone, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from prune.networks import Chain, lived_in, two_blocks
from torch import nn

import kernelprune as kp
from kernelprune.errors import Error, UnsupportedOperator
from kernelprune.prune import SynapticStrength, finalize_masks, masks_of, reconstruct

IMAGES = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def chain(groups: int = 1) -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain(groups=groups)).float()


def blocks() -> nn.Module:
    torch.manual_seed(1)
    return lived_in(two_blocks()).float()


def likeness(model: nn.Module, dense: nn.Module) -> float:
    """Cosine of the outputs about their means, on images that nothing was fitted to."""
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        a, b = (net(x) - net(x).mean(0) for net in (model, dense))
    return float((a * b).sum() / (a.norm() * b.norm()))


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("make", [chain, blocks])
@pytest.mark.parametrize("method", ["l1", "omp", "obs"])
def test_outputs_stay_near_the_dense_ones(make: Any, method: str, tmp_path) -> None:
    """If this fails, fitting does not help against dropping the same number of connections, the
    density is not what was asked for, or the result cannot be exported."""
    dense = make()
    plain, fitted = copy.deepcopy(dense), copy.deepcopy(dense)
    kp.prune_connections(plain, density=0.5, x=IMAGES[:1], scope="layer")
    plan = reconstruct(fitted, IMAGES, density=0.5, method=method)
    least = 0.0 if method == "l1" else 0.08
    assert likeness(fitted, dense) > likeness(plain, dense) + least
    for row in plan.rows:
        assert not row.prunable or row.kept == round(0.5 * row.connections)
        if row.prunable:
            assert row.residual is not None and row.residual[1] <= row.residual[0] + 1e-9
            mask = plan.masks[row.name]
            weight = fitted.get_submodule(row.name).weight
            assert torch.equal(weight.flatten(2).ne(0).any(2), mask)
    assert "fitted" in str(plan) and plan.to_dict()["layers"][1]["residual"] is not None
    x = IMAGES[:4]
    kp.export(fitted, x, tmp_path / "net.safetensors")
    torch.testing.assert_close(kp.compact(fitted, x)(x), fitted(x), rtol=1e-3, atol=1e-4)


def test_nothing_dropped_changes_nothing() -> None:
    """If this fails, few images move weights and batch norms where there is nothing to make
    good."""
    dense = blocks()
    model = copy.deepcopy(dense)
    reconstruct(model, IMAGES, density=1.0)
    torch.testing.assert_close(model(IMAGES), dense(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["omp", "obs"])
def test_layer_with_connections_to_spare_is_exact(method: str) -> None:
    """If this fails, a layer that reads copies of channels keeps more than one of them, or the
    weights of what is kept do not make up for the others."""
    model = chain()
    with torch.no_grad():  # channels 3, 4, 5 are 0, 1, 2 again
        for part in (model.conv1.weight, *model.bn1.parameters(), *model.bn1.buffers()):
            if part.dim():
                part[3:] = part[:3]
    dense = copy.deepcopy(model)
    plan = reconstruct(model, IMAGES, density=0.5, method=method, ridge=1e-8, ignore="conv3")
    assert {row.name: row.kept for row in plan.rows}["conv2"] == 18
    torch.testing.assert_close(model(IMAGES), dense(IMAGES), rtol=1e-4, atol=1e-5)


def test_groups_of_connections() -> None:
    """If this fails, connections of a group are torn apart, or those that a mask holds come
    back."""
    model = chain()
    plan = reconstruct(model, IMAGES, density=0.5, group=2, method="omp")
    pairs = plan.masks["conv2"].reshape(6, 3, 2)
    assert torch.equal(pairs[..., 0], pairs[..., 1]) and plan.masks["conv2"].sum() == 18
    held = chain()
    kp.prune_connections(held, density=0.8, x=IMAGES[:1], hold=True)
    before = masks_of(held)["conv2"].clone()
    reconstruct(held, IMAGES, density=0.5, group=4, hold=True)
    assert not (masks_of(held)["conv2"] & ~before).any()


def test_grouped_and_depthwise_layers() -> None:
    """If this fails, a grouped layer is computed as a plain one, or a depthwise one is pruned
    without being named."""
    dense = chain(groups=2)
    model = copy.deepcopy(dense)
    plan = reconstruct(model, IMAGES, density=0.6)
    assert plan.masks["conv2"].shape == (6, 3) and likeness(model, dense) > 0.8
    depthwise = chain(groups=6)
    weight = depthwise.conv2.weight.detach().clone()
    plan = reconstruct(depthwise, IMAGES, density=0.5)
    assert "conv2" not in plan.masks and torch.equal(depthwise.conv2.weight, weight)
    plan = reconstruct(chain(groups=6), IMAGES, density=0.5, include="conv2")
    assert plan.masks["conv2"].sum() == 3


def test_linear_layers_on_maps() -> None:
    """If this fails, linear layers between permutes (ConvNeXt) are not pruned or not fitted."""

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            y = self.stem(x).permute(0, 2, 3, 1)
            y = self.narrow(torch.relu(self.wide(y)))
            return self.head(y.mean((1, 2)))

    dense = Mixer().eval()
    model = copy.deepcopy(dense)
    plan = reconstruct(model, IMAGES, density=0.6)
    assert {*plan.masks} == {"wide", "narrow"}
    assert all(row.residual[1] < row.residual[0] for row in plan.rows if row.prunable)
    plain = copy.deepcopy(dense)
    kp.prune_connections(plain, density=0.6, x=IMAGES[:1], scope="layer")
    assert likeness(model, dense) > likeness(plain, dense)


class Twice(nn.Module):
    """``again`` is called twice; ``last`` has no bias and no batch norm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        y = torch.relu(self.again(torch.relu(self.again(torch.relu(self.first(x))))))
        return self.head(torch.relu(self.last(y)).mean((2, 3)))


def test_layers_that_cannot_be_fitted() -> None:
    """If this fails, a layer that is called twice is fitted to one of its calls, or a layer with no
    place for a constant is fitted about its mean."""
    dense = Twice().eval()
    model = copy.deepcopy(dense)
    with pytest.warns(UserWarning, match="'again' is called more than once"):
        plan = reconstruct(model, IMAGES, density=0.5)
    mask = plan.masks["again"]
    assert mask.sum() == 18
    kept = dense.again.weight.detach() * mask[:, :, None, None]
    assert torch.equal(model.again.weight.detach(), kept)
    rows = {row.name: row for row in plan.rows}
    assert rows["again"].residual is None and rows["last"].residual[1] < rows["last"].residual[0]
    seen: dict[str, torch.Tensor] = {}
    model.last.register_forward_hook(lambda _, given, out: seen.update(x=given[0], y=out))
    with torch.no_grad():
        dense.last.register_forward_hook(lambda _, given, out: seen.update(wanted=out))
        model(IMAGES), dense(IMAGES)
    error = (seen["y"] - seen["wanted"]).square().mean((0, 2, 3))
    lost = float((error / seen["wanted"].square().mean((0, 2, 3))).mean())
    assert lost == pytest.approx(rows["last"].residual[1], rel=1e-3)


def test_layers_that_stay_alone() -> None:
    """If this fails, a layer that ignore names is changed, or layers that are kept whole are not
    fitted although that was asked for."""
    model = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reconstruct(model, IMAGES, density=0.5, ignore=["conv3", "fc"])
    assert torch.equal(model.conv3.weight, before["conv3.weight"])
    assert torch.equal(model.fc.weight, before["fc.weight"])
    assert not torch.equal(model.bn2.running_mean, before["bn2.running_mean"]) or not torch.equal(
        model.bn3.running_mean, before["bn3.running_mean"]
    )
    whole = chain()
    reconstruct(whole, IMAGES, density=0.5, refit_whole=False)
    assert torch.equal(whole.fc.weight, before["fc.weight"])
    whole = chain()
    reconstruct(whole, IMAGES, density=0.5)
    assert not torch.equal(whole.fc.weight, before["fc.weight"])


def test_fine_tuning_keeps_what_was_dropped() -> None:
    """If this fails, training after ``hold=True`` brings dropped connections back, or the modes and
    flags of a model in training are not what they were."""
    model = blocks().train()
    model.fc.weight.requires_grad_(False)
    plan = reconstruct(model, IMAGES, density=0.4, hold=True)
    assert all(module.training for module in model.modules())
    assert not model.fc.weight.requires_grad
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(IMAGES).square().mean().backward()
    optimiser.step()
    finalize_masks(model)
    for name, mask in plan.masks.items():
        assert torch.equal(model.get_submodule(name).weight.flatten(2).ne(0).any(2), mask)


@pytest.mark.filterwarnings("ignore:macs=0.75")  # a tiny network has coarse steps
def test_budget_of_multiply_adds() -> None:
    """If this fails, the exported network is above the budget, or all layers get the same density
    whatever their errors cost."""
    model = blocks()
    plan = reconstruct(model, IMAGES, macs=0.75)
    assert 0.5 < plan.macs_density <= 0.75
    densities = {round(row.density, 2) for row in plan.rows if row.prunable}
    assert len(densities) > 1
    with pytest.raises(Error, match=r"macs=0.05: at least \d+.\d% of the multiply-adds are left"):
        reconstruct(blocks(), IMAGES, macs=0.05)


def test_no_layer_is_cut_off() -> None:
    """If this fails, a low density leaves a layer without a path through the network."""
    plan = reconstruct(chain(), IMAGES, density=0.02, method="omp")
    assert not [note for note in plan.notes if "cut off" in note]
    assert all(row.kept >= 1 for row in plan.rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of density=, macs=, latency_ms= and speed_up="),
        ({"density": 0.5, "macs": 0.5}, "not density and macs"),
        ({"density": 0.0}, "density=0.0"),
        ({"speed_up": 1}, "speed_up=1"),
        ({"latency_ms": -1}, "latency_ms=-1"),
        ({"density": 0.5, "method": "l2"}, "method"),
        ({"density": 0.5, "grup": 2}, "did you mean 'group'"),
        ({"density": 0.5, "group": (4, 4)}, "such as group=4"),
        ({"density": 0.5, "ignore": "conv9"}, "no module 'conv9'"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    """If this fails, a wrong argument is taken silently, or the model is changed before it is
    found."""
    model = chain()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Error, match=message):
        reconstruct(model, IMAGES, **options)
    assert unchanged(model, before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, 8, 8), "no image"),
        ([], "no images were given"),
        (torch.full((2, 3, 8, 8), float("nan")), "NaN"),
        (torch.zeros(2, 4, 8, 8), "channels"),
        ([torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 9, 9)], r"\[2, 3, 9, 9\]"),
        ("images", "calibration is a str"),
    ],
)
def test_wrong_images(images: Any, message: str) -> None:
    """If this fails, images that say nothing ruin a model, or the message does not say what is
    wrong with them."""
    model = chain()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Error, match=message):
        reconstruct(model, images, density=0.5)
    assert unchanged(model, before)


def test_models_that_are_refused() -> None:
    """If this fails, an operator without a twin is left out of the computation, or strengths that
    are trained are overwritten."""

    class Odd(Chain):
        def forward(self, x):
            return super().forward(torch.fft.fft2(x).real)

    with pytest.raises(UnsupportedOperator, match="fft"):
        reconstruct(Odd().eval(), IMAGES, density=0.5)
    model = chain()
    SynapticStrength(model, IMAGES[:1])
    with pytest.raises(Error, match="finalize"):
        reconstruct(model, IMAGES, density=0.5)
    with pytest.raises(Error, match="not finite on these images"):
        reconstruct(chain(), IMAGES.sign() * 3e38, density=0.5)
