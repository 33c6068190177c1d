"""From a traced graph to the ops of a file. Each pass changes the graph in place and keeps its
function; folding is done in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernelprune.graph.channels import (
    Channels,
    analyse,
    movable,
    moved_bias,
)
from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import Graph, Node, Shape, infer_shape
from kernelprune.graph.ops.activation import fused
from kernelprune.graph.ops.base import width_of


def run_all(graph: Graph, *, keep_dead: bool = False) -> Graph:
    """All passes in order; ``keep_dead`` leaves dead channels in place."""
    to_float64(graph)
    drop_unread_nodes(graph)
    expand_group_weights(graph)
    drop_trace_parameters(graph)
    fold_padding(graph)
    fold_scale_and_shift(graph)
    fuse_activations(graph)
    fuse_residuals(graph)
    fuse_activations(graph)
    if not keep_dead:
        drop_dead_channels(graph)
    return graph


def to_float64(graph: Graph) -> None:
    """All arrays in float64, and a bias on every layer."""
    for node in graph.nodes:
        if node.has_weight():
            node.cast_weight(np.float64)
            bias = np.zeros(node.shape[0]) if node.bias is None else node.bias
            node.bias = bias.astype(np.float64)
        _cast_tensors(node, np.float64)


def to_dtype(graph: Graph, dtype: np.dtype | type) -> None:
    """All arrays but integers in ``dtype``."""
    for node in graph.nodes:
        if node.has_weight() and node.weight_scale is None:
            assert node.bias is not None
            node.cast_weight(dtype)
            node.bias = node.bias.astype(dtype)
        _cast_tensors(node, dtype)


def _cast_tensors(node: Node, dtype: np.dtype | type) -> None:
    for role, array in node.tensors.items():
        if np.issubdtype(array.dtype, np.floating):
            node.tensors[role] = array.astype(dtype)


def drop_unread_nodes(graph: Graph) -> None:
    """Removes nodes that no graph output depends on."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    graph.nodes[:] = reversed(kept)


def expand_group_weights(graph: Graph) -> None:
    """Grouped convolution -> a block-diagonal pattern, held as a list: the dense weight would be
    ``groups`` times as large, 900 MB for a depthwise layer of 1536 channels."""
    for node in graph.nodes:
        if node.has_weight():
            assert node.weight is not None
            total, node.groups = node.all_connections(), int(node.params.pop("groups", 1))
            if node.groups > 1:
                node.set_sparse(Connections.from_groups(node.weight, node.groups))
            node.set_all_connections(total)


def drop_trace_parameters(graph: Graph) -> None:
    """Removes what trace notes of a node beside the parameters that its op has in a file."""
    for node in graph.nodes:
        if node.rule.in_file:
            names = {parameter.name for parameter in node.rule.parameters}
            node.params = {name: node.params[name] for name in node.params if name in names}


def fold_padding(graph: Graph) -> None:
    """A pad becomes the padding of the convolutions and pools that read it, where all of them can
    have as much: else it would be copied for nothing."""
    readers = _Readers(graph)
    for node in list(graph.nodes):
        found = node.rule.laid_around(node)
        if found is None or node.output in graph.outputs:
            continue
        ends, value = found
        own = graph.consumers(node.output)
        changed = [reader.params for reader in own]
        if all(
            reader.inputs.count(node.output) == 1
            and reader.inputs[0] == node.output
            and reader.rule.absorb_padding(reader, ends, value)
            for reader in own
        ):
            readers.bypass(node, node.inputs[0])
        else:
            for reader, params in zip(own, changed, strict=True):
                reader.params = params


def fold_scale_and_shift(graph: Graph) -> None:
    """A batch norm, or what else is y = x * s + t by channel, folds into the op that produces x
    when nothing else reads x, also through ops that only rearrange it; else it becomes an op that a
    file can hold."""
    readers = _Readers(graph)
    for node in list(graph.nodes):
        found = node.rule.scale_and_shift(node)
        if found is None:
            continue
        source, parts = _before_rearranging(readers, node, found)
        if source is not None and source.rule.absorb(source, *parts):
            readers.bypass(node, node.inputs[0])
        else:
            node.rule.lower(node)


def _before_rearranging(
    readers: _Readers, node: Node, parts: Sequence[np.ndarray]
) -> tuple[Node | None, list[np.ndarray]]:
    """The op that makes the numbers of the node's input, and ``parts``, one number per channel of
    it, by the channels of this op's output. None where they differ within one of these."""
    found = list(parts)
    source = readers.sole_producer(node.inputs[0])
    while source is not None and _only_rearranges(source):
        shape = readers.graph.shapes()[source.inputs[0]]
        (table,) = source.rule.channel_sources(source, [shape])
        if table is None:
            return None, found
        table = table.reshape(width_of(source.shape), -1)  # [output channels, n]
        for place, part in enumerate(found):
            before = np.ones(width_of(shape)) if place == 0 else np.zeros(width_of(shape))
            before[table] = part[:, None]
            if (before[table] != part[:, None]).any():
                return None, found
            found[place] = before
        source = readers.sole_producer(source.inputs[0])
    return source, found


def _only_rearranges(node: Node) -> bool:
    return node.rule.rearranges and len(node.inputs) == 1


