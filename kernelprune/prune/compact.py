"""compact: the same function with dead channels physically removed from the modules."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import Error, ShapeError
from kernelprune.frontends.torch.export import difference, run, without_rounding
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.channels import Channels, analyse, movable, moved_bias
from kernelprune.graph.ir import Graph, Node, Shape
from kernelprune.graph.ops.base import keep_entries
from kernelprune.ops import SparseConv2d, densify, sparsify
from kernelprune.prune.weights import check_model, copy_of

_TOLERANCE = 1e-4


def compact(model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...]) -> nn.Module:
    """A copy of ``model`` without dead channels that computes the same function in eval mode.

    A channel is dead when no kept connection reads it, or when no kept connection writes it, so
    that it is a constant (see kernelprune.graph.channels). Convolutions, linear layers and batch
    norms are sliced; the model's code stays as it is. The constant of a removed channel goes into
    the next layer's bias or, where there is none, into the running mean of the batch norm after
    it; else the layer gets a bias. Equal to rounding: 1e-10 relative in float64.

    Channels stay where slicing is not safe: modules called more than once or with shared or
    computed weights, grouped convolutions (depthwise ones are sliced), channels that reach an
    operator that the graph lacks, code that fixes the number of features. Inputs and
    outputs never change shape. ``x``: an example input ``[N, C, H, W]``, or a tuple of inputs.
    Raises Error when the result does not compute what ``model`` computes on ``x``.
    """
    check_model(model)
    sparse = {name for name, m in model.named_modules() if isinstance(m, SparseConv2d)}
    if sparse:
        smaller = compact(densify(copy_of(model)), x)
        dense = [n for n, m in smaller.named_modules() if isinstance(m, nn.Conv2d)]
        others = [name for name in dense if name not in sparse]
        return sparsify(smaller, below=math.inf, ignore=others)
    inputs = x if isinstance(x, tuple) else (x,)
    graph = trace(model, x, opaque=True)
    # A reshape with a number in it may come from x.size() (then it follows the smaller model) or
    # be written in the code (then it breaks): the traced program looks the same, so try.
    shapes = graph.shapes()
    literal = {node.name for node in graph.nodes if _counts_channels(node, shapes)}
    for pinned in [set(), literal] if literal else [set()]:
        smaller = _slice(model, graph, pinned)
        if _agree(*without_rounding(model, inputs), without_rounding(smaller, inputs)[0]):
            return smaller
        # Where large constants cancel, a sum in another order is enough for float32 to differ.
        wide = copy_of(model).double()
        if _agree(wide, _in_double(inputs), _slice(wide, graph, pinned)):
            return smaller
    raise Error(
        f"{type(model).__name__} cannot be made compact: without its dead channels it computes "
        "something else, so its code must depend on the number of channels"
    )


def _agree(model: nn.Module, inputs: tuple[torch.Tensor, ...], smaller: nn.Module) -> bool:
    try:
        return difference(run(model, inputs), run(smaller, inputs)) <= _TOLERANCE
    except Error:
        return False


def _in_double(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def _slice(model: nn.Module, graph: Graph, pinned: set[str]) -> nn.Module:
    smaller = copy_of(model)
    modules = dict(smaller.named_modules())
    pinned = set(pinned)
    tied = set()
    for node in graph.nodes:
        if node.rule.module_class() is None:
            continue
        if not _is_sliceable(node, modules):
            pinned.add(node.name)
        elif node.params.get("groups", 1) > 1:
            tied.add(node.name)
    channels = analyse(graph, pinned, tied)
    while fixed := _fixed(graph, channels) - pinned:
        pinned |= fixed
        channels = analyse(graph, pinned, tied)
    for node in graph.nodes:
        if node.has_weight() and node.name not in pinned:
            _move_constants(node, graph, channels, modules, pinned)
    for node in graph.nodes:
        if node.name not in pinned and node.rule.module_class() is not None:
            _slice_module(modules[node.module or ""], node, channels)
    return smaller


def _counts_channels(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Does the call that a node stands for say how many channels its result has?"""
    if node.literal or node.params.get("literal"):
        return True
    if node.has_weight() or not node.shape:
        return False
    more = (node.shape[0] + 1, *node.shape[1:])
    try:
        own = [shapes[name] for name in node.inputs]
        return node.rule.infer(own, node.params, more) == more
    except ShapeError:
        return False


def _fixed(graph: Graph, channels: Channels) -> set[str]:
    """Nodes with numbers or tensors that depend on the channels that are left. They are written in
    the model's code, or lie in no module that can be sliced."""
    found = set()
    for node in graph.nodes:
        if node.has_weight() or node.rule.module_class() is not None:
            continue
        live = [channels.live[name] for name in node.inputs]
        if channels.live[node.output].all() and all(mask.all() for mask in live):
            continue
        twin = copy.copy(node)
        twin.params, twin.tensors = copy.deepcopy(node.params), dict(node.tensors)
        twin.shape = (int(channels.live[node.output].sum()), *node.shape[1:])
        twin.rule.shrink(twin, live, channels.live[node.output])
        same = all(np.array_equal(twin.tensors[role], node.tensors[role]) for role in node.tensors)
        if twin.op != node.op or twin.params != node.params or not same:
            found.add(node.name)
    return found


def _is_sliceable(node: Node, modules: dict[str, Any]) -> bool:
    """One module is this node and nothing else: a plain layer, all of whose tensors are read by
    this node alone."""
    module: Any = modules.get(node.module) if node.module else None
    kind: Any = node.rule.module_class()
    if kind is None or not isinstance(module, kind) or parametrize.is_parametrized(module):
        return False
    for role in node.rule.module_roles:
        owned = node.parameters.get(role) == f"{node.module}.{role}"
        if getattr(module, role) is not None and not owned:
            return False
    groups = node.params.get("groups", 1)
    return groups == 1 or (groups == module.in_channels == module.out_channels)


def _move_constants(
    node: Node,
    graph: Graph,
    channels: Channels,
    modules: dict[str, nn.Module],
    pinned: set[str],
) -> None:
    """Before slicing: what the removed input channels of ``node`` add to its outputs."""
    constant = channels.constant[node.inputs[0]]
    removed = movable(node, constant) & ~channels.live[node.inputs[0]]
    extra = moved_bias(node, removed, constant)
    extra[~channels.live[node.output]] = 0.0
    if not extra.any():
        return
    layer: Any = modules[node.module or ""]
    shift = torch.from_numpy(extra)
    readers = graph.consumers(node.output)
    if layer.bias is not None:
        _add(layer.bias, shift)
        return
    alone = len(readers) == 1 and node.output not in graph.outputs
    if alone and readers[0].name not in pinned:
        reader = modules.get(readers[0].module or "")
        if readers[0].rule.shift_input(reader, shift):
            return
    layer.bias = nn.Parameter(shift.to(layer.weight))


def _add(tensor: torch.Tensor, shift: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(tensor.double() + shift.to(tensor.device))


def _slice_module(module: Any, node: Node, channels: Channels) -> None:
    inputs, outputs = channels.live[node.inputs[0]], channels.live[node.output]
    for role in node.rule.module_roles:
        keep_entries(module, role, 0, outputs)
    node.rule.shrink_module(module, inputs, outputs)
