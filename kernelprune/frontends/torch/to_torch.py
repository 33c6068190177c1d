"""A Graph as a plain dense torch module: the readable twin of the engine, for checks and peers, and
what a file of another tool is trained as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.quantization import quantizations


def to_torch(graph: Graph, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A dense ``torch.fx.GraphModule`` in eval mode that computes ``graph``.

    Takes the graph's inputs ``[N, C, H, W]`` or ``[N, F]`` in order and returns its output (a tuple
    when there are several). It consists of torch.nn modules and torch's functions, so
    torch.compile, channels_last and ONNX export apply. Also runs traced graphs (batch_norm,
    groups). Raises UnsupportedOperator for an op that has no torch twin. Of a quantised graph it is
    a ``GraphModel``, which computes the engine's bytes.
    """
    if quantizations(graph):
        return GraphModel(graph)
    module = _assembled(graph, dtype, lambda position, node: f"step_{position}_{node.op}", False)
    return module.requires_grad_(False)


def to_trainable(graph: Graph) -> nn.Module:
    """``to_torch`` of a traced graph whose nodes say in ``module`` what their modules are called;
    its weights can be trained, and several outputs are a dictionary by name."""
    return _assembled(graph, torch.float32, lambda _, node: str(node.module), True)


def _assembled(
    graph: Graph, dtype: torch.dtype, name_of: Callable[[int, Node], str], by_name: bool
) -> torch.fx.GraphModule:
    root = torch.fx.GraphModule(nn.Module(), torch.fx.Graph(), "KernelpruneGraph")
    fx_graph = root.graph
    shapes = graph.shapes()
    values: dict[str, Any] = {}
    for position, value in enumerate(graph.inputs):
        values[value.name] = fx_graph.placeholder(f"input_{position}")
        if value.dtype != "f32":
            values[value.name] = fx_graph.call_method("to", (values[value.name], dtype))
    for position, node in enumerate(graph.nodes):
        module = node.rule.to_torch(node, [shapes[name] for name in node.inputs])
        label = name_of(position, node)
        root.add_submodule(label, module.to(dtype))
        # A constant looks at any input, for the size of the batch.
        inputs = node.inputs or [graph.inputs[0].name]
        values[node.output] = fx_graph.call_module(label, tuple(values[i] for i in inputs))
    results = [values[name] for name in graph.outputs]
    if len(results) == 1:
        fx_graph.output(results[0])
    elif by_name:
        fx_graph.output(dict(zip(graph.output_names, results, strict=True)))
    else:
        fx_graph.output(tuple(results))
    root.recompile()
    return root.eval()
