"""Builds model files for tests, straight from the format: independent of the package's writer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy

Pair = tuple[int, int]


@dataclass
class GraphBuilder:
    """A graph under construction; every method adds a node and returns the name of its value."""

    rng: np.random.Generator
    integers: bool = False  # small whole numbers: float32 results are then exact
    nodes: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    version: str = "1"  # of the file

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.integers:
            return self.rng.integers(-3, 4, shape).astype(np.float32)
        return self.rng.standard_normal(shape).astype(np.float32)

    def input(self, shape: tuple[int, ...], name: str = "x") -> str:
        self.shapes[name] = shape
        self.inputs.append(name)
        return name

    def batch(self, count: int) -> list[np.ndarray]:
        return [self.random((count, *self.shapes[name])) for name in self.inputs]

    def node(self, op: str, inputs: list[str], shape: tuple[int, ...], **params: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        value = f"v{len(self.nodes)}"
        self.nodes.append(
            {"op": op, "name": name, "inputs": inputs, "output": value, "shape": list(shape)}
            | params
        )
        self.shapes[value] = shape
        return value

    def connections(self, mask: np.ndarray, taps: Pair) -> None:
        """Adds the tensors of the last node: mask [O, I] says which connections are kept."""
        name = self.nodes[-1]["name"]
        nnz = int(mask.sum())
        weight = self.random((nnz, *taps))
        if self.integers:
            weight[weight == 0] = 1  # a kernel of zeros would not be a connection
        self.tensors[f"{name}.row_ptr"] = np.concatenate(([0], np.cumsum(mask.sum(1)))).astype(
            np.uint32
        )
        self.tensors[f"{name}.col"] = np.nonzero(mask)[1].astype(np.uint16)
        self.tensors[f"{name}.weight"] = weight
        self.tensors[f"{name}.bias"] = self.random((mask.shape[0],))

    def mask(self, out_channels: int, in_channels: int, density: float) -> np.ndarray:
        return self.rng.random((out_channels, in_channels)) < density

    def conv2d(
        self,
        x: str,
        out_channels: int,
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: Pair = (1, 1),
        activation: str = "none",
        density: float = 1.0,
        residual: str | None = None,
        mask: np.ndarray | None = None,
    ) -> str:
        channels, height, width = self.shapes[x]
        height, width = window_output(height, width, kernel, stride, padding, dilation)
        y = self.node(
            "conv2d",
            [x] if residual is None else [x, residual],
            (out_channels, height, width),
            kernel=list(kernel),
            stride=list(stride),
            padding=list(padding),
            dilation=list(dilation),
            activation=activation,
        )
        self.connections(
            self.mask(out_channels, channels, density) if mask is None else mask, kernel
        )
        return y

    def linear(
        self, x: str, out_features: int, activation: str = "none", density: float = 1.0
    ) -> str:
        y = self.node("linear", [x], (out_features,), activation=activation)
        self.connections(self.mask(out_features, self.shapes[x][0], density), (1, 1))
        return y

    def pool(
        self,
        op: str,
        x: str,
        kernel: Pair,
        stride: Pair,
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: Pair = (1, 1),
        count_include_pad: bool = False,
    ) -> str:
        channels, height, width = self.shapes[x]
        height, width = window_output(height, width, kernel, stride, padding, dilation)
        extra = (
            {"dilation": list(dilation)}
            if op == "max_pool2d"
            else {"count_include_pad": count_include_pad}
        )
        return self.node(
            op,
            [x],
            (channels, height, width),
            kernel=list(kernel),
            stride=list(stride),
            padding=list(padding),
            **extra,
        )

    def graph(self, *outputs: Any) -> dict[str, Any]:
        return {
            "inputs": [{"name": n, "shape": list(self.shapes[n])} for n in self.inputs],
            "outputs": list(outputs),
            "nodes": self.nodes,
        }

    def file(self, *outputs: Any) -> bytes:
        """The bytes of the model file with these graph outputs."""
        return model_bytes(self.graph(*outputs), self.tensors, self.version)


def model_bytes(graph: dict[str, Any], tensors: dict[str, np.ndarray], version: str = "1") -> bytes:
    metadata = {"format": "kernelprune", "version": version, "graph": json.dumps(graph)}
    return safetensors.numpy.save(tensors, metadata=metadata)


def window_output(
    height: int,
    width: int,
    kernel: Pair,
    stride: Pair,
    padding: tuple[int, int, int, int],
    dilation: Pair,
) -> Pair:
    rows = height + padding[0] + padding[2] - dilation[0] * (kernel[0] - 1) - 1
    columns = width + padding[1] + padding[3] - dilation[1] * (kernel[1] - 1) - 1
    return rows // stride[0] + 1, columns // stride[1] + 1
