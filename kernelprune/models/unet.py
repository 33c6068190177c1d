"""U-Net (Ronneberger et al. 2015) on a residual encoder (He et al. 2016): a class per pixel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.errors import Error
from kernelprune.models.layers import initialise, scaled, unit
from kernelprune.models.registry import register
from kernelprune.models.resnet import BasicBlock, Encoder

# Basic blocks of each stage (He et al. 2016, table 1).
ENCODERS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
ENCODER_CHANNELS = (64, 128, 256, 512)
DECODER_CHANNELS = (256, 128, 64, 32, 16)


class UpBlock(nn.Module):
    """Enlarges a map to the size of the encoder's, concatenates that, two 3x3 convolutions.

    ``[N, in_channels, h, w]``, ``[N, skipped, H, W] -> [N, channels, H, W]``; without a map of the
    encoder (``skipped=0``) the size is said.
    """

    def __init__(self, in_channels: int, skipped: int, channels: int, upsampling: str):
        super().__init__()
        self.upsampling = upsampling
        self.layers = nn.Sequential(
            *unit(in_channels + skipped, channels, 3, activation=nn.ReLU),
            *unit(channels, channels, 3, activation=nn.ReLU),
        )

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None, size: torch.Size) -> torch.Tensor:
        x = functional.interpolate(x, size=size, mode=self.upsampling)
        return self.layers(x if skip is None else torch.cat([x, skip], 1))


class UNet(nn.Module):
    """Encoder, decoder with the encoder's maps, 3x3 convolution: ``[N, C, H, W] -> [N, num_classes,
    H, W]``, for images of any size.

    ``encoder``: one of ``ENCODERS``. ``upsampling``: ``"nearest"`` or ``"bilinear"``.
    ``stem="imagenet"`` shrinks the image to a 32nd in the encoder, ``stem="cifar"`` (images of
    about 32x32) to an eighth, and the decoder has three blocks instead of five.
    """

    def __init__(
        self,
        encoder: str = "resnet34",
        *,
        num_classes: int,
        in_channels: int,
        stem: str = "imagenet",
        width: float = 1.0,
        upsampling: str = "nearest",
    ):
        super().__init__()
        if encoder not in ENCODERS:
            raise Error(f"encoder='{encoder}': must be one of {', '.join(ENCODERS)}")
        if upsampling not in ("nearest", "bilinear"):
            raise Error(f"upsampling='{upsampling}': must be 'nearest' or 'bilinear'")
        self.encoder = Encoder(
            BasicBlock,
            ENCODERS[encoder],
            ENCODER_CHANNELS,
            in_channels=in_channels,
            stem=stem,
            width=width,
        )
        # The cifar stem has no pool: its map is as large as that of the first stage.
        self.first_skip = 0 if stem == "imagenet" else 1
        *skips, current = self.encoder.channels[self.first_skip :]
        skipped = skips[::-1] + [0] * (1 - self.first_skip)
        self.decoder = nn.ModuleList()
        for skip, entry in zip(skipped, DECODER_CHANNELS, strict=False):
            channels = scaled(entry, width)
            self.decoder.append(UpBlock(current, skip, channels, upsampling))
            current = channels
        self.head = nn.Conv2d(current, num_classes, 3, padding=1)
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[2:]
        *skips, x = self.encoder(x)[self.first_skip :]
        for block in self.decoder:
            skip = skips.pop() if skips else None
            x = block(x, skip, size if skip is None else skip.shape[2:])
        return self.head(x)


@register("unet", kind="segmentation")
def unet(**options: Any) -> UNet:
    """Encoder ResNet-34, decoder of 256-128-64-32-16 channels: 24.4 M parameters; 14.3 M with
    ``encoder="resnet18"``."""
    return UNet(**options)
