"""State dicts of pruned models load into fresh models."""

from __future__ import annotations

import copy

import pytest
import torch
from models.small_zoo import build, numbers
from prune.networks import lived_in
from prune.test_coupled import TransposedUNet
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import kernelprune as kp
from kernelprune import Error

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Separable(nn.Module):
    """A depthwise layer that makes two channels of each, a grouped one, a batch norm without scales
    and a linear layer on a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False)
        self.grouped = nn.Conv2d(16, 12, 3, groups=4)
        self.classifier = nn.Linear(12 * 7 * 7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.norm(self.stem(x)).relu()).relu()
        x = nn.functional.max_pool2d(self.grouped(x).relu(), 2)
        return self.classifier(x.flatten(1))


FRESH = {
    "efficientnet": lambda: build("efficientnet"),
    "resnet": lambda: build("resnet"),
    "shufflenet": lambda: build("shufflenet"),
    "separable": Separable,
    "transposed": lambda: TransposedUNet(4),
}


def pruned(name: str) -> nn.Module:
    model = FRESH[name]().eval()
    model = model if name == "separable" else lived_in(model).float()
    kp.prune_channels(model, X, ratio=0.5, coupled=True)
    return model


def same(found: nn.Module, expected: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(numbers(found.eval()(X)), numbers(expected.eval()(X)))


@pytest.mark.parametrize("name", FRESH)
def test_compact_models(name: str) -> None:
    """If this fails, a compact model that was saved cannot be loaded, computes something else then,
    or says other sizes than its weights have."""
    smaller = kp.compact(pruned(name), X)
    fresh = FRESH[name]()
    before = copy.deepcopy(fresh.state_dict())
    found = kp.load_pruned(fresh, smaller.state_dict())
    assert same(found, smaller) and str(found) == str(smaller)
    assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())
    numbers(found.train()(X)).sum().backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in found.parameters())


def test_a_bias_that_compact_made() -> None:
    """If this fails, a layer loses the bias that holds the constants of removed channels."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=False), nn.ReLU()
    )
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0.7
    smaller = kp.compact(model, X)
    assert smaller[2].bias is not None
    assert same(kp.load_pruned(copy.deepcopy(model), smaller.state_dict()), smaller)


def test_sparse_models() -> None:
    """If this fails, a model with SparseConv2d layers cannot be loaded, or only one that was not
    made compact before."""
    model = lived_in(build("resnet")).float()
    kp.prune_connections(model, density=0.3, x=X)
    sparse = kp.sparsify(copy.deepcopy(model))
    found = kp.load_pruned(build("resnet"), sparse.state_dict())
    assert same(found, sparse) and str(found) == str(sparse)
    smaller = kp.compact(pruned("resnet"), X)
    kp.prune_connections(smaller, density=0.4, x=X)
    sparse = kp.sparsify(smaller)
    with pytest.raises(Error, match="how many channels layer .* reads: say x="):
        kp.load_pruned(build("resnet"), sparse.state_dict())
    found = kp.load_pruned(build("resnet"), sparse.state_dict(), X)
    assert same(found, sparse) and str(found) == str(sparse)


def test_masks() -> None:
    """If this fails, a model that is being fine-tuned loads without its masks, so that what was
    dropped comes back, or one that is compact too does not load."""
    smaller = kp.compact(pruned("resnet"), X)
    masks = kp.prune_connections(smaller, density=0.4, x=X, hold=True).masks
    found = kp.load_pruned(build("resnet"), smaller.state_dict())
    held = kp.prune.masks_of(found)
    assert all(torch.equal(held[name], mask) for name, mask in masks.items())
    assert same(found, smaller)
    assert same(kp.prune.finalize_masks(found), smaller)


@pytest.mark.parametrize("wrapper", ["data parallel", "average", "compiled"])
def test_states_of_wrapped_models(wrapper: str) -> None:
    """If this fails, who trained in several processes, compiled the model or kept a moving average
    of it cannot load what was saved."""
    smaller = kp.compact(pruned("resnet"), X)
    if wrapper == "average":
        average = AveragedModel(smaller, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        average.update_parameters(smaller)
        wrapped: nn.Module = average
    elif wrapper == "compiled":
        wrapped = torch.compile(smaller, backend="eager")
    else:
        wrapped = nn.DataParallel(smaller)  # as DistributedDataParallel, which wants processes
    state = wrapped.state_dict()
    assert "fc.weight" not in state
    assert same(kp.load_pruned(build("resnet"), state, X), smaller)
    with pytest.raises(Error, match="prune"):
        kp.load_pruned(wrapped if wrapper != "average" else nn.DataParallel(smaller), state)


def test_a_model_with_a_child_of_that_name() -> None:
    """If this fails, a model that calls its own layer `module` loses the name."""
    model = nn.Module()
    model.module = nn.Conv2d(3, 2, 1)
    model.forward = model.module.forward
    found = kp.load_pruned(model, model.state_dict())
    assert torch.equal(found.module.weight, model.module.weight)


def test_states_of_other_models() -> None:
    """If this fails, weights of another network are loaded, or what is wrong with them is a
    traceback from torch."""
    state = dict(kp.compact(pruned("resnet"), X).state_dict())
    fresh = build("resnet")
    cases = {
        "has no tensor 'fc.bias'": {k: v for k, v in state.items() if k != "fc.bias"},
        "also has a tensor 'more'": {**state, "more": torch.zeros(1)},
        "'conv1.weight' is .4, 3, 5, 5., here .8, 3, 3, 3.": {
            **state, "conv1.weight": torch.zeros(4, 3, 5, 5),
        },
        "'fc.weight' is .9, 6., here .5, 12.": {**state, "fc.weight": torch.zeros(9, 6)},
        "'bn1.bias' is .0.": {**state, "bn1.bias": torch.zeros(0)},
        "not a state dict": [1],
    }  # fmt: skip
    for message, given in cases.items():
        with pytest.raises(Error, match=message):
            kp.load_pruned(fresh, given)
    wrong = {**state, "fc.weight": torch.zeros(5, 7)}  # each by itself is fine
    kp.load_pruned(fresh, wrong)
    with pytest.raises(Error, match="cannot compute the example input"):
        kp.load_pruned(fresh, wrong, X)
    model = build("resnet")
    kp.SynapticStrength(model, X)
    with pytest.raises(Error, match="construct SynapticStrength"):
        kp.load_pruned(fresh, model.state_dict())
