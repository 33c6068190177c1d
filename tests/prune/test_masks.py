"""Masks hold zeros through training and leave no trace."""

from __future__ import annotations

import pytest
import torch
from prune.networks import Chain, lived_in, run, train
from torch import nn

from kernelprune.errors import Error, FormatError, ShapeError
from kernelprune.prune import (
    apply_masks,
    attach_masks,
    finalize_masks,
    load_masks,
    masks_of,
    save_masks,
)

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(4) % 5


def chain() -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain())


def some_masks() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "conv2": torch.rand(6, 6, generator=generator) > 0.6,
        "conv3": torch.rand(8, 6, generator=generator) > 0.6,
    }


def test_held_zeros_survive_training():
    """Momentum gathered before pruning, or weight decay, moves dropped weights."""
    model, masks = chain(), some_masks()
    keys = list(model.state_dict())
    all_kept = {name: torch.ones_like(mask) for name, mask in masks.items()}
    attach_masks(model, all_kept)
    optimiser = train(model, model.parameters(), X, LABELS, 3)
    attach_masks(model, masks)
    run(model, optimiser, X, LABELS, 5)
    before = model(X)
    assert finalize_masks(model) is model
    assert torch.equal(model(X), before)
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert torch.equal(weight.ne(0).flatten(2).any(2), mask)
        assert not torch.signbit(weight[~mask]).any()
    assert list(model.state_dict()) == keys
    assert type(model.conv2) is nn.Conv2d
    assert not masks_of(model)


def test_applied_zeros_are_not_held():
    """apply_masks holds on to the model after all, or does not zero."""
    model, masks = chain(), some_masks()
    apply_masks(model, masks)
    assert torch.equal(model.conv2.weight.ne(0).flatten(2).any(2), masks["conv2"])
    train(model, model.parameters(), X, LABELS, 2)
    assert model.conv2.weight.ne(0).all()


def test_masks_travel_in_a_file(tmp_path):
    """Saved masks come back changed, or a half-written file is left behind."""
    model, masks = chain(), some_masks()
    attach_masks(model, masks)
    save_masks(masks_of(model), tmp_path / "masks.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["masks.safetensors"]
    loaded = load_masks(tmp_path / "masks.safetensors")
    assert set(loaded) == set(masks)
    for name, mask in masks.items():
        assert loaded[name].dtype == torch.bool and torch.equal(loaded[name], mask)


def test_masks_travel_in_the_state_dict():
    """A resumed fine-tuning forgets which connections are gone."""
    model, masks = chain(), some_masks()
    attach_masks(model, masks)
    state = model.state_dict()
    again = chain()
    attach_masks(again, {name: torch.ones_like(mask) for name, mask in masks.items()})
    again.load_state_dict(state)
    for name, mask in masks_of(again).items():
        assert torch.equal(mask, masks[name])
    assert torch.equal(again(X), model(X))


def test_files_that_are_no_masks(tmp_path):
    """Another safetensors file, or a damaged one, is taken for masks or ends in a traceback."""
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"conv2": torch.ones(2, 2)}, other)
    with pytest.raises(FormatError, match="other.safetensors: not a file of masks"):
        load_masks(other)
    save_file({"conv2": torch.ones(2, 2)}, other, {"format": "kernelprune-masks"})
    with pytest.raises(FormatError, match="must be u8"):
        load_masks(other)
    other.write_bytes(other.read_bytes()[:20])
    with pytest.raises(FormatError, match="other.safetensors"):
        load_masks(other)
    with pytest.raises(Error, match="missing.safetensors: no such file"):
        load_masks(tmp_path / "missing.safetensors")


def test_masks_that_do_not_fit():
    """A mask for another model is applied, or fails deep inside torch."""
    with pytest.raises(Error, match="'conv7': the model has no such layer"):
        apply_masks(chain(), {"conv7": torch.ones(6, 6, dtype=torch.bool)})
    with pytest.raises(Error, match="'relu': the model has no such layer"):
        attach_masks(chain(), {"relu": torch.ones(6, 6, dtype=torch.bool)})
    with pytest.raises(ShapeError, match=r"'conv2' has shape \[6, 5\], the layer \[6, 6\]"):
        attach_masks(chain(), {"conv2": torch.ones(6, 5, dtype=torch.bool)})
