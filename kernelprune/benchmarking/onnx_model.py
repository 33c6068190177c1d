"""A graph as an ONNX model, dense: what ONNX Runtime, OpenVINO and MNN run. One function per op."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.files import write_bytes
from kernelprune.graph.ir import Graph, Node

# Old enough for every runtime in use, new enough for every op here.
_OPSET = 17
_IR_VERSION = 8


class _Builder:
    """Collects ONNX nodes and constants under unique names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def finish(self, value: str, node: Node, residual: str | None = None) -> None:
        """Adds the residual, applies the activation, names the result ``node.output``."""
        activation = node.params.get("activation", "none")
        steps = [("Add", [residual])] if residual is not None else []
        if activation == "relu":
            steps.append(("Relu", []))
        elif activation == "relu6":
            low = self.constant(f"{node.output}:low", np.float32(0))
            high = self.constant(f"{node.output}:high", np.float32(6))
            steps.append(("Clip", [low, high]))
        if not steps:
            steps.append(("Identity", []))
        for position, (op, more) in enumerate(steps):
            last = position == len(steps) - 1
            value = self.node(
                op, [value, *more], node.output if last else f"{node.output}:{position}"
            )


def _weights(build: _Builder, node: Node) -> list[str]:
    assert node.weight is not None
    bias = node.bias if node.bias is not None else np.zeros(node.shape[0])
    return [
        build.constant(f"{node.output}:weight", node.weight.astype(np.float32)),
        build.constant(f"{node.output}:bias", bias.astype(np.float32)),
    ]


def _residual(node: Node) -> str | None:
    return node.inputs[1] if len(node.inputs) > 1 else None


def _conv2d(build: _Builder, node: Node) -> None:
    build.node(
        "Conv",
        [node.inputs[0], *_weights(build, node)],
        f"{node.output}:conv",
        kernel_shape=list(node.params["kernel"]),
        strides=list(node.params["stride"]),
        pads=list(node.params["padding"]),
        dilations=list(node.params["dilation"]),
    )
    build.finish(f"{node.output}:conv", node, _residual(node))


def _linear(build: _Builder, node: Node) -> None:
    inputs = [node.inputs[0], *_weights(build, node)]
    build.node("Gemm", inputs, f"{node.output}:gemm", transB=1)
    build.finish(f"{node.output}:gemm", node, _residual(node))


def _max_pool2d(build: _Builder, node: Node) -> None:
    build.node(
        "MaxPool",
        [node.inputs[0]],
        node.output,
        kernel_shape=list(node.params["kernel"]),
        strides=list(node.params["stride"]),
        pads=list(node.params["padding"]),
        dilations=list(node.params["dilation"]),
    )


def _avg_pool2d(build: _Builder, node: Node) -> None:
    build.node(
        "AveragePool",
        [node.inputs[0]],
        node.output,
        kernel_shape=list(node.params["kernel"]),
        strides=list(node.params["stride"]),
        pads=list(node.params["padding"]),
        count_include_pad=int(node.params["count_include_pad"]),
    )


def _add(build: _Builder, node: Node) -> None:
    build.finish(node.inputs[0], node, node.inputs[1])


def _plain(op: str, **attributes: Any) -> Callable[[_Builder, Node], None]:
    def add(build: _Builder, node: Node) -> None:
        build.node(op, list(node.inputs), node.output, **attributes)

    return add


def _activation(build: _Builder, node: Node) -> None:
    build.finish(node.inputs[0], node)


_OPS: dict[str, Callable[[_Builder, Node], None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool": _plain("GlobalAveragePool"),
    "add": _add,
    "concat": _plain("Concat", axis=1),
    "flatten": _plain("Flatten", axis=1),
    "activation": _activation,
    "softmax": _plain("Softmax", axis=1),
}


def to_onnx(graph: Graph, batch: int) -> Any:
    """An ``onnx.ModelProto`` that computes ``graph`` for ``batch`` images, float32 and dense.

    Raises:
        UnsupportedOperator: A node is of an op that no model file holds.
    """
    from onnx import TensorProto, helper

    build = _Builder()
    for node in graph.nodes:
        if node.op not in _OPS:
            raise UnsupportedOperator(f"node '{node.name}': op '{node.op}' has no ONNX twin")
        _OPS[node.op](build, node)
    shapes = graph.shapes()

    def info(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shapes[name]])

    body = helper.make_graph(
        build.nodes,
        "kernelprune",
        [info(value.name) for value in graph.inputs],
        [info(name) for name in graph.outputs],
        build.constants,
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(body, opset_imports=[opset], ir_version=_IR_VERSION)


def write_onnx(graph: Graph, batch: int, path: Path) -> Path:
    """Writes :func:`to_onnx` to ``path`` and returns it."""
    write_bytes(path, to_onnx(graph, batch).SerializeToString(), "the ONNX file")
    return path
