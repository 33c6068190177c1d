"""A network as plain data: values and nodes. numpy only, no torch.

Shapes are per image: ``(C, H, W)`` for a map, ``(F,)`` for a vector, up to four sides. The batch is
never part of a shape. FORMAT.md says what each op computes, ops/ has a class for each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.connections import Connections
from kernelprune.graph.ops import OPS
from kernelprune.graph.ops.base import Op, Shape
from kernelprune.graph.quantization import Quantization

DTYPES = ("f32", "u8")


@dataclass
class Value:
    """A tensor that flows through the graph; ``shape`` is per image. Of a graph input: ``dtype``,
    one of DTYPES, is how its numbers are given, bytes with "u8"; ``free`` says whether the height
    and the width of the map may be others in every run, ``shape`` is an example's then; with a
    ``quantization`` the engine keeps it as bytes, and bytes that are given are those."""

    name: str
    shape: Shape
    dtype: str = "f32"
    free: tuple[bool, bool] = (False, False)
    quantization: Quantization | None = None


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
            is_matrix = "kernel" not in node.params
            node.__dict__["_weight"] = dense[:, :, 0, 0] if is_matrix else dense
        return node.__dict__["_weight"]

    def __set__(self, node: Node, weight: np.ndarray | None) -> None:
        node.__dict__["_weight"] = weight
        node.__dict__["connections"] = None


@dataclass(eq=False)  # two nodes are never the same, and comparing would expand their weights
class Node:
    """One operation.

    ``weight`` is dense: ``[O, I, kh, kw]`` (conv2d; ``[O, I/groups, kh, kw]`` as long as
    ``params`` has ``groups``) or ``[O, F]`` (linear). ``bias`` is ``[O]`` or None. ``tensors`` are
    those of other ops (see Op.tensors). ``groups``: of a weight whose groups are expanded, how many
    there were; only passes ask. ``module`` is the qualified name of the ``nn.Module`` it came from,
    ``parameters`` maps a role ("weight", "bias", ...) to the qualified name of the model's own
    parameter when nothing else uses that parameter, and ``source`` is the model's source line; all
    four are unknown to files.

    ``quantization``: of the output, which is bytes then. A quantised layer has ``weight_scale``,
    float32 ``[O]``, weights that are int8 and a bias that is int32: its weight is
    ``weight * weight_scale``, its bias ``bias * weight_scale * scale of its input``.
    ``weight_step``, ``[O]`` or of one number: what another tool has rounded the float weights to
    multiples of; only passes ask. ``phases``: of a convolution that stands for a transposed one,
    how many neighbouring output channels are the places within a block of one of its channels.
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
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    literal: bool = False  # the model's code may hold the number of its channels
    groups: int = 1
    quantization: Quantization | None = None
    weight_scale: np.ndarray | None = None
    weight_step: np.ndarray | None = None
    phases: int = 0

    @property
    def rule(self) -> Op:
        """What is known of the op. Raises ShapeError when nothing is."""
        rule = OPS.get(self.op)
        if rule is None:
            raise ShapeError(f"node '{self.name}': unknown op '{self.op}'")
        return rule

    def has_weight(self) -> bool:
        return self.rule.has_connections

    def in_channels(self) -> int:
        if self.is_sparse():
            assert self.connections is not None
            return self.connections.in_channels
        assert self.weight is not None
        return int(self.weight.shape[1]) * int(self.params.get("groups", 1))

    def sparse(self) -> Connections:
        """The kept connections (O(weights) unless they came from a file and are unexpanded)."""
        if self.is_sparse():
            assert self.connections is not None
            return self.connections
        assert self.weight is not None
        if self.params.get("groups", 1) != 1:
            raise ShapeError(f"node '{self.name}': groups are not expanded yet")
        return Connections.from_dense(self.weight)

    def set_sparse(self, connections: Connections) -> None:
        """The layer has these connections; :attr:`weight` is expanded from them when asked for."""
        self.weight = None
        self.connections = connections

    def is_sparse(self) -> bool:
        """Whether the connections are held as a list, and no dense weight."""
        return self._expanded() is None and self.connections is not None

    def scale_outputs(self, scale: np.ndarray) -> None:
        """Multiplies the weights of output channel o by ``scale[o]``; ``scale`` is [O]."""
        if self.weight_step is not None:
            self.weight_step = self.weight_step * np.abs(scale)
        if self.is_sparse():
            assert self.connections is not None
            factors = scale[self.connections.rows()][:, None, None]
            self.set_sparse(self.connections.with_weight(self.connections.weight * factors))
        else:
            assert self.weight is not None
            self.weight = self.weight * scale.reshape(-1, *[1] * (self.weight.ndim - 1))

    def cast_weight(self, dtype: np.dtype | type) -> None:
        if self.is_sparse():
            assert self.connections is not None
            weight = self.connections.weight.astype(dtype)
            self.set_sparse(self.connections.with_weight(weight))
        else:
            assert self.weight is not None
            self.weight = self.weight.astype(dtype)

    def all_connections(self) -> int:
        """How many connections the layer has when dense, those of its groups; 0 for ops without
        weights."""
        if not self.has_weight():
            return 0
        known = int(self.params.get("all_connections", 0))
        return known or self.shape[0] * self.in_channels() // int(self.params.get("groups", 1))

    def set_all_connections(self, total: int) -> None:
        """Notes ``total`` in ``params``, unless every output can read every input."""
        self.params.pop("all_connections", None)
        if total < self.shape[0] * self.in_channels():
            self.params["all_connections"] = total

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
        return self.rule.macs_of_connection(self)

    def _expanded(self) -> np.ndarray | None:
        return self.__dict__["_weight"]


