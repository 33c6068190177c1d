"""Coupled channels: those of residual sums go in every layer that writes or reads them."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from models.small_zoo import build, numbers
from prune.networks import lived_in, relative, two_blocks
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune import Error, ShapeError
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.footprint import Footprint
from kernelprune.models.densenet import DenseNet
from kernelprune.models.layers import unit
from kernelprune.models.shufflenet import ShuffleNetV2
from kernelprune.models.yolo import CrossStage, PyramidPooling
from kernelprune.prune.batches import Loss
from kernelprune.prune.candidates import CoupledChannels
from kernelprune.prune.layers import Layer, find_layers
from kernelprune.prune.selection import Greedy

X = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([1, 3])


class TransposedUNet(nn.Module):
    """A U-Net whose decoder grows by transposed convolutions, one with groups and one of stride 1,
    with a skip connection, a concatenation and a sum."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.down_norm = nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2, groups=groups)
        self.up_norm = nn.BatchNorm2d(8)
        self.smooth = nn.ConvTranspose2d(16, 8, 3, padding=1, bias=False)
        self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.first_norm(self.first(x)).relu()
        x = self.down_norm(self.down(skip)).relu()
        x = torch.cat([self.up_norm(self.up(x)).relu(), skip], 1)
        x = self.smooth(x).relu()
        return self.head(self.last(x).relu() + x)


