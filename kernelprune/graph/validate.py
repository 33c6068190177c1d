"""The rules of FORMAT.md, checked on a Graph: the writer and the reader both call check_graph."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from kernelprune.errors import FormatError, ShapeError
from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import DTYPES, Graph, Node, Shape, infer_shape
from kernelprune.graph.ops import OPS
from kernelprune.graph.ops.base import MAX_EXTENT, MAX_RANK, Parameter, is_integer
from kernelprune.graph.quantization import (
    Quantization,
    check_integer_layer,
    check_quantization,
    quantizations,
)
from kernelprune.text import plain

MAX_NODES = 65536
MAX_VALUES = 65536
MAX_ELEMENTS = 1 << 31
MAX_JSON_VALUES = 1 << 22  # in the header, and in the graph
MAX_NODE_INPUTS = 1 << 20  # of all nodes
MAX_GROWTH = 4096  # see check_growth
MAX_PLACES = 1 << 24  # along the axes of nodes' shapes
MAX_NAME_BYTES = 200

VERSIONS = ("1", "2")

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


FREE = "?"  # a side of an input map in a file that may be another in every run

# Gives a node, whose parameters and shape hold, the arrays that it owns; see check_graph.
Take = Callable[[Node, list[Shape]], None]


def version_of(graph: Graph) -> str:
    """The first version of the format that has all that a graph uses."""
    shapes = [*(value.shape for value in graph.inputs), *(node.shape for node in graph.nodes)]
    newer = (
        any(not _is_of_version_1(shape) for shape in shapes)
        or any(value.dtype != "f32" or any(value.free) for value in graph.inputs)
        or graph.output_names != graph.outputs
        or bool(quantizations(graph))
        or any(
            node.rule.since > 1 or any(is_used(node, each) for each in node.rule.parameters)
            for node in graph.nodes
        )
    )
    return "2" if newer else "1"


def is_used(node: Node, parameter: Parameter) -> bool:
    """Does a node have an optional parameter, all of which are of version 2, not as its default?"""
    if not parameter.optional or parameter.name not in node.params:
        return False
    value, default = node.params[parameter.name], parameter.default
    return bool(list(value) != list(default) if isinstance(default, list) else value != default)


def _is_of_version_1(shape: Shape) -> bool:
    return len(shape) in (1, 3)


def check_graph(graph: Graph, version: str | None = None, take: Take | None = None) -> None:
    """Raises FormatError, naming the node, unless the graph may be written to a file.

    ``version``: of the file that it was read from, which decides what there may be. A reader, whose
    nodes have no arrays yet, is called back by ``take`` for each with the shapes of the node's
    inputs, before the node's arrays are looked at.
    """
    if not graph.inputs or not graph.outputs:
        raise FormatError("the graph has no inputs or no outputs")
    if len(graph.nodes) > MAX_NODES:
        raise FormatError(f"the graph has {len(graph.nodes)} nodes; the limit is {MAX_NODES}")
    if len(graph.nodes) + len(graph.inputs) > MAX_VALUES or len(graph.outputs) > MAX_VALUES:
        raise FormatError(f"the graph has more than {MAX_VALUES} values")
    if sum(len(node.inputs) for node in graph.nodes) > MAX_NODE_INPUTS:
        raise FormatError(f"there are more than {MAX_NODE_INPUTS} inputs of nodes")
    shapes: dict[str, Shape] = {}
    quantised: dict[str, Quantization] = {}
    for value in graph.inputs:
        check_name(value.name, "the name of an input")
        check_shape(value.shape, f"input {shown(value.name)}")
        if value.dtype not in DTYPES:
            raise FormatError(f"the dtype of input {shown(value.name)} is not f32 or u8")
        if version == "1" and not _is_of_version_1(value.shape):
            raise FormatError(f"input {shown(value.name)} has rank {len(value.shape)}, not 1 or 3")
        if any(value.free) and (len(value.shape) != 3 or len(graph.inputs) > 1):
            raise FormatError("an input has free sides beside another input, or is no map")
        _define(shapes, value.name, value.shape)
        if value.quantization is not None:
            try:
                check_quantization(value.quantization.scale, value.quantization.zero_point)
            except FormatError as error:
                raise FormatError(f"input {shown(value.name)}: {error}") from None
            quantised[value.name] = value.quantization
    names: set[str] = set()
    for node in graph.nodes:
        check_name(node.name, "the name of a node")
        if node.name in names:
            raise FormatError(f"two nodes have the name {shown(node.name)}")
        names.add(node.name)
        try:
            _check_node(node, shapes, take)
            if node.weight_scale is not None:
                check_integer_layer(node, quantised)
            if node.quantization is not None:
                check_quantization(node.quantization.scale, node.quantization.zero_point)
                quantised[node.output] = node.quantization
            if version == "1":
                _check_version_1(node)
        except (FormatError, ShapeError) as error:
            raise FormatError(f"node {shown(node.name)} ({node.op}): {error}") from None
        _define(shapes, node.output, node.shape)
    places = sum(sum(node.shape) for node in graph.nodes)
    if places > MAX_PLACES and (version or version_of(graph)) != "1":
        raise FormatError(f"the sides of all shapes are {places}, more than 2^24")
    for output in graph.outputs:
        if output not in shapes:
            raise FormatError(f"output {shown(output)} of the graph is not defined")
    if len(graph.output_names) != len(graph.outputs):
        found = len(graph.output_names)
        raise FormatError(f"there are {found} names for {len(graph.outputs)} outputs")
    names = set()
    for name in graph.output_names:
        check_name(name, "the name of an output")
        names.add(name)
    # Version 1 has no names of outputs, and may name a value twice.
    if len(names) < len(graph.outputs) and (version or version_of(graph)) != "1":
        raise FormatError("two outputs have the same name: give each its own")


def _check_version_1(node: Node) -> None:
    if not _is_of_version_1(node.shape):
        raise FormatError(f"the shape has rank {len(node.shape)}, not 1 or 3 as in version 1")
    if node.rule.since > 1:
        raise FormatError("the op is unknown to version 1")
    if node.quantization is not None:
        raise FormatError("parameter 'quantization' is unknown to version 1")
    for parameter in node.rule.parameters:
        if parameter.optional and parameter.name in node.params:
            raise FormatError(f"parameter '{parameter.name}' is unknown to version 1")


def check_growth(graph: Graph, file_bytes: int) -> None:
    """Raises FormatError, naming the node, if a value is out of proportion to what a run is given.

    That is the images and the file of ``file_bytes`` bytes. A few nodes with padding, or that
    concatenate a value with itself, would else make gigabytes out of one pixel.
    """
    given = file_bytes + sum(math.prod(map(int, value.shape)) for value in graph.inputs)
    for node in graph.nodes:
        if math.prod(map(int, node.shape)) // MAX_GROWTH > given:
            raise FormatError(
                f"node {shown(node.name)} ({node.op}): computes {list(node.shape)}, more than "
                f"{MAX_GROWTH} numbers for each number of the inputs and each byte of the file"
            )


def shown(text: str) -> str:
    """A name from a file, safe and short enough for a message."""
    return f"'{plain(text[:80])}{'...' if len(text) > 80 else ''}'"


def check_name(name: Any, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise FormatError(f"{what} is not a string or is empty")
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise FormatError(f"{what} {shown(name)} is longer than {MAX_NAME_BYTES} bytes")
    if _UNPRINTABLE.search(name):
        raise FormatError(f"{what} {shown(name)} holds a space or control character")


def check_shape(shape: Shape, what: str) -> None:
    if not 1 <= len(shape) <= MAX_RANK:
        raise FormatError(f"the shape of {what} has rank {len(shape)}, not 1 to {MAX_RANK}")
    elements = 1
    for extent in shape:
        if not is_integer(extent) or not 1 <= extent <= MAX_EXTENT:
            raise FormatError(f"the shape of {what} holds an extent outside 1..{MAX_EXTENT}")
        elements *= int(extent)
    if elements > MAX_ELEMENTS:
        raise FormatError(f"the shape of {what} {list(shape)} has more than 2^31 elements")


def _define(shapes: dict[str, Shape], name: str, shape: Shape) -> None:
    if name in shapes:
        raise FormatError(f"value {shown(name)} is defined twice")
    shapes[name] = tuple(shape)


def _check_node(node: Node, shapes: dict[str, Shape], take: Take | None) -> None:
    rule = OPS.get(node.op)
    if rule is None or not rule.in_file:
        raise FormatError("unknown op")
    check_name(node.output, "the output")
    for name in node.inputs:
        if name not in shapes:
            raise FormatError(f"reads {shown(name)}, which no input and no earlier node defines")
    check_shape(node.shape, "the output")
    inputs = [shapes[name] for name in node.inputs]
    if not rule.min_inputs <= len(inputs) <= rule.max_inputs:
        raise FormatError(f"does not take {len(inputs)} inputs")
    _check_params(node, inputs)
    inferred = infer_shape(node.op, inputs, node.params, tuple(node.shape))
    if tuple(node.shape) != inferred:
        raise FormatError(f"declares the shape {list(node.shape)} but computes {list(inferred)}")
    if take is not None:
        take(node, inputs)
    if rule.has_connections:
        _check_weight(node, inputs[0][0])
    _check_tensors(node, inputs)


def _check_params(node: Node, inputs: list[Shape]) -> None:
    rule = node.rule
    known = {parameter.name: parameter for parameter in rule.parameters}
    missing = {name for name, each in known.items() if not each.optional} - set(node.params)
    unknown = set(node.params) - set(known)
    if missing or unknown:
        what = "parameter {} is missing" if missing else "unknown parameter {}"
        raise FormatError(what.format(shown(sorted(missing or unknown)[0])))
    for name, value in node.params.items():
        known[name].check(value, len(inputs[0]) if inputs else 0)
    rule.check(node.params, inputs)


def _check_tensors(node: Node, inputs: list[Shape]) -> None:
    wanted = node.rule.tensors(node, inputs)
    if set(node.tensors) != set(wanted):
        raise FormatError(f"has not exactly the tensors {sorted(wanted)}")
    for role, (dtype, shape) in wanted.items():
        array = node.tensors[role]
        if array.shape != shape:
            raise FormatError(f"{role} has shape {list(array.shape)}, not {list(shape)}")
        is_float = np.issubdtype(dtype, np.floating)
        if not np.issubdtype(array.dtype, np.floating if is_float else np.integer):
            raise FormatError(f"{role} has type {array.dtype}, not {dtype}")
        if is_float and not np.isfinite(array).all():
            raise FormatError(f"{role} holds a number that is not finite")
        if not is_float and array.size and not 0 <= array.min() <= array.max() < 1 << 32:
            raise FormatError(f"{role} holds a number that is negative or has more than 32 bits")
    node.rule.check_tensors(node, inputs)


def _check_weight(node: Node, in_channels: int) -> None:
    if node.connections is not None:
        _check_connections(node, node.connections, in_channels)
    elif node.weight is None:
        raise FormatError("has no weight")
    else:
        wanted = (node.shape[0], in_channels, *node.params.get("kernel", ()))
        if tuple(node.weight.shape) != wanted:
            raise FormatError(f"weight has shape {list(node.weight.shape)}, not {list(wanted)}")
        if not np.isfinite(node.weight).all():
            raise FormatError("weight holds a number that is not finite")
    if node.bias is not None:
        if node.bias.shape != (node.shape[0],):
            raise FormatError(f"bias has shape {list(node.bias.shape)}, not [{node.shape[0]}]")
        if not np.isfinite(node.bias).all():
            raise FormatError("bias holds a number that is not finite")


def _check_connections(node: Node, connections: Connections, in_channels: int) -> None:
    row_ptr = connections.row_ptr.astype(np.int64)
    col = connections.col.astype(np.int64)
    if row_ptr.shape != (node.shape[0] + 1,):
        raise FormatError(f"row_ptr has shape {list(row_ptr.shape)}, not [{node.shape[0] + 1}]")
    if row_ptr[0] != 0 or (np.diff(row_ptr) < 0).any() or row_ptr[-1] != col.shape[0]:
        raise FormatError("row_ptr does not rise from 0 to the number of connections")
    if col.size and col.max() >= in_channels:
        raise FormatError(f"col names an input channel past {in_channels}")
    falls = np.diff(col) <= 0
    starts = row_ptr[1:-1]  # a fall is allowed only where a new row starts
    falls[starts[(starts > 0) & (starts < col.size)] - 1] = False
    if falls.any():
        raise FormatError("col is not strictly ascending within a row")
    wanted = (col.shape[0], *node.params.get("kernel", (1, 1)))
    if connections.weight.shape != wanted:
        raise FormatError(f"weight has shape {list(connections.weight.shape)}, not {list(wanted)}")
    if not np.isfinite(connections.weight).all():
        raise FormatError("weight holds a number that is not finite")
