"""A Graph as a plain dense torch module: the readable twin of the engine, for checks and peers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ir import Graph, Node, Shape


def to_torch(graph: Graph, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A dense ``torch.fx.GraphModule`` in eval mode that computes ``graph``.

    Takes the graph's inputs ``[N, C, H, W]`` or ``[N, F]`` in order and returns its output (a tuple
    when there are several). It consists of torch.nn modules and torch.cat, so torch.compile,
    channels_last and ONNX export apply. Also runs traced graphs (batch_norm, groups).
    Raises UnsupportedOperator for an "opaque" node.
    """
    root = nn.Module()
    fx_graph = torch.fx.Graph()
    shapes = graph.shapes()
    values: dict[str, Any] = {}
    for position, value in enumerate(graph.inputs):
        values[value.name] = fx_graph.placeholder(f"input_{position}")
    for position, node in enumerate(graph.nodes):
        module = _MODULES.get(node.op, _unsupported)(node, [shapes[name] for name in node.inputs])
        label = f"step_{position}_{node.op}"
        root.add_module(label, module.to(dtype))
        values[node.output] = fx_graph.call_module(label, tuple(values[i] for i in node.inputs))
    results = tuple(values[name] for name in graph.outputs)
    fx_graph.output(results[0] if len(results) == 1 else results)
    module = torch.fx.GraphModule(root, fx_graph, "KernelpruneGraph").eval()
    return module.requires_grad_(False)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _activation(kind: str) -> nn.Module:
    return {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6}[kind]()


class _Layer(nn.Module):
    """act(layer(pad(x)) + residual)."""

    def __init__(self, pad: nn.Module, layer: nn.Module, activation: nn.Module):
        super().__init__()
        self.pad, self.layer, self.activation = pad, layer, activation

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        y = self.layer(self.pad(x))
        return self.activation(y if residual is None else y + residual)


class _Add(nn.Module):
    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.activation(a + b)


class _Concat(nn.Module):
    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return torch.cat(parts, 1)


class _ScaledAvgPool(nn.Module):
    """Averages over padding written as zeros; ``scale`` [1,1,H,W] corrects the divisor."""

    def __init__(self, pad: nn.Module, pool: nn.Module, scale: torch.Tensor):
        super().__init__()
        self.pad, self.pool = pad, pool
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.pad(x)) * self.scale


class _Pad(nn.Module):
    def __init__(self, padding: list[int], value: float):
        super().__init__()
        top, left, bottom, right = padding
        self.padding, self.value = [left, right, top, bottom], value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x, self.padding, value=self.value)


def _split_padding(node: Node, value: float) -> tuple[nn.Module, list[int]]:
    """(module that pads, what is left for the op itself)."""
    top, left, bottom, right = node.params["padding"]
    if (top, left) == (bottom, right):
        return nn.Identity(), [top, left]
    return _Pad(node.params["padding"], value), [0, 0]


def _conv2d(node: Node, shapes: list[Shape]) -> nn.Module:
    pad, padding = _split_padding(node, 0.0)
    params = node.params
    conv: Any = nn.Conv2d(
        shapes[0][0],
        node.shape[0],
        tuple(params["kernel"]),
        tuple(params["stride"]),
        (padding[0], padding[1]),
        tuple(params["dilation"]),
        params.get("groups", 1),
        bias=node.bias is not None,
        device="meta",
    )
    return _Layer(pad, _load(conv, node), _activation(params["activation"]))


def _linear(node: Node, shapes: list[Shape]) -> nn.Module:
    linear = nn.Linear(shapes[0][0], node.shape[0], bias=node.bias is not None, device="meta")
    return _Layer(nn.Identity(), _load(linear, node), _activation(node.params["activation"]))


def _load(layer: nn.Conv2d | nn.Linear, node: Node) -> nn.Module:
    assert node.weight is not None
    layer.weight = nn.Parameter(_tensor(node.weight))
    if node.bias is not None:
        layer.bias = nn.Parameter(_tensor(node.bias))
    return layer


def _max_pool2d(node: Node, shapes: list[Shape]) -> nn.Module:
    params = node.params
    pad, padding = _split_padding(node, -np.inf)
    pool: Any = nn.MaxPool2d(
        tuple(params["kernel"]), tuple(params["stride"]), tuple(padding), tuple(params["dilation"])
    )
    if padding[0] > params["kernel"][0] // 2 or padding[1] > params["kernel"][1] // 2:
        # torch allows half a kernel of padding, the file allows more with dilation.
        pad = _Pad(params["padding"], -np.inf)
        pool.padding = (0, 0)
    return pool if isinstance(pad, nn.Identity) else nn.Sequential(pad, pool)


def _avg_pool2d(node: Node, shapes: list[Shape]) -> nn.Module:
    params = node.params
    pool = nn.AvgPool2d(tuple(params["kernel"]), tuple(params["stride"]))
    if not any(params["padding"]):
        return pool
    pad = _Pad(params["padding"], 0.0)
    scale = torch.ones(1, 1, node.shape[1], node.shape[2], dtype=torch.float64)
    if not params["count_include_pad"]:
        inside = torch.ones(1, 1, *shapes[0][1:], dtype=torch.float64)
        scale = 1.0 / pool(pad(inside))
    return _ScaledAvgPool(pad, pool, scale)


def _batch_norm(node: Node, shapes: list[Shape]) -> nn.Module:
    kind = nn.BatchNorm2d if len(node.shape) == 3 else nn.BatchNorm1d
    norm = kind(node.shape[0], eps=node.params["eps"])
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            setattr(norm, name, None)
            tensor = _tensor(node.params[name])
            learned = name in ("weight", "bias")
            setattr(norm, name, nn.Parameter(tensor) if learned else tensor)
    return norm


def _unsupported(node: Node, shapes: list[Shape]) -> nn.Module:
    raise UnsupportedOperator(f"node '{node.name}': op '{node.op}' has no torch twin")


_MODULES = {
    "conv2d": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool": lambda node, shapes: nn.AdaptiveAvgPool2d(1),
    "add": lambda node, shapes: _Add(_activation(node.params["activation"])),
    "concat": lambda node, shapes: _Concat(),
    "flatten": lambda node, shapes: nn.Flatten(),
    "activation": lambda node, shapes: _activation(node.params["activation"]),
    "softmax": lambda node, shapes: nn.Softmax(1),
}
