"""ConvNeXt (Liu et al. 2022): depthwise 7x7 convolutions, layer norms over channels, GELU.

Without the stochastic depth of the published training recipe, which leaves inference as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.models.layers import scaled, stem_stride
from kernelprune.models.registry import register

# Channels and blocks of each stage: section 3 of the paper, ConvNeXt-T (table 9).
TINY = ((96, 3), (192, 3), (384, 9), (768, 3))

EPSILON = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel: ``[N, C, H, W]`` as before."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise 7x7, layer norm, two linear layers on the channels of each pixel (figure 4), times
    a factor per channel; plus the input. ``[N, C, H, W]`` as before."""

    def __init__(self, channels: int, layer_scale: float):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.expand = nn.Linear(channels, 4 * channels)
        self.gelu = nn.GELU()
        self.project = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # [N, H, W, C] to the next permute
        y = self.scale * self.project(self.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Stages of blocks, each but the first at half the size: ``[N, C, H, W] -> [N, num_classes]``.

    ``layout``: channels and blocks of each stage; ``layer_scale``: what a block's factors are to
    start with. ``stem="imagenet"`` is a 4x4 convolution of
    stride 4; ``stem="cifar"`` is one 3x3 convolution of stride 1, for images of about 32x32.
    """

    def __init__(
        self,
        layout: Sequence[tuple[int, int]],
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
        layer_scale: float = 1e-6,
    ):
        super().__init__()
        channels = scaled(layout[0][0], width)
        if stem_stride(stem) == 1:
            first = nn.Conv2d(in_channels, channels, 3, padding=1)
        else:
            first = nn.Conv2d(in_channels, channels, 4, 4)
        layers: list[nn.Module] = [first, ChannelNorm(channels)]
        for stage, (entry, blocks) in enumerate(layout):
            out = scaled(entry, width)
            if stage > 0:
                layers += [ChannelNorm(channels), nn.Conv2d(channels, out, 2, 2)]
            layers += [Block(out, layer_scale) for _ in range(blocks)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.classifier = nn.Linear(channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal with a deviation of 0.02, biases 0 (table 5)."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.norm(self.pool(self.features(x)).flatten(1)))


@register("convnext_tiny")
def convnext_tiny(**options: Any) -> ConvNeXt:
    """ConvNeXt-T, eighteen blocks: 28.6 M parameters at 1000 classes."""
    return ConvNeXt(TINY, **options)
