"""Which convolutions can lose input channels: scores per channel become masks per connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from kernelprune.format.graph import Graph, Node
from kernelprune.prune.layers import Layer

_PASSES_ON = ("batch_norm", "activation", "max_pool2d", "avg_pool2d", "global_avg_pool")


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
        if any(node.op == "concat" for node in consumers):
            return True
        alone = alone and len(consumers) == 1 and value not in graph.outputs
        producer = graph.producer(value)
        if producer is None or producer.op == "concat":
            return producer is not None
        if producer.op == "conv2d" and producer.params.get("groups", 1) == 1:
            return alone
        depthwise = producer.op == "conv2d" and producer.params["groups"] == producer.shape[0]
        if not (depthwise or producer.op in _PASSES_ON):
            return False
        value = producer.inputs[0]


def expand_channels(
    kept: Mapping[str, torch.Tensor], layers: Sequence[Layer]
) -> dict[str, torch.Tensor]:
    """bool ``[1, I]`` or ``[I]`` per layer -> connection masks ``[O, I]``."""
    rows = {layer.name: layer.out_channels for layer in layers}
    return {name: mask.reshape(1, -1).repeat(rows[name], 1) for name, mask in kept.items()}
