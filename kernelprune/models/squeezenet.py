"""SqueezeNet (Iandola et al. 2016) in its version 1.1: Fire modules, no batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import initialise, scaled, stem_stride
from kernelprune.models.registry import register

POOL = ()

# Channels of the 1x1 squeeze and of the two expansions: table 1 of the paper, with the pools where
# the authors' version 1.1 has them.
V1_1: tuple[tuple[int, ...], ...] = (
    (16, 64, 64),
    (16, 64, 64),
    POOL,
    (32, 128, 128),
    (32, 128, 128),
    POOL,
    (48, 192, 192),
    (48, 192, 192),
    (64, 256, 256),
    (64, 256, 256),
)


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 side by side, concatenated (figure 1)."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]):
        super().__init__()
        squeezed, ones, threes = channels
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, ones, 1)
        self.expand3 = nn.Conv2d(squeezed, threes, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.out_channels = ones + threes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.expand1(x)), self.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    """Fire modules and pools, as ``layout`` says; the last convolution has a channel per class:
    ``[N, C, H, W] -> [N, num_classes]``.

    ``stem="imagenet"`` shrinks the image to a quarter before the first module; ``stem="cifar"`` is
    one 3x3 convolution of stride 1, for images of about 32x32.
    """

    def __init__(
        self,
        layout: Sequence[tuple[int, ...]],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
        dropout: float = 0.5,
    ):
        super().__init__()
        channels = scaled(64, width)
        # The published stem has no padding.
        stride = stem_stride(stem)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, 3, stride, padding=0 if stem == "imagenet" else 1),
            nn.ReLU(inplace=True),
        ]
        if stem == "imagenet":
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for entry in layout:
            if entry == POOL:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            module = Fire(channels, tuple(scaled(number, width) for number in entry))
            layers.append(module)
            channels = module.out_channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(channels, num_classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x)).flatten(1)


@register("squeezenet1_1")
def squeezenet1_1(**options: Any) -> SqueezeNet:
    """Eight Fire modules: 1.2 M parameters at 1000 classes."""
    return SqueezeNet(V1_1, **options)
