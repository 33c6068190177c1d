"""Which convolutions can lose input channels, and which batch norm scales those have."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernelprune.graph.ir import Graph, Node
from kernelprune.prune.layers import Layer


def _passes_on(node: Node) -> bool:
    """Is channel c of the result made of channel c of the one input?"""
    return len(node.inputs) == 1 and (node.rule.channelwise or node.rule.elementwise)


def _joins(node: Node) -> bool:
    """Are the channels of the result those of several inputs?"""
    return len(node.inputs) > 1 and node.rule.rearranges


def channel_layers(graph: Graph, layers: Sequence[Layer]) -> list[Layer]:
    """The prunable convolutions whose input channels may go, in the order of the graph.

    Those are the readers of a map of their own: nothing else reads it, back to the convolution
    that writes it, through batch norms, activations, pools and depthwise convolutions. So all
    layers of a VGG, the inner ones of a residual block (basic: the second; bottleneck: the second
    and third), the pointwise ones of a MobileNet. Sums and what shortcuts read stay whole. Readers
    of a concatenation are included too: their connections go, and a channel itself goes once all
    its readers have dropped it.
    """
    by_node = {id(node): layer for layer in layers for node in layer.nodes}
    found: list[Layer] = []
    for node in graph.nodes:
        layer = by_node.get(id(node))
        plain = layer is not None and layer.prunable and layer.groups == 1
        if layer is None or not plain or layer in found:
            continue
        if len(layer.nodes) == 1 and _may_lose_inputs(graph, node):
            found.append(layer)
    return found


def _may_lose_inputs(graph: Graph, reader: Node) -> bool:
    value = reader.inputs[0]
    alone = True
    while True:
        consumers = graph.consumers(value)
        if any(_joins(node) for node in consumers):
            return True
        alone = alone and len(consumers) == 1 and value not in graph.outputs
        producer = graph.producer(value)
        if producer is None or _joins(producer):
            return producer is not None
        groups = producer.params.get("groups", 1)
        if producer.has_weight() and groups == 1:
            return alone
        depthwise = producer.has_weight() and groups == producer.shape[0]
        if not (depthwise or _passes_on(producer)):
            return False
        value = producer.inputs[0]


def input_scales(graph: Graph, layer: Layer) -> torch.Tensor | None:
    """gamma ``[I]`` of the batch norms that a layer's input channels come from; None where one
    does not come from a batch norm, through activations, pools and concatenations alone."""
    if len(layer.nodes) != 1:
        return None
    return _scales(graph, layer.nodes[0].inputs[0])


def _scales(graph: Graph, value: str) -> torch.Tensor | None:
    node = graph.producer(value)
    if node is None:
        return None
    scale = node.rule.learned_scale(node)
    if scale is not None:
        return torch.from_numpy(scale)
    if _joins(node):
        parts = [_scales(graph, name) for name in node.inputs]
        found = [part for part in parts if part is not None]
        return torch.cat(found) if len(found) == len(parts) else None
    return _scales(graph, node.inputs[0]) if _passes_on(node) else None
