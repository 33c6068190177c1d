"""Which channels a network can lose without changing its function, and which constants move.

One analysis for two users: the graph pass drop_dead_channels and ``kernelprune.compact``. It works
on any Graph, traced or folded:

1. Forward: ``constant[v][c]`` is the number that channel c of value v equals at every pixel of
   every image, or NaN. A convolution's output channel without connections is the constant
   act(bias); a batch norm with scale 0 gives its shift; sums, pools and so on pass constants on.
2. Backward: ``live[v]`` is the least set of channels that must exist. A reader does not need a
   constant channel whose contribution is itself a constant: it goes into the reader's bias. Behind
   zero padding that holds only for the constant 0 (the border sees fewer taps), so any other
   constant channel stays. Elementwise ops tie the channels of their inputs and outputs: one stays
   when any of them must. Graph inputs and outputs stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from kernelprune.graph.ir import Graph, Node, Shape

# Ops whose output channel c is computed from channel c of every input alone.
ELEMENTWISE = (
    "batch_norm", "activation", "add", "max_pool2d", "avg_pool2d", "global_avg_pool",
)  # fmt: skip


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
    tied: Set[str] = frozenset(),
    kept: Mapping[str, np.ndarray] | None = None,
) -> Channels:
    """``pinned``: names of nodes whose inputs and outputs keep all channels. ``tied``: names of
    depthwise convolutions that lose an input channel only together with its output channel (a
    module cannot have it otherwise; a connection pattern can). ``kept``: bool [O, I] by node, as
    ``reads`` gives it, for weights that are zero elsewhere; None asks the weights."""
    if kept is None:
        kept = {node.name: reads(node) for node in graph.nodes if node.has_weight()}
    constant = _constants(graph, kept)
    return Channels(constant, _live(graph, constant, kept, pinned, tied))


def reads(node: Node) -> np.ndarray:
    """bool [O, I]: which output channel reads which input channel (groups expanded)."""
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
    assert node.weight is not None
    used = np.flatnonzero(channels & (constant != 0))  # a few of many columns
    if not used.size:
        return np.zeros(node.weight.shape[0])
    weight, groups = node.weight, int(node.params.get("groups", 1))
    if groups > 1:
        weight = expand_groups(weight, groups)
    sums = weight[:, used].astype(np.float64).reshape(weight.shape[0], used.size, -1).sum(axis=2)
    if kept is not None:
        sums = np.where(kept[:, used], sums, 0.0)
    return np.asarray(sums @ constant[used])


# ---------------------------------------------------------------- forward: constants


def _constants(graph: Graph, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {value.name: np.full(value.shape[0], np.nan) for value in graph.inputs}
    shapes = graph.shapes()
    for node in graph.nodes:
        inputs = [found[name] for name in node.inputs]
        if node.has_weight():
            found[node.output] = _layer_constants(node, inputs, kept[node.name])
        elif node.op == "concat":
            found[node.output] = np.concatenate(inputs)
        elif node.op == "flatten":
            shape = shapes[node.inputs[0]]
            found[node.output] = np.repeat(inputs[0], node.shape[0] // shape[0])
        elif node.op in ELEMENTWISE:
            found[node.output] = _elementwise_constants(node, inputs)
        else:
            found[node.output] = np.full(width_of(node.shape), np.nan)
    return found


def activate(values: np.ndarray, kind: str) -> np.ndarray:
    """NaN stays NaN."""
    if kind == "none":
        return values
    return np.clip(values, 0.0, 6.0 if kind == "relu6" else np.inf)


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


def _elementwise_constants(node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    params = node.params
    if node.op == "batch_norm":
        variance = params["running_var"].astype(np.float64) + params["eps"]
        scale = params["weight"].astype(np.float64) / np.sqrt(variance)
        known = np.where(scale == 0, 0.0, inputs[0] - params["running_mean"])
        return known * scale + params["bias"]
    if node.op in ("add", "activation"):
        return activate(sum(inputs[1:], inputs[0]), params["activation"])
    shrinks = node.op == "avg_pool2d" and params["count_include_pad"] and any(params["padding"])
    # A dilated max pool may have windows that lie in the padding alone.
    skips = node.op == "max_pool2d" and any(params["padding"]) and max(params["dilation"]) > 1
    if skips:
        return np.full_like(inputs[0], np.nan)
    return np.where(inputs[0] == 0, 0.0, np.nan) if shrinks else inputs[0]


# ---------------------------------------------------------------- backward: live channels


def width_of(shape: Shape) -> int:
    """Channels of a value; an opaque one may have any shape, even none."""
    return max(1, shape[0]) if shape else 1


def _live(
    graph: Graph,
    constant: dict[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
    pinned: Set[str],
    tied: Set[str],
) -> dict[str, np.ndarray]:
    live = {name: np.zeros(width_of(shape), bool) for name, shape in graph.shapes().items()}
    for name in [value.name for value in graph.inputs] + graph.outputs:
        live[name][:] = True
    for node in graph.nodes:
        if node.name in pinned or not (node.has_weight() or _ties(node)):
            for name in [*node.inputs, node.output]:
                live[name][:] = True
    readings = {
        node.name: _Reading(kept[node.name], ~movable(node, constant[node.inputs[0]]))
        for node in graph.nodes
        if node.has_weight()
    }
    while True:
        before = sum(int(mask.sum()) for mask in live.values())
        for node in reversed(graph.nodes):
            _spread(node, live, readings)
            if node.name in tied:
                _tie(live[node.inputs[0]], live[node.output])
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


def _ties(node: Node) -> bool:
    return node.op in ELEMENTWISE or node.op in ("concat", "flatten")


def _spread(node: Node, live: dict[str, np.ndarray], readings: dict[str, _Reading]) -> None:
    out = live[node.output]
    if node.has_weight():
        source = live[node.inputs[0]]
        source |= readings[node.name].of(out)
        for residual in node.inputs[1:]:
            _tie(live[residual], out)
    elif node.op in ELEMENTWISE:
        for name in node.inputs:
            _tie(live[name], out)
        for name in node.inputs:
            _tie(live[name], out)
    elif node.op == "concat":
        offset = 0
        for name in node.inputs:
            part = out[offset : offset + live[name].size]
            _tie(live[name], part)
            offset += live[name].size
    elif node.op == "flatten":
        source = live[node.inputs[0]]
        blocks = out.reshape(source.size, -1)
        source |= blocks.any(axis=1)
        blocks |= source[:, None]


def _tie(a: np.ndarray, b: np.ndarray) -> None:
    a |= b
    b |= a
