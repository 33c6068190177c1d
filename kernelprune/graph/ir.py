"""A network as plain data: values, nodes and the shape rule of every op. numpy only, no torch.

Shapes are per image: ``(C, H, W)`` for a map, ``(F,)`` for a vector. The batch is never part of a
shape. FORMAT.md says what each op computes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.connections import Connections

Shape = tuple[int, ...]

ACTIVATIONS = ("none", "relu", "relu6")


@dataclass
class Value:
    """A tensor that flows through the graph; ``shape`` is per image."""

    name: str
    shape: Shape


class _DenseWeight:
    """``Node.weight``: the dense array, expanded from ``Node.connections`` when first asked for.

    A file of a few kilobytes may describe a layer of 2^20 x 2^20 channels, so a reader must not
    expand anything on its own account.
    """

    def __get__(self, node: Node | None, owner: type | None = None) -> np.ndarray | None:
        if node is None:
            return None
        if node.__dict__["_weight"] is None and node.connections is not None:
            dense = node.connections.dense()
            node.__dict__["_weight"] = dense[:, :, 0, 0] if node.op == "linear" else dense
        return node.__dict__["_weight"]

    def __set__(self, node: Node, weight: np.ndarray | None) -> None:
        node.__dict__["_weight"] = weight
        node.__dict__["connections"] = None


@dataclass
class Node:
    """One operation.

    ``weight`` is dense: ``[O, I, kh, kw]`` (conv2d; ``[O, I/groups, kh, kw]`` as long as
    ``params`` has ``groups``) or ``[O, F]`` (linear). ``bias`` is ``[O]`` or None. ``module`` is
    the qualified name of the ``nn.Module`` it came from, ``parameters`` maps a role ("weight",
    "bias", ...) to the qualified name of the model's own parameter when nothing else uses that
    parameter, and ``source`` is the model's source line; all three are unknown to files.
    """

    op: str
    name: str
    inputs: list[str]
    output: str
    shape: Shape
    params: dict[str, Any] = field(default_factory=dict)
    weight: np.ndarray | None = _DenseWeight()  # type: ignore[assignment]
    bias: np.ndarray | None = None
    module: str | None = None
    connections: Connections | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    source: str | None = None

    def has_weight(self) -> bool:
        return self.op in ("conv2d", "linear")

    def in_channels(self) -> int:
        if self._expanded() is None and self.connections is not None:
            return self.connections.in_channels
        assert self.weight is not None
        return int(self.weight.shape[1]) * int(self.params.get("groups", 1))

    def sparse(self) -> Connections:
        """The kept connections (O(weights) unless they came from a file and are unexpanded)."""
        if self._expanded() is None and self.connections is not None:
            return self.connections
        assert self.weight is not None
        if self.params.get("groups", 1) != 1:
            raise ShapeError(f"node '{self.name}': groups are not expanded yet")
        return Connections.from_dense(self.weight)

    def all_connections(self) -> int:
        """How many connections the layer has when dense; 0 for ops without weights."""
        if not self.has_weight():
            return 0
        return self.shape[0] * (self.in_channels() // int(self.params.get("groups", 1)))

    def kept_connections(self) -> int:
        if not self.has_weight():
            return 0
        weight = self._expanded()
        if weight is None:
            return self.connections.count() if self.connections is not None else 0
        return int(np.count_nonzero(weight.reshape(*weight.shape[:2], -1).any(axis=2)))

    def density(self) -> float:
        """Kept connections / all connections; 1.0 for ops without weights."""
        total = self.all_connections()
        return self.kept_connections() / total if total else 1.0

    def macs(self, *, dense: bool = False) -> int:
        """Multiply-adds per image of the kept (or of all) connections; 0 without weights."""
        connections = self.all_connections() if dense else self.kept_connections()
        return connections * self.macs_of_connection()

    def macs_of_connection(self) -> int:
        """Multiply-adds per image of one connection; 1 for a linear layer."""
        if self.op != "conv2d":
            return 1
        kernel_h, kernel_w = self.params["kernel"]
        return int(kernel_h * kernel_w * self.shape[1] * self.shape[2])

    def _expanded(self) -> np.ndarray | None:
        return self.__dict__["_weight"]


@dataclass
class Graph:
    """Nodes in topological order: a node reads only graph inputs and outputs of earlier nodes."""

    inputs: list[Value]
    outputs: list[str]
    nodes: list[Node]

    def producer(self, value: str) -> Node | None:
        """The node that writes ``value``; None for a graph input or an unknown name."""
        return next((node for node in self.nodes if node.output == value), None)

    def consumers(self, value: str) -> list[Node]:
        """The nodes that read ``value``, each once, in order."""
        return [node for node in self.nodes if value in node.inputs]

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def shapes(self) -> dict[str, Shape]:
        """Shape of every value by name."""
        shapes = {value.name: value.shape for value in self.inputs}
        shapes.update((node.output, node.shape) for node in self.nodes)
        return shapes

    def all_connections(self) -> int:
        return sum(node.all_connections() for node in self.nodes)

    def kept_connections(self) -> int:
        return sum(node.kept_connections() for node in self.nodes)

    def density(self) -> float:
        """Kept connections / all connections over all conv2d and linear nodes."""
        total = self.all_connections()
        return self.kept_connections() / total if total else 1.0

    def macs(self, *, dense: bool = False) -> int:
        """Multiply-adds per image of the kept (or of all) connections."""
        return sum(node.macs(dense=dense) for node in self.nodes)

    def copy(self) -> Graph:
        """A copy whose nodes, lists and parameters may be changed; arrays are shared."""
        nodes = []
        for node in self.nodes:
            twin = copy.copy(node)
            twin.inputs = list(node.inputs)
            twin.params = copy.deepcopy(node.params)
            twin.parameters = dict(node.parameters)
            nodes.append(twin)
        inputs = [Value(value.name, value.shape) for value in self.inputs]
        return Graph(inputs, list(self.outputs), nodes)


# ---------------------------------------------------------------- shape rules


@dataclass(frozen=True)
class OpRule:
    """``parameters``: the names a node of this op has, no more and no fewer.

    ``infer(input_shapes, params, channels)`` gives the output's shape; ``channels`` is the number
    of rows of the weight (ops with weights only).
    """

    parameters: tuple[str, ...]
    infer: Callable[[Sequence[Shape], dict[str, Any], int], Shape]
    min_inputs: int = 1
    max_inputs: int = 1
    in_file: bool = True


def window_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Output size of a sliding window along one axis; ShapeError when it does not fit."""
    span = size + before + after - dilation * (kernel - 1) - 1
    if span < 0:
        raise ShapeError(f"a window of {dilation * (kernel - 1) + 1} does not fit a map of {size}")
    return span // stride + 1


