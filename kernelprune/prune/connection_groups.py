"""Groups of connections: neighbours that are kept or dropped together (the option ``group``).

A group is ``inputs`` consecutive input channels by ``outputs`` consecutive output channels of one
layer. Of a grouped convolution each of its own groups is divided by itself, from its first channel
on, since outputs of two of them read different inputs. Where the channels are not divisible, the
last group in a row or column is smaller: 3 inputs in fours are one group of three, and the one
connection of a depthwise layer's output is a group of its own.

What a group is worth is a mean over its connections, so that small groups, and layers with and
without groups, compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from kernelprune.graph.footprint import Footprint, Size
from kernelprune.prune.group_options import group_size
from kernelprune.prune.layers import Layer
from kernelprune.prune.threshold import Units


@dataclass(frozen=True)
class ConnectionGroups:
    """How the connections ``[O, I]`` of a layer (``I``: of an output channel) fall into groups
    ``[R, C]``: ``inputs`` by ``outputs`` of them, within each of the ``parts`` of the output
    channels that a grouped convolution has."""

    connections: tuple[int, int]
    inputs: int = 1
    outputs: int = 1
    parts: int = 1

    @classmethod
    def of(cls, layer: Layer, group: int | tuple[int, int]) -> ConnectionGroups:
        """Raises Error when ``group`` is not one or two whole numbers of at least 1."""
        inputs, outputs = group_size(group)
        rows, columns = layer.shape
        largest = rows // layer.groups
        return cls(layer.shape, min(inputs, columns), min(outputs, largest), layer.groups)

    @property
    def single(self) -> bool:
        """Every connection is a group of its own."""
        return self.inputs == self.outputs == 1

    @property
    def shape(self) -> tuple[int, int]:
        """``(R, C)``."""
        rows, columns = self.connections
        return self.parts * -(-rows // self.parts // self.outputs), -(-columns // self.inputs)

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """``[O, I] -> [R, C]``; differentiable."""
        if self.single:
            return values
        (rows, columns), (groups, width) = self.connections, self.shape
        own, across = rows // self.parts, groups // self.parts
        split = values.reshape(self.parts, own, columns)
        missing = (0, width * self.inputs - columns, 0, across * self.outputs - own)
        padded = functional.pad(split, missing)
        tiles = padded.reshape(self.parts, across, self.outputs, width, self.inputs)
        return tiles.sum((2, 4)).reshape(groups, width)

    def sizes(self) -> torch.Tensor:
        """Connections of every group, int64 ``[R, C]``."""
        return self.counts(torch.ones(self.connections, dtype=torch.bool))

    def counts(self, mask: torch.Tensor) -> torch.Tensor:
        """Connections of every group that ``mask`` (bool ``[O, I]``) has, int64 ``[R, C]``."""
        return self.sums(mask.long())

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """``[O, I] -> [R, C]``, in float64."""
        if self.single:
            return values
        return self.sums(values.double()) / self.sizes().to(values.device)

    def root_mean_squares(self, values: torch.Tensor) -> torch.Tensor:
        """``[O, I] -> [R, C]``, in float64, where no square underflows."""
        return values if self.single else self.means(values.double().square()).sqrt()

    def firsts(self, values: torch.Tensor) -> torch.Tensor:
        """``[O, I] -> [R, C]``: what the first connection of every group has."""
        own = values.reshape(self.parts, -1, self.connections[1])
        return own[:, :: self.outputs, :: self.inputs].reshape(self.shape)

    def expand(self, values: torch.Tensor) -> torch.Tensor:
        """``[R, C] -> [O, I]``: to every connection what its group has; differentiable."""
        if self.single:
            return values
        (rows, columns), (_, width) = self.connections, self.shape
        split = values.reshape(self.parts, -1, width)
        wide = split.repeat_interleave(self.inputs, 2)[:, :, :columns]
        tall = wide.repeat_interleave(self.outputs, 1)[:, : rows // self.parts]
        return tall.reshape(rows, columns)

    def group_at(self, place: int) -> int:
        """The flat index of the group that has the connection of this flat index."""
        rows, columns = self.shape
        return int(
            self.expand(torch.arange(rows * columns).reshape(rows, columns)).flatten()[place]
        )

    def best(self, scores: torch.Tensor, number: int, free: torch.Tensor) -> torch.Tensor:
        """bool ``[R, C]``: of the ``free`` groups (bool ``[R, C]``) those with the highest
        ``scores``, so many that they have ``number`` connections, or as near to it as whole
        groups come; equal ones by position."""
        order = scores.flatten().argsort(descending=True, stable=True)
        order = order[free.flatten()[order]]
        total = self.sizes().flatten().to(order.device)[order].cumsum(0)
        count = int(torch.searchsorted(total, number, right=True))
        if count < len(order):
            before = int(total[count - 1]) if count else 0
            count += int(2 * (number - before) >= int(total[count]) - before)
        found = torch.zeros(self.shape, dtype=torch.bool, device=scores.device)
        found.view(-1)[order[:count]] = True
        return found


class Grouping:
    """A choice among the groups of several layers, ``group`` as the option of that name.

    ``by_layer``: of the prunable layers. ``held``: bool ``[O, I/groups]`` of those that have lost
    connections; these stay lost. ``left``: bool ``[R, C]``, the groups that still have one.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        group: int | tuple[int, int],
        held: Mapping[str, torch.Tensor],
    ):
        prunable = [layer for layer in layers if layer.prunable]
        self.by_layer = {layer.name: ConnectionGroups.of(layer, group) for layer in prunable}
        self._held = dict(held)
        sizes = {
            name: groups.counts(held[name]) if name in held else groups.sizes()
            for name, groups in self.by_layer.items()
        }
        self.left = {name: sizes[name].gt(0) for name in held}
        self.units = Units(sizes, sum(math.prod(layer.shape) for layer in prunable))

    def masks(self, kept: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """bool ``[O, I/groups]`` of groups ``[R, C]`` by layer, without what is lost."""
        found = {name: self.by_layer[name].expand(mask) for name, mask in kept.items()}
        return {n: mask & self._held[n] if n in self._held else mask for n, mask in found.items()}


class GroupedFootprint:
    """The footprint of a network by what is left of its groups (bool ``[R, C]`` by layer), for
    ``budget.choose``."""

    def __init__(self, footprint: Footprint, grouping: Grouping):
        self._footprint, self._grouping = footprint, grouping
        self.dense = footprint.dense

    def size(self, kept: Mapping[str, torch.Tensor] | None = None) -> Size:
        return self._footprint.size(None if kept is None else self._grouping.masks(kept))

    def cut_off(self, kept: Mapping[str, torch.Tensor]) -> list[str]:
        return self._footprint.cut_off(self._grouping.masks(kept))

    def backbone(self, scores: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, int]:
        """One group of every layer, as its flat index, such that they lie on paths."""
        by_layer = self._grouping.by_layer
        wide = {n: by_layer[n].expand(torch.as_tensor(score)) for n, score in scores.items()}
        found = self._footprint.backbone(wide, self._grouping.masks(kept))
        return {name: by_layer[name].group_at(place) for name, place in found.items()}
