"""Where the scale of each convolution's input maps lives, and moving it out of the batch norm.

``ReLU(gamma x + beta) = |gamma| ReLU(sign(gamma) x + beta / |gamma|)``, and max and average
pooling commute with a positive factor: so |gamma| can move into all readers of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from kernelprune.format.graph import Graph, Node
from kernelprune.prune.layers import Layer, expand

# Below this share of the layer's largest gamma, a map counts as constant: beta / |gamma| would
# drown its variation in rounding.
_CONSTANT = 1e-6


@dataclass
class Rescaling:
    """A batch norm whose |gamma| moves into ``readers`` (reparametrised) and ``compensated``
    (other layers that read the same map; their weights are multiplied in place)."""

    norm: nn.BatchNorm2d
    readers: list[Layer] = field(default_factory=list)
    compensated: list[Layer] = field(default_factory=list)


def _commutes(node: Node) -> bool:
    """Does the op commute with a positive factor per channel?"""
    if node.op == "activation":
        return bool(node.params["activation"] == "relu")
    return node.op in ("max_pool2d", "avg_pool2d", "global_avg_pool")


def find_rescalings(model: nn.Module, graph: Graph, layers: Sequence[Layer]) -> list[Rescaling]:
    """The batch norms that can be rescaled exactly and that some prunable convolution reads.

    A batch norm qualifies when it is called once and has gamma and beta of its own, and when
    everything behind it, through ReLU and pooling, is a convolution, or a flatten with a linear
    layer, whose module is called once. An add, a ReLU6, any other op or a model output forbids it.
    """
    modules = dict(model.named_modules())
    norms = [node for node in graph.nodes if node.op == "batch_norm"]
    found = []
    for node in norms:
        norm = modules.get(node.module or "")
        calls = sum(other.module == node.module for other in norms)
        affine = isinstance(norm, nn.BatchNorm2d) and norm.affine and len(node.shape) == 3
        if not affine or calls != 1 or not {"weight", "bias"} <= set(node.parameters):
            continue
        assert isinstance(norm, nn.BatchNorm2d)
        readers = _readers(graph, node, layers)
        if readers is not None and any(layer.prunable for layer in readers):
            found.append(
                Rescaling(
                    norm,
                    [layer for layer in readers if layer.prunable],
                    [layer for layer in readers if not layer.prunable],
                )
            )
    return found


def _readers(graph: Graph, norm: Node, layers: Sequence[Layer]) -> list[Layer] | None:
    """The layers that read the norm's map; None when one reader cannot take a factor."""
    by_node = {id(node): layer for layer in layers for node in layer.nodes if len(layer.nodes) == 1}
    pending, readers = [norm.output], []
    flat: set[str] = set()
    while pending:
        value = pending.pop()
        if value in graph.outputs:
            return None
        for node in graph.consumers(value):
            if node.has_weight():
                layer = by_node.get(id(node))
                if layer is None or "weight" not in node.parameters:
                    return None
                readers.append(layer)
            elif node.op == "flatten" or (_commutes(node) and value not in flat):
                pending.append(node.output)
                if node.op == "flatten":
                    flat.add(node.output)
            else:
                return None
    return readers


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
        for layer in rescaling.readers + rescaling.compensated:
            _multiply_inputs(layer, factor)
    norm.weight.requires_grad_(False)
    return factor, alive


def _multiply_inputs(layer: Layer, factor: torch.Tensor) -> None:
    weight = layer.module.weight
    if isinstance(layer.module, nn.Linear):
        per_channel = weight.shape[1] // len(factor)  # flattened [C, H, W]: H*W columns each
        weight.mul_(factor.repeat_interleave(per_channel))
        return
    weight.mul_(expand(factor, layer.groups, weight.shape[0])[..., None, None])
