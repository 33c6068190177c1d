"""Second moments of what a layer reads and of what it is to give: all that least squares need.

With the inputs x (a column of im2col: what an output place multiplies with the weights of an output
channel, K numbers) and the wanted outputs y, the weights w of an output channel have the error

    E[(y - w x)^2] = E[y^2] - 2 w E[y x] + w E[x x'] w'

so a layer of any map size is K x K numbers and K for each output channel. The sums are float64, and
grow by blocks of images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from kernelprune.errors import Error
from kernelprune.graph.ir import Node

_LEAST_PLACES = 1 << 15
_BLOCK = 64 << 20  # bytes of one block of columns, in float64


@dataclass
class Equations:
    """Of the R output channels that one group of a layer makes, in float64: ``moments`` E[x x']
    ``[K, K]``, ``crossed`` E[y x'] ``[R, K]``, ``energy`` E[y^2] ``[R]``, about the means where a
    constant is free. With the old weights ``weight`` ``[R, K]`` and the factor ``ridge``, what is
    minimised is

        E[(y - w x)^2] + ridge |w - weight|^2

    (Tikhonov): ``moments`` holds ridge times the unit matrix already, ``crossed`` ridge * weight.
    The columns are blocks of ``block``, which are kept or dropped together.
    """

    moments: torch.Tensor
    crossed: torch.Tensor
    energy: torch.Tensor
    weight: torch.Tensor
    ridge: float
    block: int

    @property
    def blocks(self) -> int:
        return self.moments.shape[0] // self.block

    def errors(self, weight: torch.Tensor) -> torch.Tensor:
        """E[(y - w x)^2] ``[R]`` of other weights ``[R, K]``, without the ridge's part."""
        crossed = self.crossed - self.ridge * self.weight
        squares = ((weight @ self.moments) * weight).sum(1) - self.ridge * weight.square().sum(1)
        return (self.energy - 2 * (crossed * weight).sum(1) + squares).clamp_min(0)

    def of_rows(self, rows: torch.Tensor) -> Equations:
        """Of some output channels."""
        return replace(
            self, crossed=self.crossed[rows], energy=self.energy[rows], weight=self.weight[rows]
        )


class Moments:
    """Sums over output places of a layer with ``groups``, K = ``size`` weights for an output
    channel and R = ``rows`` output channels in a group."""

    def __init__(self, groups: int, size: int, rows: int, device: torch.device):
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(groups, *shape, dtype=torch.float64, device=device)

        self.count = 0
        self.xx, self.yx, self.yy = zeros(size, size), zeros(rows, size), zeros(rows)
        self.x, self.y = zeros(size), zeros(rows)

    def see(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """``x`` [groups, K, places], ``y`` [groups, R, places]."""
        x, y = x.double(), y.double()
        self.count += x.shape[2]
        self.xx.baddbmm_(x, x.mT)
        self.yx.baddbmm_(y, x.mT)
        self.yy += y.square().sum(2)
        self.x += x.sum(2)
        self.y += y.sum(2)

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of x ``[groups, K]`` and of y ``[groups, R]``."""
        return self.x / self.count, self.y / self.count

    def equations(
        self, weight: torch.Tensor, *, centred: bool, ridge: float, block: int
    ) -> list[Equations]:
        """By group. ``weight``: the old ones, [groups, R, K]; ``ridge``: in parts of the mean of
        E[x^2]; ``block``: columns, which need not divide K: what is missing is 0 in all images."""
        weight = weight.double()
        xx, yx, yy = self.xx / self.count, self.yx / self.count, self.yy / self.count
        if centred:
            x, y = self.means()
            xx -= x[:, :, None] * x[:, None, :]
            yx -= y[:, :, None] * x[:, None, :]
            yy = (yy - y.square()).clamp_min(0)
        missing = -xx.shape[1] % block
        if missing:
            pad = torch.nn.functional.pad
            xx, yx = pad(xx, (0, missing, 0, missing)), pad(yx, (0, missing))
            weight = pad(weight, (0, missing))
        found = []
        for own, crossed, energy, old in zip(xx, yx, yy, weight, strict=True):
            factor = ridge * float(own.diagonal().mean()) or 1.0  # nothing but zeros is read
            own.diagonal().add_(factor)
            found.append(Equations(own, crossed + factor * old, energy, old, factor, block))
        return found


def places_of(node: Node, size: int, images: int, factor: int) -> int:
    """Output places of each image that are looked at, of those that ``node`` has, for K = ``size``
    and ``factor`` places for each of them."""
    return min(-(-max(factor * size, _LEAST_PLACES) // images), max(1, math.prod(node.shape[1:])))


def measure(
    node: Node,
    groups: int,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    factor: int,
    block_bytes: int = _BLOCK,
) -> Moments:
    """Of a layer's ``node`` without bias, residual and activation: ``inputs`` are batches of what
    it reads, ``outputs`` of what it is to give ``[N, O, ...]``.

    The places are drawn at random, for each image by itself and always the same ones, so that the
    size of a block changes nothing. Raises Error when something is not finite.
    """
    assert node.weight is not None
    size, rows = math.prod(node.weight.shape[1:]), node.weight.shape[0] // groups
    moments = Moments(groups, size, rows, inputs[0].device)
    places = max(1, math.prod(node.shape[1:]))
    wanted = places_of(node, size, sum(map(len, inputs)), factor)
    generator = torch.Generator().manual_seed(0)
    at_once = max(1, block_bytes // (8 * groups * size * places))
    for given, wished in zip(inputs, outputs, strict=True):
        for begin in range(0, len(given), at_once):
            x = node.rule.patches(node, given[begin : begin + at_once])  # type: ignore[attr-defined]
            y = wished[begin : begin + at_once].reshape(len(x), -1, places)
            if wanted < places:
                chosen = torch.stack(
                    [torch.randperm(places, generator=generator)[:wanted] for _ in x]
                ).to(x.device)[:, None]
                x, y = x.take_along_dim(chosen, 2), y.take_along_dim(chosen, 2)
            moments.see(_by_group(x, groups), _by_group(y, groups))
    if not all(bool(torch.isfinite(own).all()) for own in (moments.xx, moments.yx, moments.yy)):
        raise Error(f"layer '{node.module}': its inputs or outputs are not finite on these images")
    return moments


def _by_group(columns: torch.Tensor, groups: int) -> torch.Tensor:
    """``[N, groups * K, places] -> [groups, K, N * places]``."""
    split = columns.reshape(len(columns), groups, -1, columns.shape[2])
    return split.permute(1, 2, 0, 3).reshape(groups, split.shape[2], -1)
