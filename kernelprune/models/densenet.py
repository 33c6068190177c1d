"""DenseNet for small images (Huang et al. 2017): three dense blocks, pre-activation batch norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.models.layers import conv, initialise, scaled
from kernelprune.models.registry import register


class DenseLayer(nn.Module):
    """Appends ``growth`` channels: ``[N, C, H, W] -> [N, C + growth, H, W]``."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = conv(in_channels, growth, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


class Transition(nn.Sequential):
    """Batch norm, ReLU, 1x1 convolution, 2x2 average pool."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = conv(channels, channels, 1)
        self.pool = nn.AvgPool2d(2)


class DenseNet(nn.Module):
    """Without bottlenecks and compression: ``[N, C, H, W] -> [N, num_classes]``."""

    def __init__(
        self, depth: int, growth: int, *, num_classes: int, in_channels: int, width: float = 1.0
    ):
        super().__init__()
        growth = scaled(growth, width)
        per_block, rest = divmod(depth - 4, 3)
        if rest or per_block < 1:
            raise Error(f"depth={depth}: must be 3 n + 4")
        channels = scaled(16, width)
        self.stem = conv(in_channels, channels, 3)
        self.blocks = nn.Sequential()
        for block in range(3):
            for index in range(per_block):
                self.blocks.add_module(f"{block + 1}_{index}", DenseLayer(channels, growth))
                channels += growth
            if block < 2:
                self.blocks.add_module(f"transition{block + 1}", Transition(channels))
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.blocks(self.stem(x))))
        return self.classifier(self.pool(x).flatten(1))


@register("densenet40")
def densenet40(*, depth: int = 40, growth: int = 12, **options: Any) -> DenseNet:
    """CIFAR form, three blocks of twelve layers with growth 12: 1.0 M parameters."""
    return DenseNet(depth, growth, **options)