class Detector(nn.Module):
    """The blocks of a YOLO: halves of a map of which one goes on through residual blocks, all
    joined again, a spatial pyramid, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*unit(3, 8, 3, 2, activation=nn.SiLU))
        self.stage = CrossStage(8, 8, 2, adds=True)
        self.pooling, self.neck = PyramidPooling(8), CrossStage(16, 12, 1, adds=False)
        self.boxes = nn.Sequential(*unit(12, 8, 3, 1, activation=nn.SiLU), nn.Conv2d(8, 4, 1))
        self.classes = nn.Sequential(*unit(12, 8, 3, 1, activation=nn.SiLU), nn.Conv2d(8, 5, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stage(self.stem(x))
        x = self.neck(torch.cat([self.pooling(x), x], 1))
        return {"boxes": self.boxes(x), "classes": self.classes(x)}


# What is left of the multiply-adds at a ratio of 0.5: a quarter, and more where the image's
# channels or the classes count.
LEFT = {
    "resnet": 0.27,
    "bottleneck": 0.29,
    "mobilenet_v2": 0.29,
    "efficientnet": 0.27,
    "detector": 0.28,
    "yolo": 0.27,
    "densenet": 0.28,
    "shufflenet": 0.31,
    "transposed": 0.28,
    "transposed, 4 groups": 0.29,
}


# Its blocks are those of the detector.
REPEATED = {"yolo"}


def network(name: str) -> nn.Module:
    if name == "detector":
        return lived_in(Detector())
    if name == "shufflenet":
        options = {"num_classes": 5, "in_channels": 3, "stem": "cifar"}
        return lived_in(ShuffleNetV2(((16, 2),), width=0.5, **options))
    if name.startswith("transposed"):
        return lived_in(TransposedUNet(4 if "groups" in name else 1))
    return lived_in(build(name))


def compacted(model: nn.Module, plan: kp.prune.Plan) -> nn.Module:
    """Exact to rounding, as large as the plan says, and nothing dead is left in it."""
    with torch.no_grad():
        expected = numbers(model(X))
        smaller = kp.compact(model, X)
        assert float((numbers(smaller(X)) - expected).norm() / expected.norm()) < 1e-10
    dense = Footprint(trace(smaller, X)).dense
    assert dense.macs == plan.macs_kept
    return smaller


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.extensive if name in REPEATED else ()) for name in LEFT],
)
def test_half_of_all_channels(name: str) -> None:
    """If this fails, channels of sums stay or go in one layer alone, compact computes something
    else than the pruned model, or the plan counts other multiply-adds than the compact model has.
    """
    model = network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of these networks has to stay
        plan = kp.prune_channels(model, X, ratio=0.5, coupled=True)
    assert not plan.tied and plan.macs_density == pytest.approx(LEFT[name], abs=0.02)
    compacted(model, plan)


def test_a_sum_is_cut_alike() -> None:
    """If this fails, the layers of one residual stream lose different channels, or the classifier
    does not lose those of the last one."""
    model = lived_in(build("resnet"))
    plan = kp.prune_channels(model, X, ratio=0.5, coupled=True)
    masks = plan.masks
    assert torch.equal(masks["layer1.0.conv1"][0], masks["layer2.0.conv1"][0])
    assert torch.equal(masks["layer2.0.conv1"][0], masks["layer2.0.downsample.0"][0])
    assert torch.equal(masks["layer2.1.conv1"][0], masks["fc"][0])
    smaller = compacted(model, plan)
    assert smaller.conv1.out_channels == smaller.layer1[0].conv2.out_channels == 4
    assert smaller.fc.in_features == smaller.layer2[0].downsample[0].out_channels == 6


@pytest.mark.filterwarnings("ignore:macs=0.4")  # of small networks single channels are much
@pytest.mark.parametrize("name", ["resnet", "transposed"])
def test_budgets(name: str) -> None:
    """If this fails, a budget is counted on something else than the compact model, or is not used
    up though channels are there to keep."""
    model = network(name)
    plan = kp.prune_channels(model, X, macs=0.4, coupled=True, scope="global")
    smaller = compacted(model, plan)
    dense = Footprint(trace(network(name), X)).dense.macs
    left = Footprint(trace(smaller, X)).dense.macs / dense
    assert 0.3 < left <= 0.4


class Outlets(nn.Module):
    """A residual stream, a concatenation and their layers; the model also gives what ``give``
    says."""

    def __init__(self, give: str) -> None:
        super().__init__()
        self.give = give
        self.stem, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.side, self.both = nn.Conv2d(8, 6, 1), nn.Conv2d(14, 8, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stem = self.stem(x).relu()
        stream = stem + self.inner(stem)
        joined = torch.cat([stream, self.side(stream.relu()).relu()], 1)
        found = {"stream": stream, "joined": joined, "stem": stem}
        return self.head(self.both(joined).relu()), found[self.give]


@pytest.mark.parametrize("give", ["stream", "joined", "stem"])
def test_what_the_model_gives_stays(give: str) -> None:
    """If this fails, a channel of an output of the model is cut, though only another layer of its
    set writes the output."""
    model = lived_in(Outlets(give))
    with pytest.warns(UserWarning, match="outputs of the model"):
        plan = kp.prune_channels(model, X, ratio=0.7, coupled=True)
    with torch.no_grad():
        expected, smaller = model(X), kp.compact(model, X)
        for found, wanted in zip(smaller(X), expected, strict=True):
            assert found.shape == wanted.shape and relative(found, wanted) < 1e-10
    stream = {smaller.stem.out_channels, smaller.inner.out_channels}
    assert stream == {8} and plan.masks["head"].any(0).sum() == 2
    assert smaller.side.out_channels == (6 if give == "joined" else 2)


def test_what_a_layer_norm_reads_stays() -> None:
    """If this fails, a channel is cut from a layer norm, which computes something else then."""
    model = lived_in(build("convnext"))
    with pytest.warns(UserWarning, match="layer_norm, which mixes channels"):
        plan = kp.prune_channels(model, X, ratio=0.5, coupled=True)
    compacted(model, plan)


def test_ignored_readers_keep_the_stream() -> None:
    """If this fails, a layer that the user wants whole loses inputs."""
    model = lived_in(build("resnet"))
    with pytest.warns(UserWarning, match="layers that are kept whole"):
        plan = kp.prune_channels(model, X, ratio=0.5, coupled=True, ignore="fc")
    smaller = compacted(model, plan)
    assert smaller.fc.in_features == 12 and smaller.layer1[0].conv2.out_channels == 4


class Odd(nn.Module):
    """A residual stream, and beside it what ``kind`` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 1)
        self.norm, self.prelu = nn.BatchNorm2d(8), nn.PReLU(8)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8)[:, None, None])
        with torch.no_grad():
            self.prelu.weight.copy_(torch.linspace(0.1, 0.5, 8))
        if kind == "shared weight":
            self.third = nn.Conv2d(8, 8, 3, padding=1)
            self.third.weight = self.inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        other = self.inner(y)
        if self.kind == "writer twice":
            other = self.stem(x.relu()) + other
        elif self.kind == "norm twice":
            y, other = self.norm(y), self.norm(other)
        elif self.kind == "prelu":
            other = self.prelu(other)
        elif self.kind == "scale":
            other = other * self.scale
        elif self.kind == "one number":
            other = other * 0.5 + 1.5
        return self.head(self.third((y + other).relu()).relu() + y)


