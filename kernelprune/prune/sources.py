"""Where the scale of each convolution's input maps lives, and moving it out of the batch norm.

``ReLU(gamma x + beta) = |gamma| ReLU(sign(gamma) x + beta / |gamma|)``, and max and average
pooling commute with a positive factor: so |gamma| can move into all readers of the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from kernelprune.graph.channels import links
from kernelprune.graph.ir import Graph, Node, Shape
from kernelprune.prune.layers import Layer
from kernelprune.prune.strength import expand

# Below this share of the layer's largest gamma, a map counts as constant: beta / |gamma| would
# drown its variation in rounding.
_CONSTANT = 1e-6


@dataclass
class Reading:
    """``layer`` reads the map from its input ``first`` on (above 0 after a concatenation); each
    channel is ``columns`` inputs of the layer (the pixels, after a flatten)."""

    layer: Layer
    first: int
    columns: int


@dataclass
class Rescaling:
    """A batch norm whose |gamma| moves into ``readers`` (reparametrised) and ``compensated``
    (other layers that read the same map; their weights are multiplied in place)."""

    norm: nn.BatchNorm2d
    readers: list[Reading] = field(default_factory=list)
    compensated: list[Reading] = field(default_factory=list)


def find_rescalings(model: nn.Module, graph: Graph, layers: Sequence[Layer]) -> list[Rescaling]:
    """The batch norms that can be rescaled exactly and that some prunable convolution reads.

    A batch norm qualifies when it is called once and has gamma and beta of its own, and when
    everything after it, through ReLU, pooling and concatenation, is a convolution, or a flatten
    with a linear layer, whose module is called once. An add, a ReLU6, any other op or a model
    output forbids it.
    """
    modules = dict(model.named_modules())
    norms = [node for node in graph.nodes if node.rule.learned_scale(node) is not None]
    found = []
    for node in norms:
        norm = modules.get(node.module or "")
        calls = sum(other.module == node.module for other in norms)
        affine = isinstance(norm, nn.BatchNorm2d) and norm.affine and len(node.shape) == 3
        if not affine or calls != 1 or not {"weight", "bias"} <= set(node.parameters):
            continue
        assert isinstance(norm, nn.BatchNorm2d)
        readers = _readers(graph, node, layers)
        if readers is not None and any(reading.layer.prunable for reading in readers):
            found.append(
                Rescaling(
                    norm,
                    [reading for reading in readers if reading.layer.prunable],
                    [reading for reading in readers if not reading.layer.prunable],
                )
            )
    return found


def _readers(graph: Graph, norm: Node, layers: Sequence[Layer]) -> list[Reading] | None:
    """The layers that read the norm's map; None when one reader cannot take a factor."""
    by_node = {id(node): layer for layer in layers for node in layer.nodes if len(layer.nodes) == 1}
    shapes = graph.shapes()
    pending = [(norm.output, 0, 1)]
    readers: list[Reading] = []
    while pending:
        value, first, columns = pending.pop()
        flat = len(shapes[value]) == 1
        if value in graph.outputs:
            return None
        for node in graph.consumers(value):
            if node.has_weight():
                layer = by_node.get(id(node))
                if layer is None or "weight" not in node.parameters or value != node.inputs[0]:
                    return None
                readers.append(Reading(layer, first, columns))
            elif flat:
                return None
            elif node.rule.rearranges:
                moved = _moved(node, value, shapes)
                if moved is None:
                    return None
                pending += [
                    (node.output, begin + first * copies, columns * copies)
                    for begin, copies in moved
                ]
            elif node.rule.scales_with(node):
                pending.append((node.output, first, columns))
            else:
                return None
    return readers


def _moved(node: Node, value: str, shapes: Mapping[str, Shape]) -> list[tuple[int, int]] | None:
    """Where a rearranging op puts the channels of its input ``value``, for each time that it reads
    it: from the returned channel on, in their order, each as often in a row as the second number
    says. None if it puts them otherwise."""
    found = []
    for link in links(node, shapes):
        if link.value != value:
            continue
        if link.mixed or len(link.pairs) != 1:
            return None
        outputs, sources = link.pairs[0]
        channels = shapes[value][0]
        copies, rest = divmod(len(sources), channels)
        wanted = np.repeat(np.arange(channels), copies)
        in_a_row = np.arange(outputs[0], outputs[0] + len(outputs)) if len(outputs) else outputs
        if rest or not copies or (sources != wanted).any() or (outputs != in_a_row).any():
            return None
        found.append((int(outputs[0]), copies))
    return found


def rescale(rescaling: Rescaling) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves |gamma| out of the batch norm into its readers' weights; the function stays the same.

    The norm keeps ``sign(gamma)``, which no longer trains, and ``beta / |gamma|``. Where gamma is
    zero the map is constant: norm and readers stay as they are.
    Returns |gamma| as moved, ``[C]`` (1 where the map is constant), and bool ``[C]``: not constant.
    """
    norm = rescaling.norm
    with torch.no_grad():
        size = norm.weight.abs()
        alive = size > _CONSTANT * size.max()
        factor = torch.where(alive, size, torch.ones_like(size))
        norm.weight.copy_(torch.where(alive, norm.weight.sign(), norm.weight))
        norm.bias.div_(factor)
        for reading in rescaling.readers + rescaling.compensated:
            _multiply_inputs(reading, factor)
    norm.weight.requires_grad_(False)
    return factor, alive


def _multiply_inputs(reading: Reading, factor: torch.Tensor) -> None:
    layer, first = reading.layer, reading.first
    weight = layer.module.weight
    factors = factor.repeat_interleave(reading.columns)
    if weight.dim() == 2:
        weight[:, first : first + len(factors)].mul_(factors)
        return
    all_inputs = factor.new_ones(layer.in_channels)
    all_inputs[first : first + len(factors)] = factors
    weight.mul_(expand(all_inputs, layer.groups, weight.shape[0])[..., None, None])
