"""What nobody asked for does not happen: depthwise, frozen and tied layers, averages, failures."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from prune.networks import Chain
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune import prune
from kernelprune.errors import Error
from kernelprune.prune.layers import find_layers
from kernelprune.prune.scores import Gradients

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(8) % 5
LOADER = [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])]
NAN = float("nan")


def chain(kind: type[nn.Module] = Chain, **options: Any) -> Any:
    torch.manual_seed(1)
    return kind(**options)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in now)


# ---------------------------------------------------------------- which layers


def test_depthwise_layers_are_left_alone() -> None:
    """If this fails, a MobileNet loses channels for a hundredth of its connections."""
    plan = kp.prune_connections(chain(groups=6), density=0.5, x=X[:1])
    row = next(row for row in plan.rows if row.name == "conv2")
    assert not row.prunable and row.connections == row.kept == 6
    assert row.macs == row.macs_kept == 6 * 9 * 4 * 4
    assert plan.connections == 18 + 6 + 48 + 160 and set(plan.masks) == {"conv3"}
    assert set(kp.SynapticStrength(chain(groups=6), X[:1]).masks()) == {"conv3"}
    found = prune.sensitivity(chain(groups=6), lambda m: 1.0, densities=(0.5,))
    assert set(found.values) == {"conv3"}
    kernels = {"granularity": "kernel", "discrimination": 0, "channels_per_step": 2}
    dkp = kp.DiscriminationAware(chain(groups=6), X, LOADER, **kernels)
    assert [layer.name for layer in dkp.chosen] == ["conv3"]
    # Unless they are asked for.
    named = {"include": "conv2"}
    assert "conv2" in kp.prune_connections(chain(groups=6), density=0.5, **named).masks
    assert "conv2" in kp.SynapticStrength(chain(groups=6), X[:1], **named).masks()
    dkp = kp.DiscriminationAware(chain(groups=6), X, LOADER, **kernels, **named)
    assert int(dkp.prune(ratio=0.5).masks["conv2"].sum()) == 3


class Tied(Chain):
    def __init__(self):
        super().__init__()
        self.twin = nn.Conv2d(6, 6, 3, padding=1)
        self.twin.weight = self.conv2.weight

    def forward(self, x):
        x = self.twin(self.conv2(self.conv1(x)))
        return self.fc(functional.adaptive_avg_pool2d(self.conv3(x), 2).flatten(1))


def test_tied_layers_cannot_be_included() -> None:
    """If this fails, include= takes in a layer in silence that is then not pruned."""
    for call in (
        lambda: kp.prune_connections(chain(Tied), density=0.5, include="conv2"),
        lambda: kp.SynapticStrength(chain(Tied), X, include="*"),
        lambda: kp.DiscriminationAware(chain(Tied), X, LOADER, include="twin"),
    ):
        with pytest.raises(Error, match="shares its weight with '(twin|conv2)'.* neither can be"):
            call()
    model = chain(Tied)
    assert set(kp.prune_connections(model, density=0.5).masks) == {"conv3"}
    with pytest.raises(Error, match="those that share their weight with another module"):
        kp.prune_connections(chain(Tied), density=0.5, ignore="conv3")
    other = chain()
    other.scale = nn.Linear(1, 1)
    other.scale.weight = other.conv2.weight  # used by something that is no convolution
    assert set(kp.prune_connections(other, density=0.5).masks) == {"conv3"}
    held = chain()
    prune.attach_masks(held, {"conv2": torch.ones(6, 6, dtype=torch.bool)})
    held.scale = nn.Linear(1, 1)
    held.scale.weight = held.conv2.parametrizations.weight.original
    assert set(kp.prune_connections(held, density=0.5).masks) == {"conv3"}


@pytest.mark.parametrize("granularity", ["channel", "kernel"])
def test_frozen_layers_stay_as_they_are(granularity: str) -> None:
    """If this fails, DCP trains or prunes what was frozen, or thaws it."""
    model = chain()
    model.conv2.weight.requires_grad_(False)
    model.bn1.bias.requires_grad_(False)
    before = model.conv2.weight.clone(), model.bn1.bias.clone()
    dcp = kp.DiscriminationAware(
        model, X, LOADER, granularity=granularity, channels_per_step=4, losses=1
    )
    dcp.prune(ratio=0.5)
    assert set(dcp.masks()) == {"conv3"}
    dcp.finalize()
    assert torch.equal(model.conv2.weight, before[0]) and torch.equal(model.bn1.bias, before[1])
    flags = {name: p.requires_grad for name, p in model.named_parameters() if not p.requires_grad}
    assert set(flags) == {"conv2.weight", "bn1.bias"}
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(Error, match="all layers that may go are frozen"):
        prune.prune_channels(
            chain().requires_grad_(False), X, ratio=0.5, criterion="reconstruction", loader=LOADER
        )


def test_wrapped_for_several_processes() -> None:
    """If this fails, a model that DistributedDataParallel has wrapped is pruned behind its back."""
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(chain())
        for call in (
            lambda: kp.SynapticStrength(wrapped, X),
            lambda: kp.prune_connections(wrapped, density=0.5),
        ):
            with pytest.raises(Error, match="of class DistributedDataParallel: prune its .module"):
                call()
    finally:
        dist.destroy_process_group()


def test_where_gradients_are_off() -> None:
    """If this fails, a call inside of no_grad ends in autograd's traceback."""
    model = chain()
    expected = kp.prune_connections(
        copy.deepcopy(model), density=0.5, criterion="taylor", loader=LOADER
    )
    with torch.no_grad():
        found = kp.prune_connections(
            copy.deepcopy(model), density=0.5, criterion="taylor", loader=LOADER
        )
        kp.DiscriminationAware(model, X, LOADER, channels_per_step=4).prune(ratio=0.5)
    assert all(torch.equal(mask, found.masks[name]) for name, mask in expected.masks.items())
    with torch.inference_mode(), pytest.raises(Error, match="outside of torch.inference_mode"):
        kp.prune_connections(chain(), density=0.5)


