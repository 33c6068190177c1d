"""The networks that are raced, with random kernels kept in all convolutions but the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.coverage.weights import images, make_plausible, settle_norms
from kernelprune import models
from kernelprune.format import Graph
from kernelprune.frontends.torch import capture
from kernelprune.prune import prune_connections

_CALIBRATION_IMAGES = 16


@dataclass(frozen=True)
class Network:
    """A model of the zoo and the images it gets."""

    model: str
    side: int
    batches: tuple[int, ...]
    classes: int = 10
    options: dict[str, Any] = field(default_factory=dict)

    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, self.side, self.side)

    def images(self, count: int) -> np.ndarray:
        """What is raced on, ``[count, 3, side, side]`` float32."""
        shape = (count, 3, self.side, self.side)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def calibration(self) -> list[np.ndarray] | None:
        """What ranges of bytes are measured on; None for random numbers."""
        return None

    def module(self, density: float) -> nn.Module:
        """Random weights, random connections: their time depends on how many there are only."""
        model = models.create(
            self.model, num_classes=self.classes, in_channels=3, seed=0, **self.options
        )
        pruned = prune_connections(
            model, density=density, criterion="random", scope="layer", x=self.example()
        )
        with torch.no_grad():
            # The lost variance is put back, so that activations neither vanish nor grow.
            for name, mask in pruned.masks.items():
                model.get_submodule(name).weight.mul_(float(mask.float().mean()) ** -0.5)
        return model.eval()

    def graph(self, density: float, *, keep_dead: bool = False) -> Graph:
        """With ``keep_dead`` the network keeps the size it had before pruning."""
        return capture(self.module(density), self.example(), keep_dead=keep_dead)


class Settled(Network):
    """A network whose batch norms know its weights, on images like those that they have seen.

    Gates multiply: behind a dozen of them an untrained network gives next to nothing, or its last
    bias alone, and no comparison of outputs would see a mistake. Without activations behind its
    bottlenecks another keeps so little of the image that bytes lose it. On other images gates close
    to the last bit, and all engines compute with denormal numbers, fifty times as slowly.
    """

    def images(self, count: int) -> np.ndarray:
        return images(count, (3, self.side, self.side), seed=100).numpy()

    def calibration(self) -> list[np.ndarray] | None:
        return [images(_CALIBRATION_IMAGES, (3, self.side, self.side), seed=200).numpy()]

    def module(self, density: float) -> nn.Module:
        model = models.create(
            self.model, num_classes=self.classes, in_channels=3, seed=0, **self.options
        )
        shape = (3, self.side, self.side)
        make_plausible(model, shape)
        prune_connections(
            model, density=density, criterion="random", scope="layer", x=self.example()
        )
        settle_norms(model, shape)
        return model.eval()


_IMAGENET = {"stem": "imagenet"}

NETWORKS = {
    "vgg16-32": Network("vgg16", 32, (1, 64)),
    "resnet18-32": Network("resnet18", 32, (1, 64), options={"stem": "cifar"}),
    "resnet56-32": Network("resnet56", 32, (1, 64)),
    "resnet18-224": Network("resnet18", 224, (1, 16), 1000, _IMAGENET),
    "resnet50-224": Network("resnet50", 224, (1, 16), 1000, _IMAGENET),
    # Depthwise convolutions stay whole: its 1x1 convolutions are pruned.
    "mobilenet_v2-224": Settled("mobilenet_v2", 224, (1,), 1000),
}