@pytest.mark.parametrize(
    "kind", ["writer twice", "norm twice", "prelu", "scale", "shared weight", "one number"]
)
def test_what_no_module_can_lose_stays(kind: str) -> None:
    """If this fails, a plan counts channels as gone that compact cannot cut out of the model's
    modules, or a number for all channels is taken for one of each."""
    model = lived_in(Odd(kind))
    if kind == "one number":
        plan = kp.prune_channels(model, X, ratio=0.5, coupled=True)
        assert compacted(model, plan).stem.out_channels == 4
    else:
        with pytest.raises(Error, match="no layer whose input channels may go"):
            kp.prune_channels(model, X, ratio=0.5, coupled=True)


class Pair(nn.Module):
    """Two layers that write one sum, and one that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.reader = nn.Conv2d(4, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reader((self.one(x) + self.norm(self.other(x))).relu())


def test_scores_are_the_mean_over_members() -> None:
    """If this fails, a layer of a set has no say, or counts for more because its weights are
    large, or a batch norm's factor is left out of what it scales."""
    model = lived_in(Pair())
    model.other.weight.data *= 1000
    one = model.one.weight.detach().abs().sum((1, 2, 3))
    factor = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    other = model.other.weight.detach().abs().sum((1, 2, 3)) * factor.detach().abs()
    reader = model.reader.weight.detach().abs().sum((0, 2, 3))
    expected = sum(score / score.mean() for score in (one, other, reader)) / 3
    plan = kp.prune_channels(model, X, ratio=0.5, coupled=True)
    kept = plan.masks["reader"][0]
    assert set(kept.nonzero().flatten().tolist()) == set(expected.topk(2).indices.tolist())
    model = lived_in(Pair())
    gamma = model.norm.weight.detach().abs()
    kept = kp.prune_channels(model, X, ratio=0.5, coupled=True, criterion="slimming").masks
    assert gamma[kept["reader"][0]].min() > gamma[~kept["reader"][0]].max()


@pytest.mark.parametrize("criterion", ["l2", "taylor", "gradient", "random", "slimming"])
def test_every_criterion(criterion: str) -> None:
    """If this fails, a criterion cannot score sums, or leaves more or less than it was asked to."""
    model = lived_in(two_blocks())
    loader = [(X, LABELS)]
    plan = kp.prune_channels(model, X, ratio=0.5, coupled=True, criterion=criterion, loader=loader)
    assert {int(mask.any(0).sum()) for mask in plan.masks.values()} == {2, 3}
    compacted(model, plan)


def test_held_channels_stay_dropped() -> None:
    """If this fails, training revives channels of a sum, or a second round brings some back."""
    model = network("transposed")
    first = kp.prune_channels(model, X, ratio=0.25, coupled=True, hold=True)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimiser.zero_grad()
        model(X).square().mean().backward()
        optimiser.step()
    second = kp.prune_channels(model, X, ratio=0.5, coupled=True, hold=True)
    for name, mask in second.masks.items():
        assert not (mask & ~first.masks[name]).any()
    model = kp.prune.finalize_masks(model).eval()
    smaller = compacted(model, second)
    assert smaller.up.weight.shape == (6, 4, 2, 2) and smaller.smooth.weight.shape[:2] == (8, 4)


