"""GoogLeNet (Szegedy et al. 2015) with batch norm and without auxiliary classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.models.layers import initialise, scaled, unit
from kernelprune.models.registry import register

POOL = ()

# Channels of the 1x1 branch, the 3x3 branch (reduced, then 3x3), the 5x5 branch, the pool branch.
GOOGLENET: tuple[tuple[int, ...], ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    POOL,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    POOL,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _unit(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*unit(in_channels, out_channels, kernel, stride, activation=nn.ReLU))


class Inception(nn.Module):
    """Four branches side by side, concatenated: ``[N, C, H, W] -> [N, out_channels, H, W]``."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]):
        super().__init__()
        one, reduce3, three, reduce5, five, pool = channels
        self.branch1 = _unit(in_channels, one, 1)
        self.branch3 = nn.Sequential(_unit(in_channels, reduce3, 1), _unit(reduce3, three, 3))
        self.branch5 = nn.Sequential(_unit(in_channels, reduce5, 1), _unit(reduce5, five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), _unit(in_channels, pool, 1))
        self.out_channels = one + three + five + pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.pool(x)], 1)


class GoogLeNet(nn.Module):
    """Inception modules and pools, as ``layout`` says: ``[N, C, H, W] -> [N, num_classes]``.

    ``stem="imagenet"`` shrinks the image to an eighth before the first module; ``stem="cifar"`` is
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
    ):
        super().__init__()
        channels = scaled(192, width)
        if stem == "imagenet":
            first = scaled(64, width)
            self.stem = nn.Sequential(
                _unit(in_channels, first, 7, 2),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                _unit(first, first, 1),
                _unit(first, channels, 3),
                nn.MaxPool2d(3, 2, ceil_mode=True),
            )
        elif stem == "cifar":
            self.stem = _unit(in_channels, channels, 3)
        else:
            raise Error(f"stem='{stem}': must be 'imagenet' or 'cifar'")
        layers: list[nn.Module] = []
        for entry in layout:
            if entry == POOL:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            module = Inception(channels, tuple(scaled(number, width) for number in entry))
            layers.append(module)
            channels = module.out_channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(self.stem(x))).flatten(1))


@register("inception")
def inception(**options: Any) -> GoogLeNet:
    """GoogLeNet's nine modules: 7.0 M parameters at 1000 classes."""
    return GoogLeNet(GOOGLENET, **options)
