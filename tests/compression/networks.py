"""A small network, images, and a clock that counts multiply-adds, for the tests of compress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernelprune.compression.timing import Timed
from kernelprune.format import read
from kernelprune.graph.ir import Graph

IMAGES = torch.randn(80, 1, 6, 6, generator=torch.Generator().manual_seed(5))


class Small(nn.Module):
    """Three convolutions, of which the middle one has most of the work, and scores."""

    def __init__(self, features: bool = False):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.third = nn.Conv2d(16, 16, 3, padding=1)
        self.scores = nn.Linear(16, 4)
        self.features = features

    def forward(self, x: torch.Tensor) -> Any:
        maps = torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x))))))
        pooled = maps.mean((2, 3))
        return (
            {"scores": self.scores(pooled), "maps": maps}
            if self.features
            else (self.scores(pooled))
        )


def small(features: bool = False) -> nn.Module:
    """Its scores differ between images."""
    torch.manual_seed(2)
    model = Small(features).eval()
    with torch.no_grad():
        model.scores.weight.mul_(20)
        mean = model(IMAGES)
        model.scores.bias.sub_((mean["scores"] if features else mean).mean(0))
    return model


def milliseconds(graph: Graph) -> dict[str, float]:
    """What the clock says of each node: a byte costs 0.4 of a number."""
    return {
        node.name: (0.4 if node.weight_scale is not None else 1.0) * 1e-4 * node.macs() + 1e-4
        for node in graph.nodes
    }


def clock(paths: Sequence[Path]) -> list[Timed]:
    """A timer that is the same on every machine."""
    found = [milliseconds(read(path)[0]) for path in paths]
    return [Timed(sum(nodes.values()), nodes) for nodes in found]
