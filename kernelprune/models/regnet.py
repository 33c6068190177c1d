"""RegNetY (Radosavovic et al. 2020): grouped bottlenecks with squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import SqueezeExcitation, initialise, scaled, stem_stride, unit
from kernelprune.models.registry import register

# Channels and blocks of each stage; channels of a group.
Y_400MF = ((48, 1), (104, 3), (208, 6), (440, 6))
Y_400MF_GROUP = 8


class Block(nn.Module):
    """1x1, grouped 3x3 with the stride, squeeze-and-excitation to a quarter of the input's
    channels, 1x1 (the Y block, figure 3 and section 5.3), plus the input or its projection."""

    def __init__(self, in_channels: int, channels: int, group: int, stride: int):
        super().__init__()
        groups = channels // group
        self.layers = nn.Sequential(
            *unit(in_channels, channels, 1, activation=nn.ReLU),
            *unit(channels, channels, 3, stride, groups=groups, activation=nn.ReLU),
            SqueezeExcitation(channels, max(1, round(in_channels / 4))),
            *unit(channels, channels, 1, activation=None),
        )
        self.projection: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.projection = nn.Sequential(
                *unit(in_channels, channels, 1, stride, activation=None)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.projection(x) + self.layers(x))


class RegNet(nn.Module):
    """Stages of blocks, each at half the size: ``[N, C, H, W] -> [N, num_classes]``.

    ``layout``: channels and blocks of each stage; ``group``: channels of a group. ``width`` gives
    whole groups. ``stem="imagenet"`` starts with stride 2, ``"cifar"`` (images of about 32x32) with
    stride 1 and keeps the map in the first stage too.
    """

    def __init__(
        self,
        layout: Sequence[tuple[int, int]],
        group: int,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
    ):
        super().__init__()
        first = stem_stride(stem)
        channels = scaled(32, width)
        layers = unit(in_channels, channels, 3, first, activation=nn.ReLU)
        for stage, (entry, blocks) in enumerate(layout):
            out = scaled(entry // group, width) * group
            step = first if stage == 0 else 2
            for index in range(blocks):
                layers.append(Block(channels, out, group, step if index == 0 else 1))
                channels = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


@register("regnet_y_400mf")
def regnet_y_400mf(**options: Any) -> RegNet:
    """The paper's model for 400 million multiply-adds, sixteen blocks: 4.3 M parameters at 1000
    classes."""
    return RegNet(Y_400MF, Y_400MF_GROUP, **options)
