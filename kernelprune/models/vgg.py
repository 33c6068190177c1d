"""VGG for small images (Simonyan and Zisserman 2015, with batch norm and one linear layer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import conv, initialise, scaled
from kernelprune.models.registry import register

POOL = 0

VGG16 = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL) + (512, 512, 512, POOL) * 2
VGG19 = (64, 64, POOL, 128, 128, POOL) + (256,) * 4 + (POOL,) + ((512,) * 4 + (POOL,)) * 2
SMALL = (32, 32, POOL, 64, 64, POOL, 128, 128)


class VGG(nn.Module):
    """3x3 convolution, batch norm and ReLU per entry of ``layout``; ``POOL`` is a 2x2 max pool.

    Pools round up, so that a 28x28 image goes 28, 14, 7, 4, 2, 1 (and 32x32 goes 32, 16, 8, 4,
    2, 1 as always); whatever map is left is averaged, so any size from 17x17 up works for five
    pools, and smaller ones too. ``[N, C, H, W] -> [N, num_classes]``.
    """

    def __init__(
        self, layout: Sequence[int], *, num_classes: int, in_channels: int, width: float = 1.0
    ):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for entry in layout:
            if entry == POOL:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            out_channels = scaled(entry, width)
            layers += [
                conv(channels, out_channels, 3),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


@register("vgg16")
def vgg16(**options: Any) -> VGG:
    """Thirteen convolutions, five pools: 14.7 M parameters at width 1."""
    return VGG(VGG16, **options)


@register("vgg19")
def vgg19(**options: Any) -> VGG:
    """Sixteen convolutions, five pools: 20.0 M parameters at width 1."""
    return VGG(VGG19, **options)


@register("vgg_small")
def vgg_small(**options: Any) -> VGG:
    """Six convolutions of 32-32-64-64-128-128 channels, two pools: trains in minutes on a CPU."""
    return VGG(SMALL, **options)