def test_the_default_scope_leaves_no_layer_behind() -> None:
    """If this fails, a layer with small weights is emptied, and with it the network's output."""
    model = chain()
    with torch.no_grad():
        model.conv3.weight.mul_(1e-3)
    assert kp.prune_connections(copy.deepcopy(model), density=0.25).masks["conv3"].sum() >= 6
    assert kp.prune_connections(model, density=0.25, scope="global").masks["conv3"].sum() == 1


# ---------------------------------------------------------------- data and losses


def turning(after: int, value: float | None = None) -> Any:
    """Cross entropy; after so many calls times ``value``, or with gradients that are NaN."""
    calls = []

    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        right = functional.cross_entropy(scores, labels)
        if len(calls) <= after:
            return right
        return right + (scores * 0).sum().abs().sqrt() if value is None else right * value

    return loss


FAILURES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "NaN in a stage": (lambda: {"loss": turning(3, NAN)}, "the loss became nan"),
    "NaN in a selection": (lambda: {"loss": turning(5, NAN)}, "the selection is nan"),
    "infinite": (lambda: {"loss": turning(7, float("inf"))}, "selection is inf"),
    "NaN gradients in a stage": (lambda: {"loss": turning(0)}, "the loss became nan"),
    "NaN gradients": (lambda: {"loss": turning(4)}, "gradient of the selection is not finite"),
    "labels": (lambda: {"loader": [(X, LABELS + 3)]}, "the loss fails for .*8, 5.* targets .8. i"),
    "kind of labels": (lambda: {"loader": [(X, LABELS.float())]}, "the loss fails for .* float32"),
    "images": (lambda: {"loader": [(X.to(torch.uint8), LABELS)]}, "cannot compute what the loade"),
    "lengths": (lambda: {"loader": [(X, LABELS[:3])]}, "a batch of 8 images and 3 targets"),
    "dictionary": (lambda: {"loader": [{"x": X, "y": LABELS}]}, "must give .* not a dict of x"),
    "generator": (lambda: {"loader": (pair for pair in LOADER)}, "a generator, which can be read"),
    "a list": (lambda: {"loss": lambda a, b: [1.0]}, "the loss gives a float, not one number"),
    "no gradient": (lambda: {"loss": lambda a, b: a.detach().sum()}, "does not depend on the mod"),
    "many numbers": (lambda: {"loss": lambda a, b: a}, r"the loss gives \[.*\] float32, not one"),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("granularity", ["channel", "kernel"])
