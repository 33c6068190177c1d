"""The networks that are tried, by family: what the families have in common, and all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error

Shape = tuple[int, ...]


class Unavailable(Error):
    """The package itself cannot build this network, such as an encoder that a decoder rejects."""


@dataclass(frozen=True)
class Subject:
    """A network to try.

    Attributes:
        module: With the start weights that its package gives it.
        shapes: Per image, one for each size of input; the first is the usual one.
    """

    module: nn.Module
    shapes: tuple[Shape, ...]

    @staticmethod
    def square(module: nn.Module, *sides: int, channels: int = 3) -> Subject:
        return Subject(module, tuple((channels, side, side) for side in sides))


@dataclass(frozen=True)
class Family:
    """Networks that are counted together.

    Attributes:
        name: On the command line.
        title: In the table.
        names: Of its networks, in the order in which they are tried.
        build: A network by its name. Raises Unavailable.
    """

    name: str
    title: str
    names: Callable[[], Sequence[str]]
    build: Callable[[str], Subject]


class Outputs(nn.Module):
    """A network whose result is an object of its package, as one with a tuple of tensors."""

    def __init__(self, module: nn.Module, names: Sequence[str], argument: str) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.argument = argument

    def forward(self, x: torch.Tensor) -> tuple[Any, ...]:
        found = self.module(**{self.argument: x})
        return tuple(found[name] for name in self.names)


def smaller_side(side: int) -> int:
    """A second size: about 4/7 of the usual one, a multiple of 32."""
    return max(32, round(side * 4 / 7 / 32) * 32)


@cache
def families() -> dict[str, Family]:
    """All families by name, in the order of the table."""
    from bench.coverage import (
        detection,
        huggingface,
        segmentation,
        timm_models,
        torchvision_models,
        yolo,
    )

    parts = (torchvision_models, timm_models, huggingface, segmentation, detection, yolo)
    found = [family for part in parts for family in part.FAMILIES]
    # What holds attention or state-space layers comes last: it is no CNN.
    found.sort(key=lambda family: family.name.endswith("-hybrid"))
    return {family.name: family for family in found}
