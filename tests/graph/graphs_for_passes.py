"""A builder of small traced graphs, for tests of the passes that need no torch model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kernelprune.format import Graph, Node, Value
from kernelprune.frontends.torch import to_torch
from kernelprune.graph.ir import infer_shape

torch.set_num_threads(1)  # for tensors this small more threads only cost


class Builder:
    """Every method appends a node and returns the name of its value."""

    def __init__(self, shape: tuple[int, ...] = (3, 6, 5), seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.graph = Graph([Value("x", shape)], [], [])
        self.shapes = {"x": shape}

    def node(self, op: str, inputs: list[str], params: dict[str, Any], **arrays: Any) -> str:
        name = f"{op}{len(self.graph.nodes)}"
        channels = arrays.pop("channels", None)
        if channels is None and arrays.get("weight") is not None:
            channels = arrays["weight"].shape[0]
        declared = arrays.pop("declared", () if channels is None else (channels,))
        shape = infer_shape(op, [self.shapes[i] for i in inputs], params, declared)
        self.graph.nodes.append(Node(op, name, list(inputs), name, shape, params, **arrays))
        self.shapes[name] = shape
        return name

    def conv(self, x: str, channels: int = 4, **options: Any) -> str:
        """Options: side, padding, groups, bias (bool), density, act, weight, residual."""
        groups = options.get("groups", 1)
        side, padding = options.get("side", 3), options.get("padding", 1)
        weight = self.rng.standard_normal((channels, self.shapes[x][0] // groups, side, side))
        weight *= self.rng.random((*weight.shape[:2], 1, 1)) < options.get("density", 1.0)
        params = {
            "kernel": [side, side],
            "stride": [options.get("stride", 1)] * 2,
            "padding": [padding] * 4,
            "dilation": [1, 1],
            "activation": options.get("act", "none"),
            "groups": groups,
        }
        bias = self.rng.standard_normal(channels) if options.get("bias", True) else None
        inputs = [x, *([options["residual"]] if "residual" in options else [])]
        return self.node("conv2d", inputs, params, weight=weight, bias=bias)

    def linear(self, x: str, features: int = 3, density: float = 1.0) -> str:
        weight = self.rng.standard_normal((features, self.shapes[x][0]))
        weight *= self.rng.random(weight.shape) < density
        bias = self.rng.standard_normal(features)
        return self.node("linear", [x], {"activation": "none"}, weight=weight, bias=bias)

    def batch_norm(self, x: str, zeros: float = 0.0) -> str:
        channels = self.shapes[x][0]
        weight = self.rng.uniform(0.5, 1.5, channels) * (self.rng.random(channels) >= zeros)
        tensors = {
            "weight": weight,
            "bias": self.rng.standard_normal(channels),
            "running_mean": self.rng.standard_normal(channels),
            "running_var": self.rng.uniform(0.5, 2.0, channels),
        }
        return self.node("batch_norm", [x], {"eps": 1e-3}, tensors=tensors)

    def act(self, x: str, kind: str = "relu") -> str:
        return self.node("activation", [x], {"activation": kind})

    def add(self, a: str, b: str) -> str:
        return self.node("add", [a, b], {"activation": "none"})

    def pad(self, x: str, ends: list[int], value: float = 0.0) -> str:
        """``ends`` [top, left, bottom, right]."""
        params = {"before": [0, *ends[:2]], "after": [0, *ends[2:]], "mode": "constant"}
        return self.node("pad", [x], {**params, "value": value})

    def max_pool(self, x: str, side: int = 2, padding: int = 0) -> str:
        params = {"kernel": [side] * 2, "stride": [2, 2], "padding": [padding] * 4}
        return self.node("max_pool2d", [x], {**params, "dilation": [1, 1]})

    def avg_pool(self, x: str, padding: int = 0, include: bool = False) -> str:
        params = {"kernel": [3, 3], "stride": [2, 2], "padding": [padding] * 4}
        return self.node("avg_pool2d", [x], {**params, "count_include_pad": include})

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


def outputs(graph: Graph, count: int = 3) -> list[torch.Tensor]:
    """What ``graph`` computes for fixed random images, in float64."""
    generator = torch.Generator().manual_seed(5)
    images = [
        torch.randn(count, *value.shape, generator=generator, dtype=torch.float64)
        for value in graph.inputs
    ]
    with torch.no_grad():
        found = to_torch(graph, torch.float64)(*images)
    return list(found) if isinstance(found, tuple) else [found]


def assert_same_function(before: Graph, after: Graph) -> None:
    """Relative L2 error at most 1e-12 on every output."""
    for want, have in zip(outputs(before), outputs(after), strict=True):
        assert want.shape == have.shape
        assert (want - have).norm() <= 1e-12 * want.norm() + 1e-300
