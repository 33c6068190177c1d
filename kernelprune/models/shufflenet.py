"""ShuffleNet v2 (Ma et al. 2018): half of the channels pass by, then channels are shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import initialise, scaled, stem_stride, unit
from kernelprune.models.registry import register

# Channels and units of each stage: table 5, the column 1x.
X1_0 = ((116, 4), (232, 8), (464, 4))


def shuffle(x: torch.Tensor) -> torch.Tensor:
    """Channels of both halves in turn: 0, C/2, 1, C/2 + 1, ...; ``[N, C, H, W]`` as before."""
    batch, channels, height, width = x.shape
    halves = x.reshape(batch, 2, channels // 2, height, width)
    return halves.transpose(1, 2).reshape(batch, channels, height, width)


def _branch(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """1x1, depthwise 3x3 without activation, 1x1."""
    return nn.Sequential(
        *unit(in_channels, channels, 1, activation=nn.ReLU),
        *unit(channels, channels, 3, stride, groups=channels, activation=None),
        *unit(channels, channels, 1, activation=nn.ReLU),
    )


class Unit(nn.Module):
    """Figure 3 (c): one half of the channels as it is, the other through the branch."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, 1)
        return shuffle(torch.cat([kept, self.branch(changed)], 1))


class DownUnit(nn.Module):
    """Figure 3 (d): both branches see all channels and halve the map;
    ``[N, in_channels, H, W] -> [N, channels, H/2, W/2]``."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.shortcut = nn.Sequential(
            *unit(in_channels, in_channels, 3, 2, groups=in_channels, activation=None),
            *unit(in_channels, channels // 2, 1, activation=nn.ReLU),
        )
        self.branch = _branch(in_channels, channels // 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return shuffle(torch.cat([self.shortcut(x), self.branch(x)], 1))


class ShuffleNetV2(nn.Module):
    """Stages of units, each at half the size: ``[N, C, H, W] -> [N, num_classes]``.

    ``layout``: channels (even) and units of each stage. ``stem="imagenet"`` shrinks the image to a
    quarter before the first stage; ``stem="cifar"`` is one 3x3 convolution of stride 1.
    """

    def __init__(
        self,
        layout: Sequence[tuple[int, int]],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
    ):
        super().__init__()
        channels = scaled(24, width)
        layers = unit(in_channels, channels, 3, stem_stride(stem), activation=nn.ReLU)
        if stem == "imagenet":
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        for entry, units in layout:
            out = 2 * scaled(entry // 2, width)
            layers.append(DownUnit(channels, out))
            layers += [Unit(out) for _ in range(units - 1)]
            channels = out
        last = scaled(1024, width)
        layers += unit(channels, last, 1, activation=nn.ReLU)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


@register("shufflenet_v2")
def shufflenet_v2(**options: Any) -> ShuffleNetV2:
    """Width 1x of the paper, sixteen units: 2.3 M parameters at 1000 classes."""
    return ShuffleNetV2(X1_0, **options)
