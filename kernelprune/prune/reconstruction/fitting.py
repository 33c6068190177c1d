"""One layer: equations, choice, weights, and how far its outputs are from the dense network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from kernelprune.graph.ir import Node
from kernelprune.prune.layers import Layer
from kernelprune.prune.reconstruction.choice import Blocks, present_connections
from kernelprune.prune.reconstruction.options import ReconstructionOptions
from kernelprune.prune.reconstruction.solvers import eliminate, pursue, refit
from kernelprune.prune.reconstruction.statistics import Equations, Moments, measure

_NOTHING = 1e-12  # of the largest variance: an output channel below is a constant


@dataclass
class Wanted:
    """What to keep of a layer: so many ``blocks``, among them ``held`` (output channel and block).
    ``blocks`` None: all that is there."""

    blocks: int | None = None
    held: tuple[int, int] | None = None


@dataclass
class Fit:
    """``mask``: bool ``[O, I/groups]``; ``weight`` as the module has it, and ``bias``, in float64;
    ``residual``: mean squared error of the outputs in parts of their variance, mean over the output
    channels, with the old weights and with the new ones (of layers without a free constant: in
    parts of the mean square)."""

    mask: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    residual: tuple[float, float]


def room_of(options: ReconstructionOptions) -> int:
    """Bytes for the matrices of output channels side by side, an eighth of the memory."""
    return (options.memory_mb << 20) // 8


def equations_of(
    layer: Layer,
    node: Node,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    options: ReconstructionOptions,
    group: int,
    centred: bool,
) -> tuple[Moments, list[Equations]]:
    """Of a layer whose step reads ``inputs`` and is to give ``outputs``."""
    moments = measure(
        node, layer.groups, inputs, outputs, options.places, (options.memory_mb << 20) // 16
    )
    weight = layer.module.weight.detach().to(inputs[0].device)
    weight = weight.reshape(layer.groups, layer.out_channels // layer.groups, -1)
    taps = weight.shape[2] // layer.shape[1]
    found = moments.equations(weight, centred=centred, ridge=options.ridge, block=taps * group)
    return moments, found


@torch.no_grad()
def fit(
    layer: Layer,
    node: Node,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
    wanted: Wanted,
    options: ReconstructionOptions,
    *,
    absorbed: bool,
) -> Fit:
    """``absorbed``: what the layer's output is moved by as a whole does not matter, since a batch
    norm after it is measured anew."""
    blocks = Blocks.of(layer, options.group)
    centred = absorbed or layer.module.bias is not None
    moments, equations = equations_of(layer, node, inputs, outputs, options, blocks.group, centred)
    kept, found = _choose(layer, blocks, equations, wanted, options)
    mask = blocks.connections(kept) & present_connections(layer).to(kept.device)
    taps = equations[0].block // blocks.group
    if found is None or not bool((mask == blocks.connections(kept)).all()):
        fine = [replace(each, block=taps) for each in equations]
        padded = _padded(mask, blocks.group)
        parts = padded.chunk(len(fine))
        found = [refit(each, own, room_of(options)) for each, own in zip(fine, parts, strict=True)]
    weight = torch.stack(found)  # [groups, R, K]
    size = moments.x.shape[1]
    old = torch.stack([each.weight for each in equations])
    dropped = ~_padded(mask, blocks.group).repeat_interleave(taps, 1).view_as(old)
    before = _relative(equations, old.masked_fill(dropped, 0.0))
    bias = None
    if layer.module.bias is not None:
        x, y = moments.means()
        bias = (y - (weight[..., :size] @ x[:, :, None])[:, :, 0]).flatten()
    shaped = weight[..., :size].reshape(layer.module.weight.shape)
    return Fit(mask, shaped, bias, (before, _relative(equations, weight)))


def _choose(
    layer: Layer,
    blocks: Blocks,
    equations: list[Equations],
    wanted: Wanted,
    options: ReconstructionOptions,
) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
    """What is kept, bool ``[O, B]``, and the weights of each group where the choice gives them."""
    device = equations[0].moments.device
    if wanted.blocks is None:
        return blocks.free.to(device), None
    if options.method == "l1" or layer.depthwise:
        return blocks.largest(wanted.blocks, wanted.held).to(device), None
    counts = blocks.shares(wanted.blocks, wanted.held).to(device)
    held = torch.full_like(counts, -1)
    if wanted.held is not None:
        held[wanted.held[0]] = wanted.held[1]
    kept, weights = [], []
    parts = zip(
        equations, *(each.to(device).chunk(len(equations)) for each in (counts, blocks.free, held)),
        strict=True,
    )  # fmt: skip
    solve = pursue if options.method == "omp" else eliminate
    for each, own_counts, own_free, own_held in parts:
        weight, chosen = solve(
            each, own_counts, own_free, own_held,
            steps=options.solver_steps, room=room_of(options),
        )[:2]  # fmt: skip
        weights.append(weight)
        kept.append(chosen)
    return torch.cat(kept), weights


def _padded(mask: torch.Tensor, group: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (0, -mask.shape[1] % group))


def _relative(equations: list[Equations], weight: torch.Tensor) -> float:
    """Over the output channels that vary; ``weight`` ``[groups, R, K]``."""
    errors = torch.cat([each.errors(own) for each, own in zip(equations, weight, strict=True)])
    energy = torch.cat([each.energy for each in equations])
    varies = energy > _NOTHING * energy.max()
    return float((errors[varies] / energy[varies]).mean()) if bool(varies.any()) else 0.0