def test_masks_of_transposed_convolutions() -> None:
    """If this fails, the footprint takes the mask of a transposed convolution with groups for that
    of other connections than the weights have."""
    layer = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), layer, nn.Conv2d(4, 2, 1)).double()
    graph = trace(model, X)
    (found,) = [each for each in find_layers(model, graph, coupled=True) if each.transposed]
    left = torch.tensor([1, 0, 1, 1, 0, 0]).bool()
    mask = found.mask_of(left)
    assert torch.equal(found.inputs_of(mask), left) and mask.shape == layer.weight.shape[:2]
    kernels = found.kernels(layer.weight.detach())  # [O, I/groups, 2, 2]
    assert torch.equal(kernels[3, 1], layer.weight.detach()[4, 1])
    counted = Footprint(graph).size({"1": mask})
    with torch.no_grad():
        layer.weight[~left] = 0
    assert counted.macs == Footprint(trace(model, X)).size().macs


def test_constants_before_a_transposed_convolution() -> None:
    """If this fails, compact puts what a dead channel adds to the places of a block into one bias,
    though it is another number at each."""
    for stride, even in ((2, False), (1, True), (2, True)):
        first, up = nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 4, stride, stride=stride)
        model = nn.Sequential(first, nn.ReLU(), up, nn.Conv2d(4, 2, 1)).double().eval()
        with torch.no_grad():
            first.weight[2], first.bias[2] = 0, 0.7
            if even:
                up.weight[2] = up.weight[2].mean((1, 2), keepdim=True)
            expected, smaller = model(X), kp.compact(model, X)
            assert relative(smaller(X), expected) < 1e-12
        assert smaller[0].out_channels == (5 if even else 6)


# ------------------------------------------------------------ discrimination-aware


@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_discrimination_aware(name: str) -> None:
    """If this fails, DCP cannot choose the channels of sums, chooses others in each layer, keeps
    another number than asked for, or its dry run counts wrong."""
    model = network(name)
    dcp = kp.DiscriminationAware(
        model, X, [(X, LABELS)], coupled=True, channels_per_step=16, select_epochs=1
    )
    counted = dcp.plan(ratio=0.5)
    plan = dcp.prune(ratio=0.5)
    assert not plan.notes
    if name != "densenet":  # one that random channels of a concatenation need not have
        assert counted.macs_kept == plan.macs_kept
    for coupled in dcp.coupled.values():
        kept = [
            set(coupled.places[layer.name][plan.masks[layer.name].any(0).cpu().numpy()].tolist())
            for layer in coupled.layers
            if layer.groups == 1 and not layer.transposed
        ]
        if name != "densenet":
            assert all(own == kept[0] for own in kept)
    compacted(dcp.finalize().eval(), plan)


def joint_loss(
    model: nn.Module, teacher: nn.Module, layers: list[Layer], loss: Loss
) -> torch.Tensor:
    """By hand: the mean of the members' errors in parts of their sizes, and the classification."""
    outputs: list[torch.Tensor] = []
    for network in (teacher, model):
        for layer in layers:
            network.get_submodule(layer.name).register_forward_hook(
                lambda _module, _inputs, output: outputs.append(output.clone())
            )
    teacher(X)
    scores = model(X)
    wanted, found = outputs[: len(layers)], outputs[len(layers) :]
    sizes = torch.stack([output.square().mean() for output in wanted]).detach()
    errors = [functional.mse_loss(a, b.detach()) for a, b in zip(found, wanted, strict=True)]
    return (torch.stack(errors) / sizes).mean() * sizes.mean() + loss(scores, LABELS)


