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


@pytest.mark.parametrize("name", LEFT)
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
    parts = outputs.values() if isinstance(outputs, dict) else [outputs]
    found = torch.cat([torch.from_numpy(part).flatten(1) for part in parts], 1)
    assert relative(found, expected) < 1e-5
