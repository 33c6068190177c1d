"""compact: the same function with dead channels physically removed from the modules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.export import difference, run, without_rounding
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.channels import movable, moved_bias
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.ops.base import keep_entries
from kernelprune.ops import SparseConv2d, densify, sparsify
from kernelprune.prune.layout import Layout, layouts
from kernelprune.prune.weights import check_model, copy_of

_TOLERANCE = 1e-4


def compact(model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...]) -> nn.Module:
    """A copy of ``model`` without dead channels that computes the same function in eval mode.

    A channel is dead when no kept connection reads it, or when no kept connection writes it, so
    that it is a constant (see kernelprune.graph.channels). Convolutions (transposed ones too),
    linear layers (on maps too) and batch norms are sliced; the model's code stays as it is. The
    constant of a removed channel goes into the next layer's bias or, where there is none, into the
    running mean of the batch norm after it; else the layer gets a bias. Equal to rounding: 1e-10
    relative in float64.

    Channels stay where slicing is not safe: modules called more than once or with shared or
    computed weights, channels that reach an operator that the graph lacks, code that fixes the
    number of features. Where the code cuts channels into equal parts (chunk, a channel shuffle, the
    groups of a convolution) as many of each part stay as one of them needs. Inputs and outputs
    never change shape. ``x``: an example input ``[N, C, H, W]``, or a tuple of inputs. Raises Error
    when the result does not compute what ``model`` computes on ``x``.
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
    for layout in layouts(graph, dict(model.named_modules())):
        smaller = _slice(model, graph, layout)
        if _agree(*without_rounding(model, inputs), without_rounding(smaller, inputs)[0]):
            return smaller
        # Where large constants cancel, a sum in another order is enough for float32 to differ.
        wide = copy_of(model).double()
        if _agree(wide, _in_double(inputs), _slice(wide, graph, layout)):
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


def _slice(model: nn.Module, graph: Graph, layout: Layout) -> nn.Module:
    smaller = copy_of(model)
    modules = dict(smaller.named_modules())
    for node in graph.nodes:
        if node.has_weight() and node.name not in layout.pinned:
            _move_constants(node, graph, layout, modules)
    for node in graph.nodes:
        if node.name not in layout.pinned and node.rule.module_classes():
            _slice_module(modules[node.module or ""], node, layout)
    return smaller


def _move_constants(
    node: Node, graph: Graph, layout: Layout, modules: dict[str, nn.Module]
) -> None:
    """Before slicing: what the removed input channels of ``node`` add to its outputs."""
    constant = layout.channels.constant[node.inputs[0]]
    removed = movable(node, constant) & ~layout.channels.live[node.inputs[0]]
    extra = moved_bias(node, removed, constant)
    extra[~layout.channels.live[node.output]] = 0.0
    if not extra.any():
        return
    layer: Any = modules[node.module or ""]
    shift = torch.from_numpy(extra[:: node.phases or 1])  # the same at all places of a block
    readers = graph.consumers(node.output)
    if layer.bias is not None:
        _add(layer.bias, shift)
        return
    alone = len(readers) == 1 and node.output not in graph.outputs
    if alone and readers[0].name not in layout.pinned:
        reader = modules.get(readers[0].module or "")
        if readers[0].rule.shift_input(reader, shift):
            return
    layer.bias = nn.Parameter(shift.to(layer.weight))


def _add(tensor: torch.Tensor, shift: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(tensor.double() + shift.to(tensor.device))


def _slice_module(module: Any, node: Node, layout: Layout) -> None:
    inputs, outputs = layout.left(node.inputs[0]), layout.left(node.output)
    for role in node.rule.module_roles if not node.phases else ():
        keep_entries(module, role, 0, outputs)
    node.rule.shrink_module(module, inputs, outputs)
