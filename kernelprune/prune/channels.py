"""Which layers choose input channels one layer at a time (DCP), and which batch norm scales
these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from kernelprune.graph.ir import Graph
from kernelprune.prune.candidates import CoupledSet
from kernelprune.prune.layers import Layer
from kernelprune.prune.pools import ChannelPools


@dataclass
class Follower:
    """``layer`` reads the channels that another one does: ``places`` has for each of its inputs the
    input of that one, ``[I]``."""

    layer: Layer
    places: np.ndarray

    def mask(self, chosen: torch.Tensor) -> torch.Tensor:
        """bool ``[O, I]``: what is left of it when the other layer keeps ``chosen`` (bool ``[O,
        I]``, the same in every row)."""
        kept = chosen[0][torch.from_numpy(self.places).to(chosen.device)]
        return kept.expand(self.layer.shape).clone()


@dataclass
class ChannelReaders:
    """``layers``: the prunable convolutions without groups, and linear layers on maps, whose input
    channels may go, in the order of the graph. ``followers``: by the name of one of these the
    layers that read the same channels and no others, so that they lose what it does (the squeezing
    layer of a squeeze-and-excitation).

    The layers are the readers of channels that go as a whole (see ChannelPools): all of a VGG, the
    inner ones of a residual block (basic: the second; bottleneck: the second and third), those of a
    MobileNet or EfficientNet block behind the depthwise convolution. Readers of a concatenation are
    included too: their connections go, and a channel itself goes once all its readers have dropped
    it. Channels that would have to go as many from each of several parts are left alone.
    """

    layers: list[Layer]
    followers: dict[str, list[Follower]] = field(default_factory=dict)


def channel_readers(graph: Graph, layers: Sequence[Layer]) -> ChannelReaders:
    channels = ChannelPools(graph, layers)
    able = [layer for layer in channels.readers if channels.alone(layer.name)]
    led: dict[frozenset[int], list[Layer]] = {}
    for layer in able:
        if layer.name not in channels.joined:
            led.setdefault(frozenset(channels.inputs[layer.name].tolist()), []).append(layer)
    found = ChannelReaders([layer for layer in able if layer.prunable and layer.groups == 1])
    for readers in led.values():
        leaders = [layer for layer in readers if layer in found.layers]
        if not leaders:
            continue
        leader = max(leaders, key=lambda layer: int(np.prod(layer.kernel)) * layer.out_channels)
        own = channels.inputs[leader.name]
        first = {int(number): place for place, number in reversed(list(enumerate(own)))}
        others = [layer for layer in readers if layer is not leader]
        found.followers[leader.name] = [
            Follower(
                layer, np.array([first[number] for number in channels.inputs[layer.name].tolist()])
            )
            for layer in others
        ]
        found.layers = [layer for layer in found.layers if layer not in others]
    return found


def coupled_sets(graph: Graph, layers: Sequence[Layer]) -> list[CoupledSet]:
    """The sets of channels that may go in several layers at once, those of residual sums too, in
    the order in which their last layers are called. Layers that share a channel are in one set, so
    each is in one.

    Channels that would have to go as many from each of several parts are left alone, and those that
    a frozen layer reads.
    """
    channels = ChannelPools(graph, layers, coupled=True)
    free = channels.alone_classes()
    for layer in channels.readers:
        if not layer.module.weight.requires_grad:
            free[channels.inputs[layer.name]] = False
    readers = [layer for layer in channels.readers if free[channels.inputs[layer.name]].any()]
    order = {id(node): place for place, node in enumerate(graph.nodes)}
    found: list[CoupledSet] = []
    for group in _connected(readers, channels.inputs, free):
        classes = np.unique(np.concatenate([channels.inputs[layer.name] for layer in group]))
        classes = classes[free[classes]]
        number = np.full(len(free), -1)
        number[classes] = np.arange(len(classes))
        places = {layer.name: number[channels.inputs[layer.name]] for layer in group}
        _, pools = np.unique(channels.kinds[classes], return_inverse=True)
        last = max(group, key=lambda layer: order[id(layer.nodes[0])])
        found.append(CoupledSet(group, places, pools, last))
    return sorted(found, key=lambda each: order[id(each.last.nodes[0])])


def _connected(
    readers: Sequence[Layer], inputs: Mapping[str, np.ndarray], free: np.ndarray
) -> list[list[Layer]]:
    """Readers that share free classes, directly or through others, together."""
    groups: list[tuple[set[int], list[Layer]]] = []
    for layer in readers:
        own = inputs[layer.name]
        classes, members = set(own[free[own]].tolist()), [layer]
        apart = []
        for others, group in groups:
            if others.isdisjoint(classes):
                apart.append((others, group))
            else:
                classes, members = others | classes, group + members
        groups = [*apart, (classes, members)]
    return [members for _, members in groups]


def input_scales(graph: Graph, layer: Layer) -> torch.Tensor | None:
    """gamma ``[I]`` of the batch norms that a layer's input channels come from; None where one does
    not come from a batch norm through operators alone that make channel c of channel c. Of a gate's
    product it is that of the map."""
    if len(layer.nodes) != 1:
        return None
    found = _scales(graph, layer.nodes[0].inputs[0])
    return None if found is None else torch.from_numpy(found)


def _scales(graph: Graph, value: str) -> np.ndarray | None:
    node = graph.producer(value)
    if node is None:
        return None
    scale = node.rule.learned_scale(node)
    if scale is not None:
        return scale
    if node.has_weight() or node.rule.is_sum:
        return None
    shapes = graph.shapes()
    found = np.full(node.shape[0] if node.shape else 1, np.nan)
    tables = node.rule.channel_sources(node, [shapes[name] for name in node.inputs])
    for name, table in zip(node.inputs, tables, strict=True):
        own = None if table is None or table.ndim != 1 else _scales(graph, name)
        if own is not None and table is not None:
            here = np.isnan(found) & (table >= 0)
            found[here] = own[table[here]]
    return None if np.isnan(found).any() else found