def test_a_failure_leaves_no_trace(kind: str, granularity: str) -> None:
    """If this fails, a choice that goes wrong leaves NaN, masks or half a training behind."""
    options, message = FAILURES[kind]
    model = chain()
    model.train()
    model.bn2.eval()
    before = state_of(model)
    flags = [p.requires_grad for p in model.parameters()]
    more = {"granularity": granularity, "channels_per_step": 4, "losses": 1, "loader": LOADER}
    with pytest.raises(Error, match=message):
        kp.DiscriminationAware(model, X, **{**more, **options()}).prune(ratio=0.5)
    assert same(model, before)
    assert flags == [p.requires_grad for p in model.parameters()]
    assert model.training and not model.bn2.training and model.conv3.training
    assert not prune.masks_of(model) and all(p.grad is None for p in model.parameters())


def test_a_failed_choice_can_be_made_again() -> None:
    """If this fails, a rate that was too large cannot be corrected, or the hooks stay."""
    model = chain()
    dcp = kp.DiscriminationAware(model, X, LOADER, channels_per_step=4, stage_learning_rate=1e30)
    with pytest.raises(Error, match="lower stage_learning_rate"):
        dcp.prune(ratio=0.5)
    dcp.options = replace(dcp.options, stage_learning_rate=0.01)
    dcp.prune(ratio=0.5)
    again = chain()
    kp.DiscriminationAware(again, X, LOADER, channels_per_step=4).prune(ratio=0.5)
    assert same(model, state_of(again)) and len(dcp.history) == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("call", ["recalibrate", "measure"])
def test_images_that_spoil_statistics(call: str) -> None:
    """If this fails, one NaN image or one wrong batch leaves batch norms or scales damaged."""
    model = chain()
    pruner = kp.SynapticStrength(model, X, scale="measured")
    before = state_of(model)
    for spoilt, message in (
        (torch.full_like(X, NAN), "NaN in the images"),
        (X[:, :2], "cannot compute what the loader gives"),
        ("images", "gives str"),
    ):
        with pytest.raises(Error, match=message):
            if call == "measure":
                pruner.measure([X, spoilt])
            else:
                prune.recalibrate(model, [X, spoilt])
        assert same(model, before)


# ---------------------------------------------------------------- inputs and outputs


class TwoInputs(Chain):
    def forward(self, x, y):
        return super().forward(x) + super().forward(y)


