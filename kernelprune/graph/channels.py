"""Which channels a network can lose without changing its function, and which constants move.

One analysis for two users: the graph pass drop_dead_channels and ``kernelprune.compact``. It works
on any Graph, traced or folded:

1. Forward: ``constant[v][c]`` is the number that channel c of value v equals at every pixel of
   every image, or NaN. A convolution's output channel without connections is the constant
   act(bias); a batch norm with scale 0 gives its shift; sums, pools and so on pass constants on.
2. Backward: ``live[v]`` is the least set of channels that must exist. A reader does not need a
   constant channel whose contribution is itself a constant: it goes into the reader's bias. Behind
   zero padding that holds only for the constant 0 (the border sees fewer taps), so any other
   constant channel stays. Other ops say which input channels an output channel is made of: those
   stay with it, and it with them unless the op can leave it out. Graph inputs and outputs stay
   whole. Where the connections of a reader were chosen in groups of four input channels, a channel
   goes only with all of its group: kernels read four neighbours at once, and channels that moved up
   would divide every group behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import Graph, Node, Shape
from kernelprune.graph.ops.activation import activate
from kernelprune.graph.ops.base import width_of

_FOUR = 4  # input channels that kernels of bytes read at once


@dataclass
class Channels:
    """``constant[v]``: float64 [C], NaN where the channel varies; ``live[v]``: bool [C]."""

    constant: dict[str, np.ndarray]
    live: dict[str, np.ndarray]

    def all_live(self) -> bool:
        return all(mask.all() for mask in self.live.values())


def analyse(
    graph: Graph,
    pinned: Set[str] = frozenset(),
    kept: Mapping[str, np.ndarray] | None = None,
) -> Channels:
    """``pinned``: names of nodes whose inputs and outputs keep all channels. ``kept``: bool [O, I]
    by node, as ``reads`` gives it, for weights that are zero elsewhere; None asks the weights."""
    if kept is None:
        kept = {node.name: reads(node) for node in graph.nodes if node.has_weight()}
    constant = _constants(graph, kept)
    return Channels(constant, _live(graph, constant, kept, pinned))


def reads(node: Node) -> np.ndarray:
    """bool [O, I]: which output channel reads which input channel (groups expanded)."""
    if node.is_sparse():
        return node.sparse().pattern()
    assert node.weight is not None
    kept = np.asarray(node.weight.reshape(*node.weight.shape[:2], -1).any(axis=2))
    return expand_groups(kept, node.params.get("groups", 1))


def expand_groups(weight: np.ndarray, groups: int) -> np.ndarray:
    """[O, I/groups, ...] -> [O, I, ...] with zeros outside the diagonal blocks."""
    if groups == 1:
        return weight
    rows, width = weight.shape[0] // groups, weight.shape[1]
    dense = np.zeros((weight.shape[0], width * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        block = slice(group * rows, (group + 1) * rows)
        dense[block, group * width : (group + 1) * width] = weight[block]
    return dense


def movable(node: Node, constant: np.ndarray) -> np.ndarray:
    """bool [I]: input channels of a conv2d or linear node that can move into its bias."""
    with np.errstate(invalid="ignore"):
        if any(node.params.get("padding", ())):
            return constant == 0
        return np.isfinite(constant)


def moved_bias(
    node: Node, channels: np.ndarray, constant: np.ndarray, kept: np.ndarray | None = None
) -> np.ndarray:
    """float64 [O]: what the constant input ``channels`` (bool [I]) add to every output pixel,
    through the connections of ``kept`` (bool [O, I]; None takes all)."""
    used = np.flatnonzero(channels & (constant != 0))  # a few of many columns
    if not used.size:
        return np.zeros(node.shape[0])
    if node.is_sparse():
        return _moved_sparse(node.sparse(), channels, constant, kept)
    assert node.weight is not None
    weight, groups = node.weight, int(node.params.get("groups", 1))
    if groups > 1:
        weight = expand_groups(weight, groups)
    sums = weight[:, used].astype(np.float64).reshape(weight.shape[0], used.size, -1).sum(axis=2)
    if kept is not None:
        sums = np.where(kept[:, used], sums, 0.0)
    return np.asarray(sums @ constant[used])


def _moved_sparse(
    connections: Connections, channels: np.ndarray, constant: np.ndarray, kept: np.ndarray | None
) -> np.ndarray:
    """moved_bias() of a layer whose connections are a list."""
    rows, columns = connections.rows(), connections.col.astype(np.int64)
    counts = channels[columns]
    if kept is not None:
        counts &= kept[rows, columns]
    rows, columns = rows[counts], columns[counts]
    sums = connections.weight[counts].astype(np.float64).sum(axis=(1, 2))
    return np.bincount(rows, sums * constant[columns], minlength=connections.out_channels)


# ---------------------------------------------------------------- forward: constants


def _constants(graph: Graph, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {value.name: np.full(value.shape[0], np.nan) for value in graph.inputs}
    shapes = graph.shapes()
    for node in graph.nodes:
        inputs = [found[name] for name in node.inputs]
        if node.has_weight():
            found[node.output] = _layer_constants(node, inputs, kept[node.name])
        else:
            own = [shapes[name] for name in node.inputs]
            with np.errstate(invalid="ignore"):
                found[node.output] = node.rule.constants(node, own, inputs)
    return found


def _layer_constants(node: Node, inputs: list[np.ndarray], kept: np.ndarray) -> np.ndarray:
    can_move = movable(node, inputs[0])
    varies = (kept[:, ~can_move] if can_move.any() else kept).any(axis=1)
    if varies.all():
        return np.full(varies.shape, np.nan)
    total = moved_bias(node, can_move, inputs[0], kept)
    if node.bias is not None:
        total = total + node.bias
    if len(inputs) == 2:
        total = total + inputs[1]
    return np.where(varies, np.nan, activate(total, node.params["activation"]))


# ---------------------------------------------------------------- which channel is made of which


@dataclass
class Link:
    """Between an input ``value`` and the output of an op without connections.

    ``pairs``: arrays of output channels and of the input channels that these are made of, as long;
    several such pairs when an output channel is made of several. Empty with ``mixed``: then every
    output channel may need every channel of the input. ``tied``: an input channel that stays keeps
    the output channels made of it.
    """

    value: str
    mixed: bool
    tied: bool
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


def links(node: Node, shapes: Mapping[str, Shape]) -> list[Link]:
    """One for each input of an op without connections; ``shapes``: of all values."""
    own = [shapes[name] for name in node.inputs]
    width = width_of(node.shape)
    found = []
    tables = node.rule.channel_sources(node, own)
    for name, table, tied in zip(node.inputs, tables, node.rule.ties(node, own), strict=True):
        link = Link(name, table is None, tied)
        if table is not None:
            for sources in table.reshape(width, -1).T:
                outputs = np.flatnonzero(sources >= 0)
                link.pairs.append((outputs, sources[outputs]))
        found.append(link)
    return found


def in_fours(node: Node, kept: np.ndarray) -> bool:
    """Do the connections of a layer, bool ``[O, I]``, look as if chosen in groups of four
    neighbouring input channels (or multiples of it)? Not where all outputs read the same inputs,
    which is what the pruning of channels leaves, and not where the layer itself has groups."""
    if node.groups > 1 or node.params.get("groups", 1) > 1 or kept.shape[1] <= _FOUR:
        return False
    rows = kept[kept.any(axis=1)]
    starts = np.arange(0, kept.shape[1], _FOUR)
    some = np.logical_or.reduceat(rows, starts, axis=1)
    whole = np.array_equal(some, np.logical_and.reduceat(rows, starts, axis=1))
    return whole and bool((some != some[:1]).any())


def _fill_fours(live: np.ndarray) -> None:
    groups = np.logical_or.reduceat(live, np.arange(0, len(live), _FOUR))
    live |= np.repeat(groups, _FOUR)[: len(live)]


# ---------------------------------------------------------------- backward: live channels


def _live(
    graph: Graph,
    constant: dict[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    pinned: Set[str],
) -> dict[str, np.ndarray]:
    shapes = graph.shapes()
    live = {name: np.zeros(width_of(shape), bool) for name, shape in shapes.items()}
    for name in [value.name for value in graph.inputs] + graph.outputs:
        live[name][:] = True
    linked = {node.name: links(node, shapes) for node in graph.nodes if not node.has_weight()}
    for node in graph.nodes:
        mixed = [link.mixed for link in linked.get(node.name, [])]
        whole = [name for name, all_of_it in zip(node.inputs, mixed, strict=False) if all_of_it]
        if mixed and all(mixed):
            whole.append(node.output)
        if node.name in pinned:
            whole = [*node.inputs, node.output]
        for name in whole:
            live[name][:] = True
    readings = {
        node.name: _Reading(kept[node.name], ~movable(node, constant[node.inputs[0]]))
        for node in graph.nodes
        if node.has_weight()
    }
    fours = {
        node.inputs[0]
        for node in graph.nodes
        if node.has_weight() and in_fours(node, kept[node.name])
    }
    while True:
        before = sum(int(mask.sum()) for mask in live.values())
        for name in fours:
            _fill_fours(live[name])
        for node in reversed(graph.nodes):
            if node.has_weight():
                _spread_layer(node, live, readings[node.name])
            else:
                _spread(live[node.output], live, linked[node.name])
        if before == sum(int(mask.sum()) for mask in live.values()):
            empty = next((mask for mask in live.values() if not mask.any()), None)
            if empty is None:
                return live
            empty[0] = True  # a value keeps one channel: no shape may be empty


class _Reading:
    """Which inputs a layer needs (``kept`` [O, I], of the inputs that ``count``) for more and more
    of its outputs: each is looked at once."""

    def __init__(self, kept: np.ndarray, count: np.ndarray):
        self.kept, self.count = kept, count
        self.seen = np.zeros(kept.shape[0], bool)

    def of(self, out: np.ndarray) -> np.ndarray:
        fresh = out & ~self.seen
        self.seen |= fresh
        if not fresh.any():
            return np.zeros(self.count.shape, bool)
        rows = self.kept if fresh.all() else self.kept[fresh]
        return np.asarray(rows.any(axis=0) & self.count)


def _spread_layer(node: Node, live: dict[str, np.ndarray], reading: _Reading) -> None:
    out = live[node.output]
    source = live[node.inputs[0]]
    source |= reading.of(out)
    for residual in node.inputs[1:]:
        _tie(live[residual], out)


def _spread(out: np.ndarray, live: dict[str, np.ndarray], linked: list[Link]) -> None:
    for link in linked:
        for outputs, sources in link.pairs if link.tied else ():
            out[outputs[live[link.value][sources]]] = True
    for link in linked:
        for outputs, sources in link.pairs:
            live[link.value][sources[out[outputs]]] = True


def _tie(a: np.ndarray, b: np.ndarray) -> None:
    a |= b
    b |= a
