"""A graph as an ONNX model of standard operators: dense weights with zeros, bytes as
QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import Error, UnsupportedOperator
from kernelprune.files import write_bytes
from kernelprune.frontends.onnx.emitters import EMITTERS
from kernelprune.frontends.onnx.emitters.builder import Builder
from kernelprune.graph.groups import regroup
from kernelprune.graph.ir import Graph, Node, Value
from kernelprune.graph.passes import to_dtype
from kernelprune.graph.quantization import Quantization, quantizations
from kernelprune.lazy import resolve

if TYPE_CHECKING:
    import torch
    from torch import nn

# Old enough for every runtime in use, new enough for every op here.
_OPSET = 17
_IR_VERSION = 8


def to_onnx(
    source: str | os.PathLike[str] | Graph | nn.Module,
    path: str | os.PathLike[str],
    x: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    *,
    batch: int | None = None,
) -> None:
    """Writes ``source`` as an ONNX file of standard operators (opset 17), whole or not at all.

    ``source``: a model file, or a torch module with an example input ``x``, which is captured as
    for an export (batch norms folded, dead channels gone). Weights are dense, with zeros for
    connections that were dropped; a quantised model has bytes between QuantizeLinear and
    DequantizeLinear. ``batch``: of all inputs; None leaves it free, as what the model file leaves
    free of heights and widths.

    Raises what reading a file or capturing a model raises, UnsupportedOperator for an op that ONNX
    has no standard operators for, and Error where the path cannot be written.
    """
    onnx = resolve("writing an ONNX file", "onnx")
    model = onnx_model(_graph_of(source, x), batch)
    try:
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString()
    except ValueError as error:  # of protobuf: a message has at most 2 GB
        raise Error(f"does not fit into an ONNX file: {error}") from error
    write_bytes(path, content, "the ONNX file")


def write_onnx(graph: Graph, batch: int, path: Path) -> Path:
    """Writes :func:`onnx_model` to ``path`` and returns it."""
    write_bytes(path, onnx_model(graph, batch).SerializeToString(), "the ONNX file")
    return path


def onnx_model(graph: Graph, batch: int | None = None) -> Any:
    """An ``onnx.ModelProto`` that computes ``graph`` for ``batch`` images, None: for any.

    Raises UnsupportedOperator for an op that no model file holds.
    """
    from onnx import TensorProto, helper

    # Computed with all inputs, a depthwise layer would take a hundred times as long.
    graph = regroup(graph.copy())
    build = Builder(graph.shapes(), graph.inputs[0].name, quantizations(graph))
    first = "N" if batch is None else batch
    inputs = [_input(build, value, first) for value in graph.inputs]
    for node in graph.nodes:
        if node.op not in EMITTERS:
            raise UnsupportedOperator(f"node '{node.name}': op '{node.op}' has no ONNX twin")
        _emit(build, node)
    outputs = []
    for name, value in zip(output_names(graph), graph.outputs, strict=True):
        if name != value:
            build.node("Identity", [value], name, last=True)
        sides: list[int | None] = list(build.shapes[value])
        if any(any(each.free) for each in graph.inputs):
            sides = [None] * len(sides)
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, *sides]))
    body = helper.make_graph(build.nodes, "kernelprune", inputs, outputs, build.constants)
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(body, opset_imports=[opset], ir_version=_IR_VERSION)


def output_names(graph: Graph) -> list[str]:
    """The names of the outputs in an ONNX file of ``graph``: those of the model file, but for one
    that a value or an output before has already."""
    names, values = list(graph.output_names), set(graph.shapes())
    found = []
    for place, (name, value) in enumerate(zip(names, graph.outputs, strict=True)):
        is_taken = name != value and (name in values or name in names[:place])
        found.append(f"{name}:output" if is_taken else name)
    return found


def _emit(build: Builder, node: Node) -> None:
    """A node, and behind one whose output is bytes those that round it to them."""
    if node.quantization is None:
        EMITTERS[node.op](build, node)
        return
    twin = copy.copy(node)
    twin.output = build.unique(f"{node.output}:number")
    EMITTERS[node.op](build, twin)
    _as_bytes(build, twin.output, node.output, node.quantization)


def _as_bytes(build: Builder, number: str, result: str, quantization: Quantization) -> None:
    """``result``: ``number`` rounded to bytes, as numbers."""
    scale, zero = _steps(build, result, quantization)
    value = build.node("QuantizeLinear", [number, scale, zero], result)
    build.node("DequantizeLinear", [value, scale, zero], result, last=True)


def _steps(build: Builder, base: str, quantization: Quantization) -> tuple[str, str]:
    return (
        build.constant(f"{base}:scale", np.float32(quantization.scale)),
        build.constant(f"{base}:zero_point", np.uint8(quantization.zero_point)),
    )


def _input(build: Builder, value: Value, batch: int | str) -> Any:
    """Bytes become numbers; numbers that the graph keeps as bytes are rounded to them."""
    from onnx import TensorProto, helper

    names = iter(("height", "width"))
    sides: list[int | str] = list(value.shape)
    for axis, free in enumerate(value.free):
        name = next(names)
        if free:
            sides[axis + 1] = name
    own = value.quantization
    kind, given = TensorProto.FLOAT, value.name
    if value.dtype == "u8" or own is not None:
        given = build.unique(f"{value.name}:given")
        build.first = given
    if value.dtype == "u8":
        kind = TensorProto.UINT8
        if own is None:
            build.node("Cast", [given], value.name, last=True, to=TensorProto.FLOAT)
        else:
            steps = _steps(build, value.name, own)
            build.node("DequantizeLinear", [given, *steps], value.name, last=True)
    elif own is not None:
        _as_bytes(build, given, value.name, own)
    return helper.make_tensor_value_info(given, kind, [batch, *sides])


def _graph_of(source: Any, x: Any) -> Graph:
    if isinstance(source, Graph):
        return source
    if isinstance(source, (str, os.PathLike)):
        from kernelprune.format.reader import read

        return read(source)[0]
    from kernelprune.frontends.torch.accepted import check_module, unwrapped
    from kernelprune.frontends.torch.export import capture
    from kernelprune.frontends.torch.graph_model import GraphModel

    model = unwrapped(source)
    check_module(model)
    if isinstance(model, GraphModel):
        return model.graph
    if x is None:
        raise Error("to_onnx of a torch module needs an example input x")
    graph = capture(model, x)
    to_dtype(graph, np.float32)
    return graph