def test_models_of_several_inputs() -> None:
    """If this fails, a model of two inputs cannot be pruned, or is pruned by one of them."""
    pair = (X, X.flip(0) * 2)
    model = chain(TwoInputs)
    with torch.no_grad():
        expected = model.eval()(*pair)
    pruner = kp.SynapticStrength(model, pair, scale="measured")
    assert torch.allclose(model(*pair), expected, rtol=1e-4, atol=1e-5)
    for batch in (pair, [*pair, LABELS], (pair, LABELS)):  # in whatever form it comes
        pruner.measure([batch])
        maps = torch.cat([model.bn1(model.conv1(x)).relu() for x in pair])
        mean_squares = functional.max_pool2d(maps, 2).square().mean((0, 2, 3))
        scales = model.conv2.parametrizations.weight[0].scale
        calls = [functional.max_pool2d(model.bn1(model.conv1(x)).relu(), 2) for x in pair]
        first, second = (part.square().mean((0, 2, 3)) for part in calls)
        assert torch.allclose((first + second) / 2, mean_squares, rtol=1e-5)
        assert torch.allclose(scales.square(), mean_squares, rtol=1e-4)
    pruner.prune(density=0.5)
    pruner.finalize()
    prune.recalibrate(model, [pair])
    loader = [((pair[0][:4], pair[1][:4]), LABELS[:4]), ((pair[0][4:], pair[1][4:]), LABELS[4:])]
    layers = [layer for layer in find_layers(model) if layer.prunable]
    gradients = Gradients(model, layers, loader, 6, functional.cross_entropy)
    found = gradients.of("conv2")
    loss = functional.cross_entropy(model.eval()(pair[0][:6], pair[1][:6]), LABELS[:6])
    expected = torch.autograd.grad(loss, model.conv2.weight)[0]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)
    more = {"granularity": "kernel", "channels_per_step": 2}
    dcp = kp.DiscriminationAware(model, pair, loader, discrimination=0, **more)
    start = dcp.objectives[0](layers[:1], (pair[0] * 2, pair[1]), LABELS)
    assert float(start) == 0  # nothing is dropped yet, in both calls of the layer
    plan = dcp.prune(ratio=0.5)
    assert plan.prunable_kept == 18 + 24


@pytest.mark.parametrize("form", ["dictionary", "tuple", "map"])
def test_other_outputs(form: str) -> None:
    """If this fails, a network that gives no scores ends in a traceback, or cannot be pruned by
    reconstruction, which asks for no scores."""

    class Other(Chain):
        def forward(self, x):
            scores = super().forward(x)
            return {
                "dictionary": {"scores": scores},
                "tuple": (scores, scores * 2),
                "map": scores[..., None, None],
            }[form]

    pick = {"dictionary": lambda y: y["scores"], "tuple": lambda y: y[0], "map": lambda y: y}[form]

    def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(pick(outputs).flatten(1), labels)

    model = chain(Other)
    before = state_of(model)
    with pytest.raises(Error, match="not scores .N, classes., which auxiliary .* losses=0 with a"):
        kp.DiscriminationAware(model, X, LOADER, loss=loss)
    assert same(model, before)
    masks = kp.DiscriminationAware(
        model, X, LOADER, discrimination=0, channels_per_step=4
    ).prune(ratio=0.5).masks  # fmt: skip
    expected = kp.DiscriminationAware(
        chain(), X, LOADER, discrimination=0, channels_per_step=4
    ).prune(ratio=0.5).masks  # fmt: skip
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
    whole = kp.DiscriminationAware(
        chain(Other), X, LOADER, losses=0, loss=loss, channels_per_step=4
    )
    assert whole.prune(ratio=0.5).prunable_density == 0.5


Scores = namedtuple("Scores", ["logits", "aux_logits"])


@pytest.mark.parametrize("named", [True, False])
def test_auxiliary_heads_of_the_model(named: bool) -> None:
    """If this fails, a network with classifiers of its own (as GoogLeNet) cannot be pruned."""

    class WithHead(Chain):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            scores = super().forward(x)
            extra = self.head(self.conv1(x).mean((2, 3)))
            if not self.training:
                return scores
            return Scores(scores, extra) if named else (scores, extra)

    model = chain(WithHead)
    dcp = kp.DiscriminationAware(model, X, LOADER, channels_per_step=4, losses=1)
    if named:
        assert dcp.prune(ratio=0.5).prunable_density == 0.5
        return
    before = state_of(model)
    with pytest.raises(Error, match="in train mode the model gives a tuple without 'logits'"):
        dcp.prune(ratio=0.5)
    assert same(model, before)
