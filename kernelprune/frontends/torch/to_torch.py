"""A Graph as a plain dense torch module: the readable twin of the engine, for checks and peers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
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
    root = nn.Module()
    fx_graph = torch.fx.Graph()
    shapes = graph.shapes()
    values: dict[str, Any] = {}
    for position, value in enumerate(graph.inputs):
        values[value.name] = fx_graph.placeholder(f"input_{position}")
        if value.dtype != "f32":
            values[value.name] = fx_graph.call_method("to", (values[value.name], dtype))
    for position, node in enumerate(graph.nodes):
        module = node.rule.to_torch(node, [shapes[name] for name in node.inputs])
        label = f"step_{position}_{node.op}"
        root.add_module(label, module.to(dtype))
        # A constant looks at any input, for the size of the batch.
        inputs = node.inputs or [graph.inputs[0].name]
        values[node.output] = fx_graph.call_module(label, tuple(values[i] for i in inputs))
    results = tuple(values[name] for name in graph.outputs)
    fx_graph.output(results[0] if len(results) == 1 else results)
    module = torch.fx.GraphModule(root, fx_graph, "KernelpruneGraph").eval()
    return module.requires_grad_(False)
