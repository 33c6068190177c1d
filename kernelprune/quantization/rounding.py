"""Weights rounded up or down such that a layer's output changes least, not each weight.

For the output channel with real weights w (in units of its scale), whole ones q and inputs x of the
quantised network, x0 of the float32 one, the mean of (w x0 - q x)^2 is, but for a constant,
``q H q - 2 w C q`` with H = E[x x'] and C = E[x0 x'], both about the means, which the bias makes
good. Starting from the nearest whole numbers, one weight after the other goes to the other of its
two neighbours when that lowers the error, until none does. Dropped connections stay dropped.

The objective is that of AdaRound (Nagel et al., ICML 2020, arXiv 2004.10568), the search is plain
coordinate descent.
"""

from __future__ import annotations

from typing import Any

import torch

from kernelprune.graph.quantization import MAX_WEIGHT
from kernelprune.quantization.layerwise import LayerInputs, correct_bias

_SWEEPS = 10
_BLOCK = 64  # weights whose changes are applied to all others at once
_PLACES = 4  # output places that are looked at, for each weight of an output channel
_LEAST_PLACES = 8192
_DAMPING = 0.01  # of the mean of H's diagonal: what few images do not tell


def round_to_outputs(layer: LayerInputs) -> None:
    """Rounds the weights of a layer anew, and corrects its bias."""
    exact, rounded = layer.exact.weight, layer.rounded.weight
    groups = int(layer.rounded.node().params.get("groups", 1))
    rows = exact.shape[0] // groups
    # [groups, rows, weights of an output channel]
    scale = layer.rounded.weight_scale.double().view(groups, rows, 1)
    real = exact.double().view(groups, rows, -1) / scale
    whole = rounded.double().view(groups, rows, -1)
    moments, crossed = _moments(layer, groups, real.shape[2])
    found = descend(real, whole, moments, crossed)
    layer.rounded.replace(weight=found.view_as(rounded).to(torch.int8))
    correct_bias(layer)


def _moments(layer: LayerInputs, groups: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """H and C [groups, size, size], of a sample of the output places."""
    node = layer.rounded.node()
    patches = node.rule.patches  # type: ignore[attr-defined]
    images = sum(len(numbers) for numbers, _ in layer.pairs)
    wanted = -(-max(_PLACES * size, _LEAST_PLACES) // images)  # of each image
    generator = torch.Generator().manual_seed(0)
    shape = (groups, size, size)
    moments, crossed = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    means = [torch.zeros((groups, size, 1), dtype=torch.float64) for _ in range(2)]
    count = 0
    for numbers, given in layer.pairs:
        for image in range(len(numbers)):
            pair = (numbers[image : image + 1], layer.source.dequantize(given[image : image + 1]))
            both = [patches(node, x)[0] for x in pair]  # [I * taps, places]
            places = both[0].shape[1]
            chosen: Any = slice(None)
            if places > wanted:
                chosen = torch.randperm(places, generator=generator)[:wanted]
            x0, x = (each[:, chosen].reshape(groups, size, -1) for each in both)
            moments += x @ x.mT
            crossed += x0 @ x.mT
            means[0] += x0.sum(2, keepdim=True)
            means[1] += x.sum(2, keepdim=True)
            count += x.shape[2]
    mean0, mean = (each / count for each in means)
    moments, crossed = moments / count - mean @ mean.mT, crossed / count - mean0 @ mean.mT
    diagonal = torch.eye(size, dtype=torch.float64)
    damping = _DAMPING * moments.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1) * diagonal
    return moments + damping, crossed + damping


def descend(
    real: torch.Tensor, whole: torch.Tensor, moments: torch.Tensor, crossed: torch.Tensor
) -> torch.Tensor:
    """``whole`` [G, rows, K] with some weights at the other neighbour of ``real``; ``moments`` and
    ``crossed``: H and C [G, K, K]. Weights that are 0 in both stay."""
    whole = whole.clone()
    low, high = real.floor(), real.ceil()
    inside = (low >= -MAX_WEIGHT) & (high <= MAX_WEIGHT) & (low != high)
    # Half of the error's derivative. Rows are columns here, so that a weight's are one stretch.
    slope = (whole @ moments - real @ crossed).mT.contiguous()  # [G, K, rows]
    for _ in range(_SWEEPS):
        flips = 0
        for begin in range(0, real.shape[2], _BLOCK):
            own = slice(begin, begin + _BLOCK)
            changes = _flips_of_block(
                slope[:, own].clone(),
                moments[:, own, own],
                torch.where(inside, low + high - 2 * whole, 0)[..., own].mT.contiguous(),
            )
            if (count := int(changes.count_nonzero())) == 0:
                continue
            flips += count
            whole[..., own] += changes.mT
            slope += moments[:, :, own] @ changes
        if not flips:
            break
    return whole


def _flips_of_block(
    slope: torch.Tensor, moments: torch.Tensor, other: torch.Tensor
) -> torch.Tensor:
    """The changes [G, block, rows] of one pass over a block; ``other``: what leads each weight to
    its other neighbour."""
    changes = torch.zeros_like(other)
    for place in range(other.shape[1]):
        step = other[:, place]
        gain = step * (2 * slope[:, place] + step * moments[:, place, place, None])
        step = torch.where(gain < 0, step, 0)
        changes[:, place] = step
        slope += moments[:, :, place, None] * step[:, None]
    return changes
