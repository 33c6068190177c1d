"""The models of the zoo at the smallest images that they take, and at odd sizes: there maps shrink
to a pixel and kernels are larger than what they see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.small_zoo import (
    BUILDERS,
    build,
    captured,
    deep_ones_extensive,
    numbers,
    small_options,
)
from prune.networks import lived_in, zoo
from torch import nn

import kernelprune as kp
from kernelprune import models


def images(batch: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(batch, 3, height, width, generator=generator)


def smallest_side(model: nn.Module) -> int:
    for side in range(1, 33):
        try:
            model(images(1, side, side).double())
        except RuntimeError:
            continue
        return side
    raise AssertionError("takes no image of up to 32x32")


def check(model: nn.Module, height: int, width: int, path: Path) -> None:
    """The engine, by itself and with one image after the other, against torch in float64."""
    x = images(3, height, width)
    kp.export(model.float(), x[:1], path)
    expected = numbers(model.double()(x.double()))
    for options in ({}, {"lanes": 1}, {"lanes": 1, "precision": "strict"}):
        found = numbers(kp.Engine(path, threads=1, **options).run(x)).double()
        assert float((found - expected).norm() / expected.norm()) <= 1e-5, options


@pytest.mark.parametrize("name", deep_ones_extensive(captured(models.names())))
@torch.no_grad()
def test_smallest_images(name: str, tmp_path: Path) -> None:
    """If this fails, this model computes something else where its maps are smallest."""
    model = zoo(name, num_classes=5, width=0.125, **small_options(name))
    side = smallest_side(model)
    check(model, side, side, tmp_path / "model.safetensors")


@pytest.mark.parametrize("size", [(9, 13)], ids=str)
@pytest.mark.parametrize("name", captured(BUILDERS))
@torch.no_grad()
def test_odd_sizes(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """If this fails, networks of this style are wrong where their maps do not divide evenly."""
    check(lived_in(build(name)), *size, tmp_path / "model.safetensors")
