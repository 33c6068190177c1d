"""Channels go as a whole, through every operator that makes channel c of channel c."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from models.small_zoo import build, numbers
from prune.networks import lived_in
from torch import nn

import kernelprune as kp

# The share of the multiply-adds that is left of each small network at a ratio of 0.5, in a file and
# in torch. A channel costs in the layers that write it and in those that read it, so where all may
# go a quarter is left. What a residual sum has stays, and half of the multiply-adds with it.
LEFT = {
    "mobilenet_v2": (0.49, 0.49),
    "mobilenet_v3": (0.52, 0.52),
    "efficientnet": (0.74, 0.74),  # blocks without an expansion, whose channels a sum has
    "regnet": (0.41, 0.41),
    "shufflenet": (0.47, 0.47),  # all but the stem's map may go
    "convnext": (0.76, 0.76),  # half of it is depthwise, on channels that a sum has
    "unet": (0.41, 0.47),  # the encoder's maps stay in torch, a file lacks connections to them
    "yolo": (0.43, 0.44),
}


def pruned(name: str) -> tuple[nn.Module, kp.prune.Plan, torch.Tensor]:
    model = lived_in(build(name)).float()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of channels that stay
        return model, kp.prune_channels(model, x, ratio=0.5), x


def torch_macs(model: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds per image of a torch model, which has no sparse layers."""
    found = []

    def see(module: nn.Module, _, output: torch.Tensor) -> None:
        places = output[0].numel() // module.weight.shape[0]
        found.append(module.weight.numel() * places)

    hooks = [
        module.register_forward_hook(see)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return sum(found)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


# Their operators are those of another row: gates of mobilenet_v3, joined maps of unet and splits of
# shufflenet.
REPEATED = {"efficientnet", "yolo"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.extensive if name in REPEATED else ()) for name in LEFT],
)
def test_half_of_the_channels(name: str, tmp_path: Path) -> None:
    """If this fails, channels stay that no operator needs, compact or an export computes something
    else than the pruned model, or leaves a model larger than the plan says."""
    model, plan, x = pruned(name)
    in_file, in_torch = LEFT[name]
    assert plan.macs_density == pytest.approx(in_file, abs=0.03)
    with torch.no_grad():
        expected = numbers(model(x))
        smaller = kp.compact(model, x)
        assert relative(numbers(smaller(x)), expected) < 1e-5
    assert torch_macs(smaller, x) / plan.macs == pytest.approx(in_torch, abs=0.03)
    graph = kp.export(model, x, tmp_path / "pruned.safetensors")
    assert graph.macs() == pytest.approx(plan.macs_kept, rel=0.02)
    outputs = kp.runtime.Engine(tmp_path / "pruned.safetensors").run(x.numpy())
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    found = torch.cat([torch.from_numpy(part).flatten(1) for part in parts], 1)
    assert relative(found, expected) < 1e-5


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))


