"""Copies and moving averages of a model that is being pruned are pruned with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from prune.networks import Chain
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import kernelprune as kp
from kernelprune import prune
from kernelprune.errors import Error
from kernelprune.prune.weights import masks_in
from kernelprune.train.checkpoint import Checkpoint, load_weights

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def chain() -> Any:
    torch.manual_seed(1)
    return Chain()


@pytest.mark.parametrize("average", ["ema", "swa", "by hand"])
@pytest.mark.parametrize("method", ["strengths", "masks"])
def test_averages_follow_the_masks(average: str, method: str) -> None:
    """If this fails, a moving average of a model that is being pruned is never pruned."""
    model = chain()
    pruner = kp.SynapticStrength(model, X) if method == "strengths" else None
    if pruner is None:
        kp.prune_connections(model, density=1.0, hold=True)
    function = {"ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.999)}, "swa": {}}.get(average)
    follower: Any = copy.deepcopy(model)
    if function is not None:
        follower = AveragedModel(model, use_buffers=True, **function)

    def update() -> None:
        if function is not None:
            follower.update_parameters(model)
            return
        for own, new in zip(
            follower.state_dict().values(), model.state_dict().values(), strict=True
        ):
            own.copy_(0.999 * own + 0.001 * new)

    for _ in range(3):
        update()
    kept = prune.masks_of(getattr(follower, "module", follower))
    assert all(bool(mask.all()) for mask in kept.values())  # rounding drops nothing
    masks = (pruner.prune if pruner else lambda density: kp.prune_connections(
        model, density=density, hold=True
    ))(density=0.3).masks  # fmt: skip
    for _ in range(3):
        update()
    found = getattr(follower, "module", follower)
    assert all(torch.equal(mask, masks[name]) for name, mask in prune.masks_of(found).items())
    before = found.eval()(X)
    plain = prune.finalize_masks(found)
    assert torch.allclose(plain(X), before, atol=1e-6)
    for name, mask in masks.items():
        layer = plain.get_submodule(name)
        assert type(layer) is nn.Conv2d
        assert torch.equal(layer.weight.flatten(2).ne(0).any(2), mask)


def test_copies_with_strengths_become_plain() -> None:
    """If this fails, a copy of a model under Synaptic Strength cannot be pruned or exported."""
    model = chain()
    keys = list(model.state_dict())
    pruner = kp.SynapticStrength(model, X, scale="auto")
    early = copy.deepcopy(model)
    masks = pruner.prune(density=0.3).masks
    prune.apply_masks(early, masks)
    twin = copy.deepcopy(pruner)
    late = prune.finalize_masks(copy.deepcopy(model))
    for plain in (prune.finalize_masks(early), late, twin.finalize(), pruner.finalize()):
        assert list(plain.state_dict()) == keys
        assert all(p.requires_grad for p in plain.parameters())
        assert not any(module._forward_pre_hooks for module in plain.modules())
        for name, mask in masks.items():
            weight = plain.get_submodule(name).weight
            assert torch.equal(weight.flatten(2).ne(0).any(2), mask)
        assert torch.equal(plain.eval()(X), late.eval()(X))
    with pytest.raises(Error, match="is finalized"):
        pruner.penalty()


def test_masks_of_earlier_versions_load() -> None:
    """If this fails, a checkpoint whose masks are truth values cannot be gone on with."""
    model = chain()
    kp.SynapticStrength(model, X).prune(density=0.3)
    state = {}
    for name, value in model.state_dict().items():
        old = name.removesuffix("dropped") + "mask"
        state[old if name.endswith("dropped") else name] = (
            value.eq(0) if name.endswith("dropped") else value
        )
    masks = prune.masks_of(model)
    for load in (
        lambda fresh: fresh.load_state_dict(state),
        lambda fresh: load_weights(fresh, Checkpoint(state, {}, {"step": 1})),
    ):
        again = chain()
        kp.SynapticStrength(again, X)
        load(again)
        assert all(torch.equal(mask, masks[name]) for name, mask in prune.masks_of(again).items())
    assert all(torch.equal(mask, masks[name]) for name, mask in masks_in(state).items())
