"""Whole networks, from torch to the engine: the same scores, whatever is pruned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kernelprune as kp

# name, options, input size, batches, and the density that is tested by default
MODELS = [
    ("vgg16", {}, 32, (2, 17), 0.1),
    ("resnet20", {}, 32, (1, 18), 1.0),
    ("resnet18", {"stem": "cifar"}, 32, (1, 16), 0.04),
    ("resnet18", {}, 64, (3,), 0.3),
    ("resnet50", {}, 64, (1, 16), 0.1),
]
# Every kernel is compared at every density in test_kernels; whole networks at one more density show
# how the parts go together there, which another network shows by default.
CASES = [
    pytest.param(*model, density, marks=() if density == default else pytest.mark.extensive)
    for *model, default in MODELS
    for density in (1.0, 0.3, 0.1, 0.04)
]


def pruned_at_random(name: str, options: dict, density: float, seed: int = 0) -> nn.Module:
    """A model with lively batch norms, of whose convolutions (but the first) `density` is kept."""
    torch.manual_seed(seed)
    model = kp.models.create(name, num_classes=10, in_channels=3, **options).eval()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.5, 1.5)
                m.bias.uniform_(-0.3, 0.3)
                m.running_mean.uniform_(-0.2, 0.2)
                m.running_var.uniform_(0.5, 1.5)
        for conv in convolutions[1:]:
            keep = torch.rand(conv.weight.shape[:2]) < density
            conv.weight.mul_(keep[:, :, None, None] / max(density, 0.05) ** 0.5)
    return model


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("name", "options", "size", "batches", "density"), CASES)
def test_engine_agrees_with_torch_in_float64(
    tmp_path: Path, name: str, options: dict, size: int, batches: tuple[int, ...], density: float
) -> None:
    """Folding, fusing, removing dead channels and every kernel together must only round."""
    model = pruned_at_random(name, options, density)
    path = tmp_path / "model.safetensors"
    x = torch.randn(max(batches), 3, size, size)
    kp.export(model, x[:2], path)
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    for batch in batches:
        got = kp.Engine(path).run(x[:batch]).numpy()
        assert relative_error(got, expected[:batch]) <= 1e-5


@pytest.mark.parametrize("isa", kp.runtime.available_isas())
def test_every_isa_runs_whole_models(tmp_path: Path, isa: str) -> None:
    """Sizes that real networks bring, on the kernels that this machine would not choose itself."""
    model = pruned_at_random("resnet20", {}, 0.1)
    path = tmp_path / "model.safetensors"
    x = torch.randn(9, 3, 32, 32)
    kp.export(model, x[:2], path)
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    for batch in (1, 9):
        engine = kp.Engine(path, isa=isa, threads=2)
        assert relative_error(engine.run(x[:batch]).numpy(), expected[:batch]) <= 1e-5


def test_model_file_is_little_more_than_its_weights(tmp_path: Path) -> None:
    """The index must not eat what pruning saves: at most 11 % beside the 3x3 weights."""
    model = pruned_at_random("vgg16", {}, 0.1)
    path = tmp_path / "model.safetensors"
    graph = kp.export(model, torch.randn(2, 3, 32, 32), path)
    weights = sum(node.kept_connections() * 9 * 4 for node in graph.nodes if node.op == "conv2d")
    assert path.stat().st_size <= 1.11 * weights