@dataclass(eq=False)
class Graph:
    """Nodes in topological order: a node reads only graph inputs and outputs of earlier nodes."""

    inputs: list[Value]
    outputs: list[str]
    nodes: list[Node]
    _output_names: list[str] | None = field(default=None, init=False, repr=False)

    @property
    def output_names(self) -> list[str]:
        """What the user calls the outputs, in order; as the values unless it was set."""
        return list(self.outputs) if self._output_names is None else self._output_names

    @output_names.setter
    def output_names(self, names: Sequence[str] | None) -> None:
        self._output_names = None if names is None else list(names)

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
        """Multiply-adds per image of the kept (or of all) connections, and of ops that multiply
        values with each other."""
        shapes = self.shapes()
        others = sum(node.rule.macs(node, [shapes[i] for i in node.inputs]) for node in self.nodes)
        return others + sum(node.macs(dense=dense) for node in self.nodes)

    def copy(self) -> Graph:
        """A copy whose nodes, lists and parameters may be changed; arrays are shared."""
        nodes = []
        for node in self.nodes:
            twin = copy.copy(node)
            twin.inputs = list(node.inputs)
            twin.params = copy.deepcopy(node.params)
            twin.parameters = dict(node.parameters)
            twin.tensors = dict(node.tensors)
            nodes.append(twin)
        twin_graph = Graph([copy.copy(value) for value in self.inputs], list(self.outputs), nodes)
        twin_graph.output_names = self._output_names
        return twin_graph


def infer_shape(
    op: str, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape = ()
) -> Shape:
    """Shape of the output of ``op``. ``declared``: what its node says, which counts where the
    parameters do not tell (the channels of a conv2d or linear).

    Raises ShapeError when the op is unknown or the inputs do not suit it.
    """
    rule = OPS.get(op)
    if rule is None:
        raise ShapeError(f"unknown op '{op}'")
    if not rule.min_inputs <= len(input_shapes) <= rule.max_inputs:
        raise ShapeError(f"{op} does not take {len(input_shapes)} inputs")
    return rule.infer(input_shapes, params, declared)
