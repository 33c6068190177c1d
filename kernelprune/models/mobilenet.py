"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018): depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import initialise, scaled, stem_stride, unit
from kernelprune.models.registry import register

V1: tuple[tuple[int, int], ...] = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)) + (
    (512, 1),
) * 5
V1 += ((1024, 2), (1024, 1))

V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV1(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolutions in turn: ``[N, C, H, W] -> [N, num_classes]``.

    ``layout``: channels and stride of each pair.
    ``stem="imagenet"`` starts with stride 2, ``"cifar"`` (images of about 32x32) with stride 1.
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
        channels = scaled(32, width)
        layers = unit(in_channels, channels, 3, stem_stride(stem), activation=nn.ReLU)
        for entry, stride in layout:
            out = scaled(entry, width)
            layers += unit(channels, channels, 3, stride, groups=channels, activation=nn.ReLU)
            layers += unit(channels, out, 1, activation=nn.ReLU)
            channels = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


class InvertedResidual(nn.Module):
    """1x1 expansion (none at 1), depthwise 3x3, linear 1x1; plus the input where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        layers = []
        if expansion != 1:
            layers += unit(in_channels, hidden, 1, activation=nn.ReLU6)
        layers += unit(hidden, hidden, 3, stride, groups=hidden, activation=nn.ReLU6)
        layers += unit(hidden, out_channels, 1, activation=None)
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV2(nn.Module):
    """Inverted residual blocks: ``[N, C, H, W] -> [N, num_classes]``.

    ``layout``: expansion, channels, number of blocks and stride of the first one.
    ``stem="imagenet"`` starts with stride 2, ``"cifar"`` with stride 1 and has stride 1 in the
    first block that has stride 2 there.
    """

    def __init__(
        self,
        layout: Sequence[tuple[int, int, int, int]],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
    ):
        super().__init__()
        first = stem_stride(stem)
        channels = scaled(32, width)
        layers = unit(in_channels, channels, 3, first, activation=nn.ReLU6)
        shrinking = [position for position, row in enumerate(layout) if row[3] > 1]
        for position, (expansion, entry, blocks, stride) in enumerate(layout):
            out = scaled(entry, width)
            step = first if position == shrinking[0] else stride
            for index in range(blocks):
                stride = step if index == 0 else 1
                layers.append(InvertedResidual(channels, out, stride, expansion))
                channels = out
        last = scaled(1280, width)
        layers += unit(channels, last, 1, activation=nn.ReLU6)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


@register("mobilenet_v1")
def mobilenet_v1(**options: Any) -> MobileNetV1:
    """Thirteen blocks: 4.2 M parameters at 1000 classes."""
    return MobileNetV1(V1, **options)


@register("mobilenet_v2")
def mobilenet_v2(**options: Any) -> MobileNetV2:
    """Seventeen blocks with ReLU6: 3.5 M parameters at 1000 classes."""
    return MobileNetV2(V2, **options)
