"""Small graphs with quantised values, for tests of the file and of what computes them."""

from __future__ import annotations

import numpy as np

from kernelprune.format import Graph, Node, Value
from kernelprune.graph.quantization import Quantization

CONV = {"stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}


def integer_layer(node: Node, in_channels: int, density: float, rng: np.random.Generator) -> Node:
    """Gives a layer random integer weights, scales and a bias."""
    outputs, kernel = node.shape[0], node.params.get("kernel", [])
    weight = rng.integers(-127, 128, (outputs, in_channels, *kernel))
    kept = rng.random((outputs, in_channels)) < density
    node.weight = (weight * kept.reshape(*kept.shape, *[1] * len(kernel))).astype(np.int8)
    node.weight_scale = rng.uniform(0.0005, 0.002, outputs).astype(np.float32)
    node.bias = rng.integers(-2000, 2000, outputs).astype(np.int32)
    return node


def small(rng: np.random.Generator, density: float = 0.6) -> Graph:
    """x -> conv relu -> conv with residual -> pools -> linear, bytes but for the output."""
    conv = {**CONV, "kernel": [3, 3]}
    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
    stem = Node("conv2d", "stem", ["x"], "a", (6, 8, 8), {**conv, "activation": "relu"})
    body = Node("conv2d", "body", ["a", "a"], "b", (6, 8, 8), {**conv, "activation": "none"})
    nodes = [
        integer_layer(stem, 3, density, rng),
        integer_layer(body, 6, density, rng),
        Node("max_pool2d", "pool", ["b"], "p", (6, 4, 4), pool),
        Node("global_avg_pool", "gap", ["p"], "g", (6, 1, 1)),
        Node("flatten", "flat", ["g"], "f", (6,)),
        integer_layer(Node("linear", "head", ["f"], "y", (5,), {"activation": "none"}), 6, 1, rng),
    ]
    graph = Graph([Value("x", (3, 8, 8), quantization=Quantization(0.03125, 128))], ["y"], nodes)
    scales = {"a": (0.02, 0), "b": (0.05, 100), "p": (0.05, 100), "g": (0.04, 90), "f": (0.04, 90)}
    for node in nodes[:-1]:
        scale, zero_point = scales[node.output]
        node.quantization = Quantization(scale, zero_point)
    return graph
