"""Bytes of what another tool has rounded: nodes that do so become quantizations of values,
and weights that are multiples of a step become integers.

What a file cannot express exactly stays float32, and is named: nothing is rounded anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import Graph, Node, Value
from kernelprune.graph.ops.fake_quantize import make_clamp, make_move, rounds
from kernelprune.graph.quantization import (
    LEVELS,
    MAX_SCALE,
    MAX_SUM,
    MAX_WEIGHT,
    MIN_SCALE,
    Quantization,
    quantizations,
    row_sums,
)

# Of a step: how far weights, which went through float32 and a folded batch norm, may be from whole.
_WHOLE = 1e-2
_MAX_BIAS = 1 << 30


def round_to_bytes(graph: Graph) -> list[str]:
    """Replaces, in place, all ``fake_quantize`` nodes of a lowered graph, whose arrays are float64
    still. Returns what stays float32 though it was rounded, a line each."""
    notes = []
    seen: dict[str, str] = {}  # a value and how it is rounded -> the rounded one
    for node in list(graph.nodes):
        if rounds(node):
            first = seen.setdefault(f"{node.inputs[0]} {node.params}", node.output)
            if first != node.output:
                _bypass(graph, node, first)
    for node in list(graph.nodes):
        if rounds(node):
            why = _give_bytes(graph, node)
            if why is not None:
                notes.append(f"the values of '{node.module or node.name}' stay float32: {why}")
    _hand_on(graph)
    known = quantizations(graph)
    for node in list(graph.nodes):
        if node.weight_step is not None:
            why = _make_integer(graph, node, known)
            if why is not None:
                notes.append(f"layer '{node.module or node.name}' stays float32: {why}")
            node.weight_step = None
    return notes


# ---------------------------------------------------------------- values


def _give_bytes(graph: Graph, node: Node) -> str | None:
    """The value that the node rounds consists of bytes. Says why it cannot, and then does nothing
    but take the node away."""
    scale, zero = float(node.params["scale"]), int(node.params["zero_point"])
    top = int(node.params["high"]) - int(node.params["low"])
    zero -= int(node.params["low"])  # the lowest level is byte 0
    value = node.inputs[0]
    if not 0 < top <= LEVELS:
        _bypass(graph, node)
        return f"it has {top + 1} levels, bytes have 256"
    if not (MIN_SCALE <= scale <= MAX_SCALE and 0 <= zero <= top):
        _bypass(graph, node)
        return f"its scale is {scale:g}, its zero point {zero} of 0..{top}"
    own = Quantization(scale, zero)
    if top < LEVELS:
        own = _narrow(graph, node, own, top)
        if not rounds(node):
            return None
    elif quantizations(graph).get(value) == own:
        _bypass(graph, node)  # rounded already
        return None
    source = _free_source(graph, value)
    if source is None:
        make_move(node)
        node.quantization = own
    else:
        source.quantization = own
        _bypass(graph, node)
    return None


def _free_source(graph: Graph, value: str) -> Node | Value | None:
    """What makes a value of numbers that only one node reads, so that it may be bytes as well."""
    if len(graph.consumers(value)) != 1 or value in graph.outputs:
        return None
    given = [each for each in graph.inputs if each.name == value and each.dtype == "f32"]
    source = graph.producer(value) or next(iter(given), None)
    return source if source is not None and source.quantization is None else None


def _narrow(graph: Graph, node: Node, own: Quantization, top: int) -> Quantization:
    """What the bytes stand for where there are fewer levels than 256. The levels are the last ones
    where numbers below 0 are cut anyway: the maker of the value ends with a ReLU then. Elsewhere
    the node becomes a clamp."""
    source = _free_source(graph, node.inputs[0])
    if own.zero_point == 0 and isinstance(source, Node):
        if source.params.get("activation") == "none":
            source.params["activation"] = "relu"
        if source.params.get("activation") in ("relu", "relu6"):
            return Quantization(own.scale, LEVELS - top)
    if source is not None:
        source.quantization = own  # the clamp is a table then
    low, high = -own.zero_point * own.scale, (top - own.zero_point) * own.scale
    make_clamp(node, low, high)
    node.quantization = own
    return own


def _bypass(graph: Graph, node: Node, source: str | None = None) -> None:
    """Takes the node away; whoever read its output reads ``source``, by default its input."""
    source = node.inputs[0] if source is None else source
    graph.nodes[:] = [other for other in graph.nodes if other is not node]
    names = graph.output_names
    renamed = node.output in graph.outputs
    for other in graph.nodes:
        other.inputs = [source if name == node.output else name for name in other.inputs]
    graph.outputs[:] = [source if name == node.output else name for name in graph.outputs]
    if renamed:
        graph.output_names = names


def _hand_on(graph: Graph) -> None:
    """What only moves bytes, and a ReLU, gives bytes of the same scale: no number changes."""
    known = quantizations(graph)
    for node in graph.nodes:
        given = {known.get(name) for name in node.inputs}
        moves = node.rule.keeps_quantization(node) or node.rule.activation_of(node) == "relu"
        if node.quantization is None and moves and len(given) == 1:
            node.quantization = given.pop()
        if node.quantization is not None:
            known[node.output] = node.quantization


# ---------------------------------------------------------------- layers


def _make_integer(graph: Graph, node: Node, known: Mapping[str, Quantization]) -> str | None:
    """Integer weights in place of float ones that are multiples of ``node.weight_step``. Says why
    the layer cannot have them, and then leaves it."""
    source = known.get(node.inputs[0])
    if source is None:
        return "its weights are quantised, its input is not"
    kept = node.sparse()
    step = np.zeros(node.shape[0]) + np.asarray(node.weight_step)
    if step.shape != (node.shape[0],):
        return "its weights have other scales than one for each output channel"
    bias = np.zeros(node.shape[0]) if node.bias is None else node.bias.astype(np.float64)
    rows = kept.rows()
    empty = np.bincount(rows, minlength=len(step)) == 0
    step = np.where(empty, np.abs(bias) / (source.scale * _MAX_BIAS), step)
    step = np.maximum(step, MIN_SCALE).astype(np.float32)
    steps = kept.weight.astype(np.float64) / step[rows].astype(np.float64)[:, None, None]
    whole = np.rint(steps)
    if (np.abs(steps - whole) > _WHOLE).any():
        return "its weights are not whole multiples of their scales"
    if (step > MAX_SCALE).any() or (np.abs(whole) > LEVELS).any():
        return "its weights are no bytes: quantise them to -127..127 with zero point 0"
    whole_bias = np.rint(bias / (step.astype(np.float64) * source.scale))
    integers, rest = _first_byte(kept, whole)
    sums = LEVELS * row_sums(integers) + np.abs(whole_bias)
    if (sums > MAX_SUM).any():
        return "its sums may need more than 32 bits"
    while rest.any():
        part, after = _first_byte(kept, rest)
        _add_rest(graph, node, part, step)
        rest = after
    node.set_sparse(integers)
    node.bias, node.weight_scale = whole_bias.astype(np.int32), step
    return None


def _first_byte(kept: Connections, whole: np.ndarray) -> tuple[Connections, np.ndarray]:
    """What a signed byte holds of integer weights, and what is left."""
    first = np.clip(whole, -MAX_WEIGHT, MAX_WEIGHT)
    return kept.with_weight(first.astype(np.int8)), whole - first


def _add_rest(graph: Graph, node: Node, rest: Connections, step: np.ndarray) -> None:
    """-128 is -127 and -1, as weights with a zero point are several: another layer of the same
    input has the rest, which becomes a part of the residual. Few weights have any."""
    taken = {other.name for other in graph.nodes}
    name = next(
        n for i in range(len(taken) + 1) if (n := f"{node.name}.rest{i or ''}") not in taken
    )
    params = {key: each for key, each in node.params.items() if key != "all_connections"}
    params["activation"] = "none"
    extra = Node(node.op, name, list(node.inputs), name, node.shape, params)
    extra.set_sparse(rest)
    extra.bias, extra.weight_scale = np.zeros(node.shape[0], np.int32), step
    extra.module, extra.source = node.module, node.source
    extra.set_all_connections(rest.count())
    graph.nodes.insert(graph.nodes.index(node), extra)
    node.inputs = [node.inputs[0], extra.output]
