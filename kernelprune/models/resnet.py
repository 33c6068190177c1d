"""Residual networks (He et al. 2016): the CIFAR form (20, 56, 110) and the ImageNet form (18, 50).

Module names are those that published ResNet checkpoints use (conv1, bn1, layer1.0.conv1,
layer1.0.downsample.0, fc), so that their state dicts load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import conv, initialise, scaled, stem_stride
from kernelprune.models.registry import register


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Projection (option B of the paper) where the shape changes, else None: the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; ``[N, in_channels, H, W] -> [N, channels, H/stride, W/stride]``."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolution; gives ``4 * channels`` channels."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = conv(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Encoder(nn.Module):
    """Stages of blocks, each but the first at half the size: ``[N, C, H, W] ->`` a list of maps.

    First that of the stem (before its pool), then that of each stage.
    ``stem="imagenet"`` is a 7x7 convolution of stride 2 and a 3x3 max pool of stride 2;
    ``stem="cifar"`` is one 3x3 convolution of stride 1, for images of about 32x32.
    ``channels``: of each map. Start values are left to the model around it.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        channels: Sequence[int],
        *,
        in_channels: int,
        stem: str,
        width: float = 1.0,
    ):
        super().__init__()
        current = scaled(channels[0], width)
        stride = stem_stride(stem)
        self.conv1 = conv(in_channels, current, 7 if stride == 2 else 3, stride)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stride == 2 else nn.Identity()
        self.bn1 = nn.BatchNorm2d(current)
        self.relu = nn.ReLU(inplace=True)
        self.stages = len(blocks)
        self.channels = [current]
        for stage, (count, stage_channels) in enumerate(zip(blocks, channels, strict=True)):
            inner = scaled(stage_channels, width)
            layers = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(current, inner, stride))
                current = inner * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            self.channels.append(current)

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(found[0])
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            found.append(x)
        return found

    def forward(self, x: torch.Tensor) -> Any:
        return self.maps(x)


class ResNet(Encoder):
    """The encoder's last map, averaged, and a linear layer: ``[N, C, H, W] -> [N, num_classes]``.

    Arguments are those of the encoder.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        channels: Sequence[int],
        *,
        num_classes: int,
        **options: Any,
    ):
        super().__init__(block, blocks, channels, **options)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.channels[-1], num_classes)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.avgpool(self.maps(x)[-1]).flatten(1))


def _cifar(depth: int, options: dict[str, Any]) -> ResNet:
    blocks = [(depth - 2) // 6] * 3
    return ResNet(BasicBlock, blocks, (16, 32, 64), stem="cifar", **options)


@register("resnet20")
def resnet20(**options: Any) -> ResNet:
    """CIFAR form, three stages of three basic blocks: 0.27 M parameters."""
    return _cifar(20, options)


@register("resnet56")
def resnet56(**options: Any) -> ResNet:
    """CIFAR form, three stages of nine basic blocks: 0.85 M parameters."""
    return _cifar(56, options)


@register("resnet110")
def resnet110(**options: Any) -> ResNet:
    """CIFAR form, three stages of eighteen basic blocks: 1.7 M parameters."""
    return _cifar(110, options)


@register("resnet18")
def resnet18(*, stem: str = "imagenet", **options: Any) -> ResNet:
    """ImageNet form, basic blocks 2-2-2-2: 11.7 M parameters at 1000 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), stem=stem, **options)


@register("resnet50")
def resnet50(*, stem: str = "imagenet", **options: Any) -> ResNet:
    """ImageNet form, bottlenecks 3-4-6-3: 25.6 M parameters at 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), stem=stem, **options)
