"""YOLOv8 (Jocher et al. 2023): a detector without anchor boxes, whose heads are decoupled.

There is no paper; the architecture is described in Terven et al. 2023 ("A comprehensive review of
YOLO architectures in computer vision", section on YOLOv8). Its parts: cross stage partial blocks
(Wang et al. 2020), spatial pyramid pooling (He et al. 2015), path aggregation (Liu et al. 2018),
boxes as distributions of distances (Li et al. 2020, "Generalized focal loss").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.models.layers import initialise, scaled, unit
from kernelprune.models.registry import register

# Of the size "n": channels at each halving of the image, bottlenecks of each backbone block.
N_CHANNELS = (16, 32, 64, 128, 256)
N_BOTTLENECKS = (1, 2, 2, 1)

# Pixels of the image for one of each output map.
STRIDES = (8, 16, 32)

# The distance from a cell's centre to a side of its box is a mean over 0, 1, ..., BINS - 1 strides.
BINS = 16


def _unit(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*unit(in_channels, out_channels, kernel, stride, activation=nn.SiLU))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, plus the input if ``adds``; ``[N, channels, H, W]`` as before."""

    def __init__(self, channels: int, adds: bool):
        super().__init__()
        self.layers = nn.Sequential(_unit(channels, channels, 3), _unit(channels, channels, 3))
        self.adds = adds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class CrossStage(nn.Module):
    """A 1x1 convolution gives two halves; bottlenecks go on from the second; a 1x1 convolution sees
    the halves and what every bottleneck gave. ``[N, in_channels, H, W] -> [N, channels, H, W]``."""

    def __init__(self, in_channels: int, channels: int, bottlenecks: int, *, adds: bool):
        super().__init__()
        half = max(1, channels // 2)
        self.split = _unit(in_channels, 2 * half, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(half, adds) for _ in range(bottlenecks))
        self.merge = _unit((2 + bottlenecks) * half, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.split(x).chunk(2, 1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return self.merge(torch.cat(parts, 1))


class PyramidPooling(nn.Module):
    """Windows of 5x5, 9x9 and 13x13 as three 5x5 max pools in a row, between 1x1 convolutions;
    ``[N, channels, H, W]`` as before."""

    def __init__(self, channels: int):
        super().__init__()
        half = max(1, channels // 2)
        self.reduce = _unit(channels, half, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = _unit(4 * half, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.merge(torch.cat(parts, 1))


class Backbone(nn.Module):
    """``[N, C, H, W] ->`` maps of an eighth, a 16th and a 32nd of the image's sides."""

    def __init__(self, in_channels: int, channels: list[int]):
        super().__init__()
        self.stem = _unit(in_channels, channels[0], 3, 2)
        self.stages = nn.ModuleList()
        current = channels[0]
        for out, bottlenecks in zip(channels[1:], N_BOTTLENECKS, strict=True):
            stage = [_unit(current, out, 3, 2), CrossStage(out, out, bottlenecks, adds=True)]
            self.stages.append(nn.Sequential(*stage))
            current = out
        self.pooling = PyramidPooling(current)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [*maps[-3:-1], self.pooling(maps[-1])]


class Neck(nn.Module):
    """Path aggregation: from the coarsest of three maps to the finest and back; each way a map is
    concatenated with the one of its size. Three maps of ``channels``, sizes as before."""

    def __init__(self, channels: list[int]):
        super().__init__()
        fine, middle, coarse = channels
        self.up_middle = CrossStage(coarse + middle, middle, 1, adds=False)
        self.up_fine = CrossStage(middle + fine, fine, 1, adds=False)
        self.shrink_fine = _unit(fine, fine, 3, 2)
        self.down_middle = CrossStage(fine + middle, middle, 1, adds=False)
        self.shrink_middle = _unit(middle, middle, 3, 2)
        self.down_coarse = CrossStage(middle + coarse, coarse, 1, adds=False)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        fine, middle, coarse = maps
        middle = self.up_middle(self._enlarged(coarse, middle))
        fine = self.up_fine(self._enlarged(middle, fine))
        middle = self.down_middle(torch.cat([self.shrink_fine(fine), middle], 1))
        coarse = self.down_coarse(torch.cat([self.shrink_middle(middle), coarse], 1))
        return [fine, middle, coarse]

    @staticmethod
    def _enlarged(x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return torch.cat([functional.interpolate(x, size=beside.shape[2:]), beside], 1)


class Yolo(nn.Module):
    """Backbone, neck, and for each of three sizes one head for boxes and one for classes.

    ``[N, C, H, W] ->`` a dictionary of raw maps: ``boxes8`` ``[N, 4 * BINS, H/8, W/8]`` (left, top,
    right, bottom, each BINS logits), ``classes8`` ``[N, num_classes, H/8, W/8]`` (logits), and the
    same for strides 16 and 32; sizes round up. ``decode`` makes boxes and scores of them.
    """

    def __init__(self, *, num_classes: int, in_channels: int, width: float = 1.0):
        super().__init__()
        channels = [scaled(entry, width) for entry in N_CHANNELS]
        self.backbone = Backbone(in_channels, channels)
        self.neck = Neck(channels[-3:])
        first = channels[-3]
        box_channels = max(first // 4, 4 * BINS)
        class_channels = max(first, min(num_classes, 100))
        self.boxes, self.classes = nn.ModuleList(), nn.ModuleList()
        for entry in channels[-3:]:
            self.boxes.append(_head(entry, box_channels, 4 * BINS))
            self.classes.append(_head(entry, class_channels, num_classes))
        initialise(self, epsilon=1e-3)
        for stride, head in zip(STRIDES, self.classes, strict=True):
            # Few cells hold an object: five in an image of 640x640 to start with.
            prior = 5 / num_classes / (640 / stride) ** 2
            nn.init.constant_(head.get_parameter("2.bias"), math.log(prior))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        heads = zip(STRIDES, self.boxes, self.classes, self.neck(self.backbone(x)), strict=True)
        for stride, boxes, classes, seen in heads:
            found[f"boxes{stride}"] = boxes(seen)
            found[f"classes{stride}"] = classes(seen)
        return found

    @staticmethod
    def decode(maps: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes ``[N, cells, 4]`` (left, top, right, bottom in pixels) and scores ``[N, cells,
        num_classes]`` (0 to 1) of what ``forward`` gives; fine cells first, row by row."""
        boxes, scores = [], []
        for stride in STRIDES:
            logits = maps[f"boxes{stride}"]
            count, _, height, width = logits.shape
            bins = torch.arange(BINS, dtype=logits.dtype, device=logits.device)
            shares = logits.reshape(count, 4, BINS, height * width).softmax(2)
            near, far = torch.einsum("nsbc,b->nsc", shares, bins).split(2, 1)  # each [N, 2, cells]
            rows, columns = torch.meshgrid(
                torch.arange(height, device=bins.device) + 0.5,
                torch.arange(width, device=bins.device) + 0.5,
                indexing="ij",
            )
            centre = torch.stack([columns, rows]).flatten(1).to(bins.dtype)  # [2, cells]
            boxes.append(torch.cat([centre - near, centre + far], 1) * stride)
            scores.append(maps[f"classes{stride}"].flatten(2).sigmoid())
        return torch.cat(boxes, 2).transpose(1, 2), torch.cat(scores, 2).transpose(1, 2)


def _head(in_channels: int, channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        _unit(in_channels, channels, 3),
        _unit(channels, channels, 3),
        nn.Conv2d(channels, out_channels, 1),
    )


@register("yolov8n", kind="detection")
def yolov8n(**options: Any) -> Yolo:
    """Size "n": 3.2 M parameters at 80 classes."""
    return Yolo(**options)