def _is_plain(layer: Node) -> bool:
    return len(layer.inputs) == 1 and layer.params["activation"] == "none"


def fuse_activations(graph: Graph) -> None:
    """Moves an activation into the op that produces its input, if that ends with an activation. It
    also moves through ops that it commutes with: those that rearrange elements, and max pools, as
    no activation ever falls."""
    readers = _Readers(graph)
    for node in list(graph.nodes):
        kind = node.rule.activation_of(node)
        if kind is None:
            continue
        source = readers.sole_producer(node.inputs[0])
        while source is not None and (
            source.rule.commutes_with_monotone or _only_rearranges(source)
        ):
            source = readers.sole_producer(source.inputs[0])
        if source is not None and "activation" in source.params:
            source.params["activation"] = fused(source.params["activation"], kind)
            readers.bypass(node, node.inputs[0])


def fuse_residuals(graph: Graph) -> None:
    """add(conv(x), r) -> conv(x, r): of the two operands the later one that is a plain layer which
    nothing else reads. The layer moves to the place of the add, where r is ready."""
    readers = _Readers(graph)
    for add in list(graph.nodes):
        if not add.rule.is_sum or add.inputs[0] == add.inputs[1]:
            continue
        layers = [readers.sole_producer(name) for name in add.inputs]
        order = {id(node): position for position, node in enumerate(graph.nodes)}
        candidates = [
            (order[id(layer)], side)
            for side, layer in enumerate(layers)
            if layer is not None and layer.has_weight() and _is_plain(layer)
        ]
        if not candidates:
            continue
        side = max(candidates)[1]
        layer = layers[side]
        assert layer is not None
        layer.inputs.append(add.inputs[1 - side])
        layer.params["activation"] = add.params["activation"]
        graph.nodes.remove(layer)
        graph.nodes.insert(graph.nodes.index(add), layer)
        readers.bypass(add, layer.output)
        readers.refresh()


class _Readers:
    """Who writes and who reads every value, kept up to date while nodes are removed."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.refresh()

    def refresh(self) -> None:
        self.writer = {node.output: node for node in self.graph.nodes}
        self.count: dict[str, int] = {}
        for name in [*self.graph.outputs, *(n for node in self.graph.nodes for n in node.inputs)]:
            self.count[name] = self.count.get(name, 0) + 1

    def sole_producer(self, value: str) -> Node | None:
        """The node that writes ``value``, when exactly one node reads it and it is no output."""
        if self.count.get(value) != 1 or value in self.graph.outputs:
            return None
        return self.writer.get(value)

    def bypass(self, node: Node, value: str) -> None:
        """Removes ``node``; everything that read its output reads ``value`` instead."""
        graph = self.graph
        graph.nodes[:] = [other for other in graph.nodes if other is not node]
        for other in graph.nodes:
            other.inputs = [value if name == node.output else name for name in other.inputs]
        graph.outputs[:] = [value if name == node.output else name for name in graph.outputs]
        self.refresh()


# ---------------------------------------------------------------- dead channels


def drop_dead_channels(graph: Graph) -> None:
    """Removes channels that nobody needs, and connections that carry a constant; the constants go
    into the biases (see channels.py). The graph must have groups expanded."""
    channels = analyse(graph)
    for node in graph.nodes:
        if node.has_weight():
            _shrink_layer(node, channels)
        else:
            keep = channels.live[node.output]
            node.shape = (int(keep.sum()), *node.shape[1:])
            node.rule.shrink(node, [channels.live[name] for name in node.inputs], keep)
    _infer_shapes(graph)


def _shrink_layer(node: Node, channels: Channels) -> None:
    source, out = channels.live[node.inputs[0]], channels.live[node.output]
    constant = channels.constant[node.inputs[0]]
    moves = movable(node, constant)
    bias = np.zeros(node.shape[0]) if node.bias is None else node.bias
    node.bias = (bias + moved_bias(node, moves, constant))[out]
    if node.weight_step is not None and node.weight_step.size == out.size:
        node.weight_step = node.weight_step[..., out]
    kept = ~moves
    if node.is_sparse():
        node.set_sparse(node.sparse().between(out, source, kept))
    else:
        assert node.weight is not None
        weight = np.where(kept.reshape(1, -1, *[1] * (node.weight.ndim - 2)), node.weight, 0)
        node.weight = np.ascontiguousarray(weight[out][:, source]).astype(node.weight.dtype)
    node.shape = (int(out.sum()), *node.shape[1:])
    rows, columns = (mask.reshape(node.groups, -1).sum(axis=1) for mask in (out, source))
    node.set_all_connections(int(rows @ columns))


def _infer_shapes(graph: Graph) -> None:
    shapes: dict[str, Shape] = {value.name: value.shape for value in graph.inputs}
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        node.shape = shapes[node.output] = infer_shape(node.op, inputs, node.params, node.shape)


def float_type(graph: Graph) -> type:
    """float64 when any weight of a traced graph is float64, else float32."""
    arrays = [node.weight for node in graph.nodes if node.has_weight()]
    return (
        np.float64 if any(a is not None and a.dtype == np.float64 for a in arrays) else np.float32
    )
