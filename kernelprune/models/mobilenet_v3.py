"""MobileNet v3 (Howard et al. 2019): inverted residuals, squeeze-and-excitation, hard-swish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from kernelprune.models.layers import (
    SqueezeExcitation,
    divisible,
    initialise,
    scaled,
    stem_stride,
    unit,
)
from kernelprune.models.registry import register


class Row(NamedTuple):
    """A row of the paper's tables: one block."""

    kernel: int
    hidden: int
    channels: int
    squeezes: bool
    activation: type[nn.Module]
    stride: int


RE, HS = nn.ReLU, nn.Hardswish

# Table 1.
LARGE = (
    Row(3, 16, 16, False, RE, 1),
    Row(3, 64, 24, False, RE, 2),
    Row(3, 72, 24, False, RE, 1),
    Row(5, 72, 40, True, RE, 2),
    Row(5, 120, 40, True, RE, 1),
    Row(5, 120, 40, True, RE, 1),
    Row(3, 240, 80, False, HS, 2),
    Row(3, 200, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 184, 80, False, HS, 1),
    Row(3, 480, 112, True, HS, 1),
    Row(3, 672, 112, True, HS, 1),
    Row(5, 672, 160, True, HS, 2),
    Row(5, 960, 160, True, HS, 1),
    Row(5, 960, 160, True, HS, 1),
)

# Table 2.
SMALL = (
    Row(3, 16, 16, True, RE, 2),
    Row(3, 72, 24, False, RE, 2),
    Row(3, 88, 24, False, RE, 1),
    Row(5, 96, 40, True, HS, 2),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 240, 40, True, HS, 1),
    Row(5, 120, 48, True, HS, 1),
    Row(5, 144, 48, True, HS, 1),
    Row(5, 288, 96, True, HS, 2),
    Row(5, 576, 96, True, HS, 1),
    Row(5, 576, 96, True, HS, 1),
)


class Block(nn.Module):
    """1x1 expansion (none where it adds no channel), depthwise convolution, squeeze-and-excitation
    to a quarter, linear 1x1 (figure 4); plus the input where shapes agree."""

    def __init__(self, in_channels: int, row: Row, width: float, stride: int):
        super().__init__()
        hidden, out_channels = scaled(row.hidden, width), scaled(row.channels, width)
        layers = []
        if hidden != in_channels:
            layers += unit(in_channels, hidden, 1, activation=row.activation)
        layers += unit(hidden, hidden, row.kernel, stride, groups=hidden, activation=row.activation)
        if row.squeezes:
            layers.append(SqueezeExcitation(hidden, divisible(hidden / 4), gate=nn.Hardsigmoid))
        layers += unit(hidden, out_channels, 1, activation=None)
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV3(nn.Module):
    """Blocks as ``layout`` says, two linear layers: ``[N, C, H, W] -> [N, num_classes]``.

    ``last``: channels of the layer before the classifier.
    ``stem="imagenet"`` starts with stride 2, ``"cifar"`` (images of about 32x32) with stride 1 and
    has stride 1 in the first block that has stride 2 there.
    """

    def __init__(
        self,
        layout: Sequence[Row],
        last: int,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
        dropout: float = 0.2,
    ):
        super().__init__()
        first = stem_stride(stem)
        channels = scaled(16, width)
        layers = unit(in_channels, channels, 3, first, activation=nn.Hardswish)
        shrinking = [position for position, row in enumerate(layout) if row.stride > 1]
        for position, row in enumerate(layout):
            stride = first if position == shrinking[0] else row.stride
            layers.append(Block(channels, row, width, stride))
            channels = scaled(row.channels, width)
        hidden, last = scaled(layout[-1].hidden, width), scaled(last, width)
        layers += unit(channels, hidden, 1, activation=nn.Hardswish)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(hidden, last),
            nn.Hardswish(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(last, num_classes),
        )
        initialise(self, epsilon=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


@register("mobilenet_v3_large")
def mobilenet_v3_large(**options: Any) -> MobileNetV3:
    """Table 1, fifteen blocks: 5.5 M parameters at 1000 classes."""
    return MobileNetV3(LARGE, 1280, **options)


@register("mobilenet_v3_small")
def mobilenet_v3_small(**options: Any) -> MobileNetV3:
    """Table 2, eleven blocks: 2.5 M parameters at 1000 classes."""
    return MobileNetV3(SMALL, 1024, **options)