class Gated(nn.Module):
    """A map read by a convolution through a gate, and by the linear layers that make the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Linear(12, 4), nn.Linear(4, 12)
        self.merge, self.classifier = nn.Conv2d(12, 6, 1), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.norm(self.stem(x)))
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.classifier(self.merge(x * gate[:, :, None, None]).mean((2, 3)))


def same_when_compact(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        expected = model(X)
        smaller = kp.compact(model, X)
        assert relative(smaller(X), expected) < 1e-5
    return smaller


def test_a_gate_of_linear_layers_follows() -> None:
    """If this fails, a squeeze-and-excitation of linear layers keeps the channels that its map
    could lose, or linear layers on vectors are pruned for themselves."""
    model = lived_in(Gated()).float()
    plan = kp.prune_channels(model, X, ratio=0.5)
    assert set(plan.masks) == {"squeeze", "merge"} and not plan.tied and not plan.warnings
    assert torch.equal(plan.masks["squeeze"][0], plan.masks["merge"][0])
    smaller = same_when_compact(model)
    assert smaller.stem.out_channels == smaller.norm.num_features == smaller.merge.in_channels == 6
    assert smaller.squeeze.in_features == smaller.excite.out_features == 6
    assert smaller.squeeze.out_features == smaller.excite.in_features == 4


def test_the_batch_norm_before_a_gate_scores() -> None:
    """If this fails, slimming takes a gate for the end of a map's batch norm, or ranks by another
    number than its gamma."""
    model = lived_in(Gated()).float()
    gamma = model.norm.weight.detach().abs()
    plan = kp.prune_channels(model, X, ratio=0.5, criterion="slimming")
    kept = plan.masks["merge"][0]
    assert gamma[kept].min() > gamma[~kept].max()


class Grouped(nn.Module):
    """1x1, grouped 3x3, 1x1, and the classifier."""

    def __init__(self, groups: int = 4, inputs: int = 16, outputs: int = 16) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(3, inputs, 1)
        self.grouped = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)
        self.expand, self.classifier = nn.Conv2d(outputs, 8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.expand(self.grouped(self.reduce(x).relu()).relu())
        return self.classifier(x.mean((2, 3)))


def test_groups_lose_as_many_channels_each() -> None:
    """If this fails, a grouped convolution keeps its size, since its groups would be of unequal
    sizes, or loses others than the weakest channels of each group."""
    torch.manual_seed(2)
    model = Grouped()
    scores = model.expand.weight.detach().abs().sum((0, 2, 3)).reshape(4, 4)
    plan = kp.prune_channels(model, X, ratio=0.5)
    kept = plan.masks["expand"][0].reshape(4, 4)
    assert torch.equal(kept, scores >= scores.sort(1).values[:, 2:3])
    assert plan.masks["grouped"].shape == (16, 4) and (plan.masks["grouped"].sum(1) == 2).all()
    smaller = same_when_compact(model)
    assert smaller.grouped.groups == 4 and smaller.grouped.weight.shape == (8, 2, 3, 3)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 16), (16, 4)])
def test_groups_go_as_a_whole(inputs: int, outputs: int) -> None:
    """If this fails, groups with one input or one output channel (a depthwise convolution that
    makes several channels of each) cannot go."""
    torch.manual_seed(2)
    model = Grouped(4, inputs, outputs)
    kp.prune_channels(model, X, ratio=0.5)
    smaller = same_when_compact(model)
    assert smaller.grouped.groups == 2
    assert (smaller.reduce.out_channels, smaller.expand.in_channels) == (inputs // 2, outputs // 2)


def test_more_is_dropped_in_a_second_round() -> None:
    """If this fails, channels that a first round held at zero come back, or single connections that
    a mask held do, or a budget counts what is gone."""
    torch.manual_seed(2)
    model = Grouped()
    connections = kp.prune_connections(model, density=0.8, x=X, hold=True).masks
    first = kp.prune_channels(model, X, ratio=0.25, hold=True).masks
    second = kp.prune_channels(model, X, macs=0.3, hold=True)
    for name, mask in second.masks.items():
        assert not (mask & ~first[name]).any() and not (mask & ~connections[name]).any()
    assert second.macs_density is not None and 0.1 < second.macs_density <= 0.3
    same_when_compact(kp.prune.finalize_masks(model))


def test_what_stays_is_said() -> None:
    """If this fails, a user who asks for half of the channels is not told that sums, outputs or
    ignored layers keep theirs, or is told so when nothing is asked for."""
    model = lived_in(build("resnet")).float()
    with pytest.warns(
        UserWarning, match="36 of 56 input channels stay, in 4 layers .residual sums: 36.;"
    ):
        plan = kp.prune_channels(model, X, ratio=0.5, ignore="layer2.0.conv2")
    assert plan.tied["layer1.0.conv1"] == {"residual sums": 8}
    assert "layer2.0.conv2" not in plan.masks and plan.to_dict()["tied"] == plan.tied
    assert plan.notes[-1] in str(plan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kp.prune_channels(model, X, ratio=0.0).notes


class Halves(nn.Module):
    """Cut in two, of which one half is an output of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 1), nn.Conv2d(6, 8, 1)
        self.third = nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = self.first(x).chunk(2, 1)
        return one, self.third(self.second(other).relu())


def test_a_half_stays_with_the_other() -> None:
    """If this fails, a chunk is made to give halves of unequal sizes, or nobody is told why it
    keeps both."""
    model = Halves()
    with pytest.raises(
        kp.Error, match="may go: 6 of 6 input channels stay, in 1 layer .outputs of the"
    ):
        kp.prune_channels(model, X, ratio=0.5)
