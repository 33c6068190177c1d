"""Cross-layer equalisation: what a layer's output channel is divided by, the layers that read it
multiply with, so that one scale suits all channels. The network computes the same function.

Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019
(arXiv 1906.04721), with measured ranges of the channels in the place of the writer's weights, whose
output channels have scales of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph, Node, Shape
from kernelprune.graph.ops.base import width_of
from kernelprune.prune.batches import Inputs
from kernelprune.prune.progress import Progress

_MOST = 100.0  # a channel is scaled by, up or down


@dataclass
class Pair:
    """``writer``: the layer whose output channels are scaled. ``readers``: those that undo it, each
    with the writer's channel of every input channel of its own."""

    writer: Node
    readers: list[tuple[Node, np.ndarray]]


def equalized(graph: Graph, batches: Sequence[Inputs], tell: Progress) -> Graph:
    """A copy of ``graph`` with the same function; see Pair for where it differs."""
    found = graph.copy()
    pairs = find_pairs(found)
    largest = _largest(graph, {pair.writer.output for pair in pairs}, batches, tell)
    for pair in pairs:
        _scale(pair, largest[pair.writer.output])
    return found


def find_pairs(graph: Graph) -> list[Pair]:
    """Layers between whose output and the layers that read it nothing minds a factor by channel."""
    shapes = graph.shapes()
    pairs = []
    for node in graph.nodes:
        if node.has_weight() and len(node.inputs) == 1 and node.params["activation"] != "relu6":
            readers = _readers(graph, shapes, node)
            if readers:
                pairs.append(Pair(node, readers))
    return pairs


def _readers(
    graph: Graph, shapes: dict[str, Shape], writer: Node
) -> list[tuple[Node, np.ndarray]] | None:
    """None where something else than a layer reads the channels as they are."""
    found: list[tuple[Node, np.ndarray]] = []
    left = [(writer.output, np.arange(writer.shape[0]))]
    while left:
        value, channels = left.pop()
        if value in graph.outputs:
            return None
        for node in graph.consumers(value):
            if node.has_weight():
                if value in node.inputs[1:]:
                    return None
                found.append((node, channels))
                continue
            through = _through(node, shapes)
            if through is None:
                return None
            left.append((node.output, channels[through]))
    return found


def _through(node: Node, shapes: dict[str, Shape]) -> np.ndarray | None:
    """The input channel that each output channel is made of, times any positive factor of it; None
    for other ops."""
    if len(node.inputs) != 1 or not (node.rule.rearranges or node.rule.scales_with(node)):
        return None
    (table,) = node.rule.channel_sources(node, [shapes[node.inputs[0]]])
    if table is None:
        return None
    table = table.reshape(width_of(node.shape), -1)
    return table[:, 0] if table.shape[1] == 1 and (table >= 0).all() else None


def _largest(
    graph: Graph, names: set[str], batches: Sequence[Inputs], tell: Progress
) -> dict[str, np.ndarray]:
    """Of every channel of these values the largest size, [C]."""
    found: dict[str, torch.Tensor] = {}

    def see(name: str, numbers: torch.Tensor) -> None:
        if name in names:
            own = numbers.abs().transpose(0, 1).flatten(1).amax(1)
            found[name] = torch.maximum(found[name], own) if name in found else own

    twin = GraphModel(graph)
    for position, batch in enumerate(batches):
        tell("measuring channels", position / len(batches))
        twin.run(batch, see)
    return {name: own.double().numpy() for name, own in found.items()}


def _scale(pair: Pair, largest: np.ndarray) -> None:
    """Divides the channels by factors in proportion to sqrt(range / weight), where the weight is
    the largest that a reader has for the channel, in parts of the largest of its row. Where every
    row reads one channel, by the range: its own scale takes the rest."""
    weights = np.zeros_like(largest)
    one_each = True
    for node, channels in pair.readers:
        kept = node.sparse()
        rows, sizes = kept.rows(), np.abs(kept.weight).max(axis=(1, 2), initial=0.0)
        most = np.zeros(node.shape[0])
        np.maximum.at(most, rows, sizes)
        own = channels[kept.col.astype(np.int64)]
        np.maximum.at(weights, own, sizes / np.maximum(most[rows], 1e-300))
        one_each &= bool((np.diff(kept.row_ptr.astype(np.int64)) <= 1).all())
    usable = (largest > 0) & (weights > 0)
    if not usable.any():
        return
    factors = np.ones_like(largest)
    ratio = largest[usable] if one_each else np.sqrt(largest[usable] / weights[usable])
    ratio = ratio / np.exp(np.log(ratio).mean())
    factors[usable] = np.clip(ratio, 1 / _MOST, _MOST)
    _scale_layer(pair.writer, 1 / factors, None)
    for node, channels in pair.readers:
        _scale_layer(node, None, factors[channels])


def _scale_layer(node: Node, outputs: np.ndarray | None, inputs: np.ndarray | None) -> None:
    """Multiplies weights by a factor of their output channel, and the bias with them, or of their
    input channel."""
    kept = node.sparse()
    if outputs is not None:
        factors = outputs[kept.rows()]
        if node.bias is not None:
            node.bias = (node.bias * outputs).astype(node.bias.dtype)
    else:
        assert inputs is not None
        factors = inputs[kept.col.astype(np.int64)]
    weight = kept.weight * factors[:, None, None]
    node.set_sparse(kept.with_weight(weight.astype(kept.weight.dtype)))
