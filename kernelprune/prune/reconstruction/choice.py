"""What a layer keeps: its connections in blocks of neighbouring input channels, how many of them
each output channel gets, and the masks by the kernels' norms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from kernelprune.prune.group_options import group_size
from kernelprune.prune.layers import Layer
from kernelprune.prune.scores import CRITERIA, Connections, Gradients
from kernelprune.prune.threshold import comparable, select
from kernelprune.prune.weights import Masked, parametrisation

_SCOPE = "global-normalised"  # no factor of an output channel decides anything


def present_connections(layer: Layer) -> torch.Tensor:
    """bool ``[O, I/groups]``: those that are not zero and that no mask holds at zero."""
    held = parametrisation(layer.module, Masked)
    return layer.present() if held is None else layer.present() & held.mask


def kernel_scores(layer: Layer) -> torch.Tensor:
    """L1 norms of the kernels, ``[O, I/groups]``."""
    weight = layer.module.weight.detach()
    nothing = Gradients(layer.module, [], None, None, functional.cross_entropy)
    return CRITERIA["l1"](Connections(layer.name, weight, 0, nothing)).double()


@dataclass
class Blocks:
    """A layer's connections in blocks of ``group`` input channels, the last one of which may be
    smaller. ``scores``: that compare within the layer, ``[O, B]``; ``free``: bool ``[O, B]``, where
    a connection is left."""

    group: int
    width: int  # connections of an output channel
    scores: torch.Tensor
    free: torch.Tensor

    @classmethod
    def of(cls, layer: Layer, group: int | tuple[int, int]) -> Blocks:
        width = layer.shape[1]
        group = min(group_size(group)[0], width)
        sums = _by_block(kernel_scores(layer), group).sum(2)
        scores = torch.from_numpy(comparable(sums, _SCOPE))
        return cls(group, width, scores, _by_block(present_connections(layer), group).any(2).cpu())

    @property
    def total(self) -> int:
        return self.scores.numel()

    def number(self, density: float) -> int:
        """Blocks that are kept at a density of connections, at least one."""
        return max(1, min(int(density * self.total + 0.5), int(self.free.sum())))

    def connections(self, kept: torch.Tensor) -> torch.Tensor:
        """``[O, B] -> [O, I/groups]``."""
        return kept.repeat_interleave(self.group, 1)[:, : self.width]

    def place(self, connection: int) -> tuple[int, int]:
        """Output channel and block of a connection, given as a flat index."""
        row, column = divmod(connection, self.width)
        return row, column // self.group

    def largest(self, number: int, held: tuple[int, int] | None = None) -> torch.Tensor:
        """bool ``[O, B]``: so many blocks of the layer, those with the highest scores."""
        forced = None if held is None else {"": held[0] * self.scores.shape[1] + held[1]}
        return select(
            {"": self.scores}, density=number / self.total, scope="global",
            kept={"": self.free}, forced=forced,
        )[""]  # fmt: skip

    def shares(self, number: int, held: tuple[int, int] | None = None) -> torch.Tensor:
        """int ``[O]``: so many blocks of the layer, as many for each output channel. Where that is
        no whole number, those have one more whose next block has the highest score."""
        available = self.free.sum(1)
        number = min(number, int(available.sum()))
        level = 0
        while int(available.clamp_max(level + 1).sum()) <= number and level < int(available.max()):
            level += 1
        counts = available.clamp_max(level)
        rest = number - int(counts.sum())
        if rest > 0:
            ranked = self.scores.masked_fill(~self.free, -torch.inf).sort(1, descending=True).values
            following = ranked[:, min(level, ranked.shape[1] - 1)]
            following = following.masked_fill(available <= level, -torch.inf)
            if held is not None:
                following[held[0]] = torch.inf
            counts[following.argsort(descending=True, stable=True)[:rest]] += 1
        if held is not None and counts[held[0]] == 0:
            counts[held[0]] = 1
            counts[int(counts.argmax())] -= int(number > 1)
        return counts

    def evenly(self, number: int) -> torch.Tensor:
        """bool ``[O, B]``: as many of each output channel as ``shares`` gives, those with the
        highest scores. What omp and obs choose has the same shape, so it costs about the same."""
        order = self.scores.masked_fill(~self.free, -torch.inf).argsort(
            dim=1, descending=True, stable=True
        )
        kept = torch.zeros_like(self.free)
        first = torch.arange(order.shape[1]) < self.shares(number)[:, None]
        return kept.scatter_(1, order, first)


def _by_block(values: torch.Tensor, group: int) -> torch.Tensor:
    """``[O, I] -> [O, B, group]``, filled up with 0."""
    rows, width = values.shape
    return functional.pad(values, (0, -width % group)).reshape(rows, -1, group)