def test_takes_the_channel_with_the_largest_gradients() -> None:
    """If this fails, the joint choice follows another loss than the mean over the layers that read
    a channel, or scores that no layer's scale is taken out of."""
    model = lived_in(two_blocks())
    dcp = kp.DiscriminationAware(
        model, X, [(X, LABELS)], coupled=True, losses=0, stage_epochs=1, stage_learning_rate=0.0,
        select_epochs=0, weight_decay=0.0, momentum=0.0,
    )  # fmt: skip
    coupled = next(each for each in dcp.coupled.values() if len(each.layers) > 1)
    (objective,) = dcp.objectives
    twin, teacher = copy.deepcopy(model).eval(), copy.deepcopy(objective.teacher)
    with torch.no_grad():
        for layer in coupled.layers:
            twin.get_submodule(layer.name).weight.zero_()
    loss = joint_loss(twin, teacher, coupled.layers, functional.cross_entropy)
    loss.backward()
    total = np.zeros(len(coupled.pools))
    for layer in coupled.layers:
        gradient = twin.get_submodule(layer.name).weight.grad
        norms = gradient.reshape(*gradient.shape[:2], -1).norm(dim=2).sum(0).numpy()
        total += (norms / norms.mean())[np.argsort(coupled.places[layer.name])]
    found = Greedy(None, 2, 0, {"lr": 0.1}).choose_among(objective, CoupledChannels(coupled), 2)
    assert found.losses[0] == pytest.approx(float(loss.detach()), rel=1e-10)
    first = coupled.layers[0]
    chosen = coupled.places[first.name][found.masks[first.name].any(0).numpy()]
    assert set(chosen.tolist()) == set(np.argsort(-total)[:2].tolist())


def test_adaptive_keeps_one_of_each() -> None:
    """If this fails, DCP-Adapt leaves a map of a concatenation without a channel, which cuts off
    the layers that write it."""
    model = lived_in(DenseNet(7, 4, num_classes=5, in_channels=3))
    dcp = kp.DiscriminationAware(
        model, X, [(X, LABELS)], coupled=True, discrimination=0.0, select_epochs=0
    )
    plan = dcp.prune(adaptive=1e9)  # one step each
    for coupled in dcp.coupled.values():
        taken = np.zeros(len(coupled.pools), bool)
        for layer in coupled.layers:
            own = coupled.places[layer.name][plan.masks[layer.name].any(0).numpy()]
            taken[own[own >= 0]] = True
        assert set(coupled.pools[taken].tolist()) == set(coupled.pools.tolist())
    compacted(dcp.finalize().eval(), plan)


def test_frozen_readers_keep_their_inputs() -> None:
    """If this fails, DCP takes inputs from a layer that the user has frozen, or trains it."""
    model = lived_in(build("resnet"))
    model.layer2[0].downsample[0].weight.requires_grad_(False)
    dcp = kp.DiscriminationAware(model, X, [(X, LABELS)], coupled=True, channels_per_step=16)
    plan = dcp.prune(ratio=0.5)
    assert "layer1.0.conv1" not in plan.masks and "fc" in plan.masks
    assert compacted(dcp.finalize().eval(), plan).layer2[0].downsample[0].in_channels == 8


def test_misuse() -> None:
    """If this fails, coupled connections are taken for something, or masks of a transposed
    convolution are accepted in the order of an ordinary one."""
    model = lived_in(build("resnet"))
    with pytest.raises(Error, match="coupled=True: only with granularity='channel'"):
        kp.DiscriminationAware(model, X, [(X, LABELS)], granularity="kernel", coupled=True)
    with pytest.raises(Error, match="level='channel'"):
        kp.train.PruneOptions(method="l1", coupled=True)
    with pytest.raises(Error, match="does not look at coupled"):
        kp.train.PruneOptions(method="dkp", coupled=True)
    with pytest.raises(ShapeError, match="'up'"):
        kp.prune.apply_masks(TransposedUNet(), {"up": torch.ones(8, 12, dtype=torch.bool)})
