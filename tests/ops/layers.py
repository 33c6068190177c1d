"""Pruned convolutions and what the tests of the operators ask of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernelprune.ops import SparseConv2d

# Arguments of nn.Conv2d(12, 24, ...), and the side of its input: kernels, strides, padding and
# dilation that take different ways through the engine and through the gradient for the input.
CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "3x3": ({"kernel_size": 3, "padding": 1}, (16, 16)),
    "3x3 uneven": ({"kernel_size": 3, "padding": 1}, (7, 9)),
    "3x3 no padding": ({"kernel_size": 3}, (8, 10)),
    "3x3 small": ({"kernel_size": 3, "padding": 1}, (2, 2)),
    "3x3 one pixel": ({"kernel_size": 3, "padding": 1}, (1, 1)),
    "3x3 stride 2": ({"kernel_size": 3, "padding": 1, "stride": 2}, (16, 16)),
    "3x3 stride 2 odd": ({"kernel_size": 3, "padding": 1, "stride": 2}, (9, 15)),
    "3x3 rows that no tap meets": ({"kernel_size": 3, "stride": 2}, (10, 8)),
    "3x3 stride 3": ({"kernel_size": 3, "stride": 3}, (13, 14)),
    "3x3 dilated": ({"kernel_size": 3, "padding": 2, "dilation": 2}, (11, 11)),
    "3x3 dilated stride 2": ({"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2}, (9, 9)),
    "1x1": ({"kernel_size": 1}, (8, 8)),
    "1x1 stride 2": ({"kernel_size": 1, "stride": 2}, (8, 9)),
    "1x3": ({"kernel_size": (1, 3), "padding": (0, 1)}, (6, 16)),
    "5x5 stride 2": ({"kernel_size": 5, "padding": 2, "stride": 2}, (12, 12)),
    "7x7 stride 2": ({"kernel_size": 7, "padding": 3, "stride": 2}, (14, 14)),
    "two strides": ({"kernel_size": 3, "padding": 1, "stride": (1, 2)}, (8, 12)),
    "same, even": ({"kernel_size": 4, "padding": "same"}, (9, 9)),
    "groups": ({"kernel_size": 3, "padding": 1, "groups": 4}, (8, 8)),
    "depthwise": ({"kernel_size": 3, "padding": 1, "groups": 12}, (8, 8)),
    "depthwise stride 2": ({"kernel_size": 3, "padding": 1, "groups": 12, "stride": 2}, (8, 8)),
}


def pruned(density: float = 0.3, seed: int = 0, **options: Any) -> nn.Conv2d:
    """A convolution of 12 to 24 channels with about this share of its connections, whole numbers
    as weights, and output channel 3 without any."""
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(12, 24, **options)
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-4, 5, conv.weight.shape, generator=generator))
        conv.weight.mul_(
            torch.rand(conv.weight.shape[:2], generator=generator)[..., None, None] < density
        )
        conv.weight[3] = 0
        assert conv.bias is not None
        conv.bias.copy_(torch.randint(-4, 5, conv.bias.shape, generator=generator))
    return conv


def whole(*shape: int, seed: int = 1) -> torch.Tensor:
    """Small whole numbers: every order of sums gives the same result."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).float()


def case(name: str, batch: int = 3, **more: Any) -> tuple[nn.Conv2d, SparseConv2d, torch.Tensor]:
    """The dense layer, the same sparse, and an input."""
    options, side = CASES[name]
    conv = pruned(**{**options, **more})
    return conv, SparseConv2d.from_dense(conv), whole(batch, 12, *side)


def arguments(layer: SparseConv2d, x: torch.Tensor) -> tuple[Any, ...]:
    """For torch.ops.kernelprune.conv2d."""
    return (
        x, layer.weight, layer.row_ptr, layer.col, layer.bias, layer.in_channels,
        layer.stride, layer._borders, layer.dilation,
    )  # fmt: skip
