"""Writes a model file. Writing is atomic: the path holds the old file or the whole new one."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from kernelprune.errors import FormatError
from kernelprune.files import replacing
from kernelprune.format.patterns import encode
from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import Graph, Node, Value
from kernelprune.graph.validate import FREE, check_graph, check_growth, is_used, version_of

MAX_HEADER_BYTES = 64 << 20
RESERVED_KEYS = ("format", "version", "graph")

_DTYPES = {"|u1": "U8", "<u2": "U16", "<u4": "U32", "<f4": "F32", "<i4": "I32", "|i1": "I8"}


def write(
    graph: Graph, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes ``graph`` to ``path``. Weights are stored as float32, those of quantised layers as
    signed bytes; a connection is kept when any of its weights is not zero. ``metadata`` is free
    provenance; values become strings.

    An existing file stays untouched until the new one is complete on disk. Raises FormatError when
    the graph breaks a rule of FORMAT.md, Error when the file cannot be written.
    """
    pieces = _pieces(graph, metadata)
    with replacing(path, "the model") as file:
        for piece in pieces:
            file.write(piece)


def to_bytes(graph: Graph, metadata: Mapping[str, Any] | None = None) -> bytes:
    """What :func:`write` would write. Raises FormatError."""
    return b"".join(_pieces(graph, metadata))


def _pieces(graph: Graph, metadata: Mapping[str, Any] | None) -> list[bytes | memoryview]:
    check_graph(graph)
    tensors = _tensors(graph, compact=version_of(graph) != "1")
    header = _header(graph, tensors, metadata or {})
    arrays = [array.reshape(-1).view(np.uint8).data for array in tensors.values()]
    pieces: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header, *arrays]
    check_growth(graph, sum(map(len, pieces)))
    return pieces


def _tensors(graph: Graph, *, compact: bool) -> dict[str, np.ndarray]:
    """All tensors in the order of the file: 4-byte types first, so that everything is aligned.
    ``compact``: with patterns as version 1 does not have them."""
    tensors: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        with np.errstate(over="ignore"):
            arrays = {
                role: np.ascontiguousarray(array, "<f4" if array.dtype.kind == "f" else "<u4")
                for role, array in node.tensors.items()
            }
            if node.has_weight():
                arrays.update(_layer_tensors(node, compact))
        for role, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FormatError(f"node '{node.name}' ({node.op}): {role} overflows float32")
        tensors.update({f"{node.name}.{role}": array for role, array in arrays.items()})
    return dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))


def _layer_tensors(node: Node, compact: bool) -> dict[str, np.ndarray]:
    """Of a layer with connections; its checks have passed."""
    is_quantised = node.weight_scale is not None
    kept = node.sparse() if is_quantised else _connections_float32(node)
    bias = node.bias if node.bias is not None else np.zeros(node.shape[0])
    arrays = {
        **encode(kept, compact=compact),
        "weight": np.ascontiguousarray(kept.weight, "i1" if is_quantised else "<f4"),
        "bias": np.ascontiguousarray(bias, "<i4" if is_quantised else "<f4"),
    }
    if node.weight_scale is not None:
        arrays["scale"] = np.ascontiguousarray(node.weight_scale, "<f4")
    return arrays


def _connections_float32(node: Node) -> Connections:
    """Rounded before zeros are looked for: a weight that rounds to zero is no connection."""
    if node.is_sparse():
        connections = node.sparse()
        return connections.with_weight(connections.weight.astype(np.float32))
    assert node.weight is not None
    return Connections.from_dense(node.weight.astype(np.float32))


def _header(graph: Graph, tensors: dict[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    for key in RESERVED_KEYS:
        if key in metadata:
            raise FormatError(f"metadata '{key}' is reserved")
    text = {str(key): str(value) for key, value in metadata.items()}
    version = version_of(graph)
    text.update(format="kernelprune", version=version, graph=_compact(_graph_json(graph)))
    header: dict[str, Any] = {"__metadata__": text}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": _DTYPES[array.dtype.newbyteorder("<").str],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = _compact(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER_BYTES:
        raise FormatError("the header is over the limit of 64 MiB")
    return encoded


def _compact(value: Any) -> str:
    return json.dumps(
        value, separators=(",", ":"), ensure_ascii=True, default=lambda number: number.item()
    )


def _graph_json(graph: Graph) -> dict[str, Any]:
    names = zip(graph.output_names, graph.outputs, strict=True)
    return {
        "inputs": [_input_json(value) for value in graph.inputs],
        "outputs": [n if n == value else {"name": n, "value": value} for n, value in names],
        "nodes": [_node_json(node) for node in graph.nodes],
    }


def _input_json(value: Value) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": value.name, "shape": list(value.shape)}
    if any(value.free):
        entry["example"] = entry["shape"]
        entry["shape"] = [
            FREE if free else side
            for side, free in zip(value.shape, (False, *value.free), strict=True)
        ]
    if value.dtype != "f32":
        entry["dtype"] = value.dtype
    return entry | _quantization_json(value)


def _quantization_json(owner: Value | Node) -> dict[str, Any]:
    if owner.quantization is None:
        return {}
    return {"quantization": dataclasses.asdict(owner.quantization)}


def _node_json(node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "op": node.op,
        "name": node.name,
        "inputs": node.inputs,
        "output": node.output,
        "shape": list(node.shape),
    }
    for parameter in node.rule.parameters:
        if not parameter.optional or is_used(node, parameter):
            entry[parameter.name] = node.params[parameter.name]
    return entry | _quantization_json(node)
