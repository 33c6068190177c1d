"""EfficientNet-B0 (Tan and Le 2019) and EfficientNetV2-S (Tan and Le 2021): MBConv blocks.

Without the stochastic depth of the published training recipes, which leaves inference as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from kernelprune.models.layers import SqueezeExcitation, initialise, scaled, stem_stride, unit
from kernelprune.models.registry import register


class Row(NamedTuple):
    """A row of the papers' tables: ``blocks`` blocks, of which the first has the stride.

    ``fused``: one kxk convolution in place of the 1x1 expansion and the depthwise one, and no
    squeeze-and-excitation.
    """

    expansion: int
    kernel: int
    channels: int
    blocks: int
    stride: int
    fused: bool = False


# Table 1 of the first paper.
B0 = (
    Row(1, 3, 16, 1, 1),
    Row(6, 3, 24, 2, 2),
    Row(6, 5, 40, 2, 2),
    Row(6, 3, 80, 3, 2),
    Row(6, 5, 112, 3, 1),
    Row(6, 5, 192, 4, 2),
    Row(6, 3, 320, 1, 1),
)

# Table 4 of the second paper.
V2_S = (
    Row(1, 3, 24, 2, 1, fused=True),
    Row(4, 3, 48, 4, 2, fused=True),
    Row(4, 3, 64, 4, 2, fused=True),
    Row(4, 3, 128, 6, 2),
    Row(6, 3, 160, 9, 1),
    Row(6, 3, 256, 15, 2),
)


class MBConv(nn.Module):
    """1x1 expansion (none at 1), depthwise convolution, squeeze-and-excitation to a quarter of the
    input's channels, linear 1x1; plus the input where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, row: Row, stride: int):
        super().__init__()
        hidden = in_channels * row.expansion
        layers = []
        if row.expansion != 1:
            layers += unit(in_channels, hidden, 1, activation=nn.SiLU)
        layers += unit(hidden, hidden, row.kernel, stride, groups=hidden, activation=nn.SiLU)
        layers.append(SqueezeExcitation(hidden, max(1, in_channels // 4), activation=nn.SiLU))
        layers += unit(hidden, out_channels, 1, activation=None)
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class FusedMBConv(nn.Module):
    """kxk expansion and linear 1x1 (second paper, figure 2), at expansion 1 one kxk convolution;
    plus the input where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, row: Row, stride: int):
        super().__init__()
        hidden = out_channels if row.expansion == 1 else in_channels * row.expansion
        layers = unit(in_channels, hidden, row.kernel, stride, activation=nn.SiLU)
        if row.expansion != 1:
            layers += unit(hidden, out_channels, 1, activation=None)
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class EfficientNet(nn.Module):
    """Blocks as ``layout`` says: ``[N, C, H, W] -> [N, num_classes]``.

    ``first``: channels of the stem; ``epsilon``: of the batch norms.
    ``stem="imagenet"`` starts with stride 2, ``"cifar"`` (images of about 32x32) with stride 1 and
    has stride 1 in the first row that has stride 2 there.
    """

    def __init__(
        self,
        layout: Sequence[Row],
        first: int,
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
        dropout: float = 0.2,
        epsilon: float | None = None,
    ):
        super().__init__()
        stride = stem_stride(stem)
        channels = scaled(first, width)
        layers = unit(in_channels, channels, 3, stride, activation=nn.SiLU)
        shrinking = [position for position, row in enumerate(layout) if row.stride > 1]
        for position, row in enumerate(layout):
            block = FusedMBConv if row.fused else MBConv
            out = scaled(row.channels, width)
            step = stride if position == shrinking[0] else row.stride
            for index in range(row.blocks):
                layers.append(block(channels, out, row, step if index == 0 else 1))
                channels = out
        last = scaled(1280, width)
        layers += unit(channels, last, 1, activation=nn.SiLU)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, num_classes)
        initialise(self, epsilon=epsilon)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(self.pool(self.features(x)).flatten(1)))


@register("efficientnet_b0")
def efficientnet_b0(**options: Any) -> EfficientNet:
    """Table 1 of the first paper, sixteen blocks: 5.3 M parameters at 1000 classes."""
    return EfficientNet(B0, 32, **options)


@register("efficientnetv2_s")
def efficientnetv2_s(**options: Any) -> EfficientNet:
    """Table 4 of the second paper, forty blocks: 21.5 M parameters at 1000 classes."""
    return EfficientNet(V2_S, 24, epsilon=1e-3, **options)