def _need_rank(shape: Shape, rank: int) -> None:
    if len(shape) != rank:
        wanted = "a map [C,H,W]" if rank == 3 else "a vector [F]"
        raise ShapeError(f"input {list(shape)} is not {wanted}")


def _window(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    _need_rank(shapes[0], 3)
    kernel, stride = params["kernel"], params["stride"]
    top, left, bottom, right = params["padding"]
    dilation = params.get("dilation", [1, 1])
    height = window_size(shapes[0][1], kernel[0], stride[0], top, bottom, dilation[0])
    width = window_size(shapes[0][2], kernel[1], stride[1], left, right, dilation[1])
    return (channels, height, width)


def _check_residual(shapes: Sequence[Shape], output: Shape) -> Shape:
    if len(shapes) == 2 and shapes[1] != output:
        raise ShapeError(f"residual {list(shapes[1])} has not the output's shape {list(output)}")
    return output


def _conv2d(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    return _check_residual(shapes, _window(shapes, params, channels))


def _linear(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    _need_rank(shapes[0], 1)
    return _check_residual(shapes, (channels,))


def _pool(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    return _window(shapes, params, shapes[0][0])


def _global_avg_pool(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    _need_rank(shapes[0], 3)
    return (shapes[0][0], 1, 1)


def _same(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    return shapes[0]


def _add(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    if shapes[0] != shapes[1]:
        raise ShapeError(f"adds {list(shapes[0])} and {list(shapes[1])}, which differ")
    return shapes[0]


def _concat(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    for shape in shapes:
        if shape[1:] != shapes[0][1:] or len(shape) != len(shapes[0]):
            raise ShapeError(f"concatenates {list(shapes[0])} and {list(shape)}: maps differ")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _flatten(shapes: Sequence[Shape], params: dict[str, Any], channels: int) -> Shape:
    return (int(np.prod([int(side) for side in shapes[0]], dtype=object)),)


_WINDOW = ("kernel", "stride", "padding")

OPS: dict[str, OpRule] = {
    "conv2d": OpRule((*_WINDOW, "dilation", "activation"), _conv2d, max_inputs=2),
    "linear": OpRule(("activation",), _linear, max_inputs=2),
    "max_pool2d": OpRule((*_WINDOW, "dilation"), _pool),
    "avg_pool2d": OpRule((*_WINDOW, "count_include_pad"), _pool),
    "global_avg_pool": OpRule((), _global_avg_pool),
    "add": OpRule(("activation",), _add, min_inputs=2, max_inputs=2),
    "concat": OpRule((), _concat, min_inputs=2, max_inputs=65536),
    "flatten": OpRule((), _flatten),
    "activation": OpRule(("activation",), _same),
    "softmax": OpRule((), _same),
    # Only between trace and the fold pass: weight, bias, running_mean, running_var are [C].
    "batch_norm": OpRule(
        ("weight", "bias", "running_mean", "running_var", "eps"), _same, in_file=False
    ),
}


def infer_shape(
    op: str, input_shapes: Sequence[Shape], params: dict[str, Any], channels: int = 0
) -> Shape:
    """Shape of the output of ``op``; ``channels``: rows of the weight, for conv2d and linear.

    Raises ShapeError when the op is unknown or the inputs do not suit it.
    """
    rule = OPS.get(op)
    if rule is None:
        raise ShapeError(f"unknown op '{op}'")
    if not rule.min_inputs <= len(input_shapes) <= rule.max_inputs:
        raise ShapeError(f"{op} does not take {len(input_shapes)} inputs")
    return rule.infer(input_shapes, params, channels)
