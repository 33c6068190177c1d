"""What a greedy choice (``selection.py``) takes from: the channels or connections of one layer, or
the channels that several layers read and that go in all of them at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.layers import Layer
from kernelprune.prune.scores import kernel_norms


def kept_number(available: int, ratio: float) -> int:
    """``available - floor(ratio * available)``, at least 1."""
    # 1 - 0.9 is a little less than 0.1: a tenth of ten is one all the same.
    return max(1, available - math.floor(ratio * available + 1e-9))


class Candidates(ABC):
    """``layers``: whose weights are chosen from; ``available``: how many candidates there are;
    ``least``: how many are taken at once at least. Masks have the shape of their layer, in the
    order of ``layers``."""

    layers: Sequence[Layer]
    available: int
    least = 1

    def start(self) -> list[torch.Tensor]:
        """Masks of what stays in any case."""
        return [
            torch.zeros(layer.shape, dtype=torch.bool, device=layer.module.weight.device)
            for layer in self.layers
        ]

    @abstractmethod
    def best(
        self, chosen: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], number: int
    ) -> tuple[list[torch.Tensor], int]:
        """Masks of the ``number`` best by the gradients of the weights that are not ``chosen`` yet,
        and how many these are; equal ones by position."""


class ChannelsOfLayer(Candidates):
    """A channel scores the sum of the norms of its kernels' gradients."""

    def __init__(self, layer: Layer):
        self.layers, self.available = (layer,), layer.shape[1]

    def best(
        self, chosen: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], number: int
    ) -> tuple[list[torch.Tensor], int]:
        best = torch.zeros_like(chosen[0])
        scores = kernel_norms(self.layers[0].kernels(gradients[0])).sum(0)
        scores = scores.masked_fill(chosen[0][0], -1)
        best[:, scores.argsort(descending=True, stable=True)[:number]] = True
        return [best], int(best[0].sum())


class ConnectionsOfLayer(Candidates):
    """A group of connections scores the norm of its gradient over the root of their number."""

    def __init__(self, layer: Layer, groups: ConnectionGroups):
        self.layers, self.groups = (layer,), groups
        self.available, self.least = layer.shape[0] * layer.shape[1], groups.inputs * groups.outputs

    def best(
        self, chosen: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], number: int
    ) -> tuple[list[torch.Tensor], int]:
        scores = self.groups.root_mean_squares(kernel_norms(self.layers[0].kernels(gradients[0])))
        free = self.groups.counts(~chosen[0]).gt(0)
        best = self.groups.expand(self.groups.best(scores, number, free))
        return [best], int(best.sum())


@dataclass
class CoupledSet:
    """``layers`` that read the same channels, which go in all of them at once (see
    kernelprune.graph.coupling). ``places``: by layer, int ``[I]``, which of the set's channels each
    of its inputs is; -1 for one that stays. ``pools``: int ``[channels]``: equal for channels that
    lie in the same values, of which at least one stays. ``last``: the layer that is called last."""

    layers: list[Layer]
    places: dict[str, np.ndarray]
    pools: np.ndarray
    last: Layer

    @property
    def name(self) -> str:
        return self.layers[0].name

    def quotas(self, ratio: float) -> dict[int, int]:
        """By pool, how many channels stay when each loses ``ratio``."""
        pools, sizes = np.unique(self.pools, return_counts=True)
        numbers = [kept_number(int(size), ratio) for size in sizes]
        return dict(zip(pools.tolist(), numbers, strict=True))

    def masks(self, kept: torch.Tensor) -> list[torch.Tensor]:
        """Of the layers, when of the set's channels ``kept`` (bool ``[channels]``) stay."""
        found = []
        for layer in self.layers:
            places = torch.from_numpy(self.places[layer.name])
            left = (places < 0) | kept[places.clamp_min(0)]
            found.append(layer.mask_of(left.to(layer.module.weight.device)))
        return found


class CoupledChannels(Candidates):
    """A channel scores the mean over the layers that read it: the norms of its kernels' gradients
    there, in parts of the layer's mean. ``quotas``: by pool, how many of its channels are taken at
    most; one of each is taken first."""

    def __init__(self, coupled: CoupledSet, quotas: dict[int, int] | None = None):
        self.coupled, self.layers = coupled, coupled.layers
        self.quotas = coupled.quotas(0.0) if quotas is None else quotas
        self.available = len(coupled.pools)
        self.taken = torch.zeros(self.available, dtype=torch.bool)

    def start(self) -> list[torch.Tensor]:
        return self.coupled.masks(self.taken)

    def best(
        self, chosen: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], number: int
    ) -> tuple[list[torch.Tensor], int]:
        left = {
            pool: quota - int(self.taken[torch.from_numpy(self.coupled.pools == pool)].sum())
            for pool, quota in self.quotas.items()
        }
        empty = {pool for pool, quota in self.quotas.items() if quota and left[pool] == quota}
        order = [
            i for i in np.argsort(-self._scores(gradients), kind="stable") if not self.taken[i]
        ]
        picked: list[int] = []
        for place in order:  # the best of each pool that has none
            pool = int(self.coupled.pools[place])
            if pool in empty:
                empty.discard(pool)
                picked.append(place)
                left[pool] -= 1
        for place in order:
            pool = int(self.coupled.pools[place])
            if len(picked) < number and left[pool] > 0 and place not in picked:
                picked.append(place)
                left[pool] -= 1
        self.taken[picked] = True
        masks = self.coupled.masks(self.taken)
        return [mask & ~old for mask, old in zip(masks, chosen, strict=True)], len(picked)

    def _scores(self, gradients: Sequence[torch.Tensor]) -> np.ndarray:
        total, number = np.zeros(self.available), np.zeros(self.available)
        for layer, gradient in zip(self.layers, gradients, strict=True):
            norms = kernel_norms(layer.kernels(gradient))  # [O, I/groups]
            by_input = norms.reshape(layer.groups, -1, norms.shape[1]).sum(1).reshape(-1)
            places = self.coupled.places[layer.name]
            own = places >= 0
            sums = np.bincount(places[own], by_input.cpu().numpy()[own], self.available)
            has = np.unique(places[own])
            mean = sums[has].mean()
            total[has] += sums[has] / mean if mean > 0 else 0.0
            number[has] += 1
        return total / np.maximum(number, 1)
