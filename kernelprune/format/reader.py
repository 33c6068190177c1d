"""Reads a model file with numpy alone. The file is treated as hostile: any bytes either give a
Graph that keeps every rule of FORMAT.md or raise FormatError, in memory bounded by a small multiple
of the file's size (layers stay sparse until somebody asks for ``Node.weight``)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kernelprune.errors import FormatError
from kernelprune.files import name_of
from kernelprune.format.patterns import decode
from kernelprune.format.writer import MAX_HEADER_BYTES, RESERVED_KEYS
from kernelprune.graph.ir import Graph, Node, Shape, Value
from kernelprune.graph.ops import OPS
from kernelprune.graph.ops.base import MAX_EXTENT, MAX_RANK
from kernelprune.graph.quantization import Quantization, check_quantization
from kernelprune.graph.validate import (
    FREE,
    MAX_JSON_VALUES,
    MAX_NODES,
    MAX_VALUES,
    VERSIONS,
    check_graph,
    check_growth,
    check_name,
    shown,
)
from kernelprune.model_files import read_model, refusal
from kernelprune.text import read_json

_DTYPES: dict[str, np.dtype[Any]] = {
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_NODE_KEYS = ("op", "name", "inputs", "output", "shape")


def read(path: str | os.PathLike[str]) -> tuple[Graph, dict[str, str]]:
    """The graph of a model file and its provenance (metadata without format, version, graph).

    Raises FormatError when the file is not a valid model, Error when there is no such file.
    """
    return read_bytes(read_model(path), name_of(path))


def read_bytes(data: bytes, name: str) -> tuple[Graph, dict[str, str]]:
    """The same for bytes in memory; ``name`` stands for the file in messages."""
    try:
        metadata, tensors = _parse_safetensors(data)
        graph = _graph(metadata)
        spare = dict(tensors)
        check_graph(
            graph,
            metadata["version"],
            lambda node, shapes: _take_tensors(node, shapes, spare, metadata["version"] == "1"),
        )
        if spare:
            raise FormatError(f"tensor {shown(next(iter(spare)))} belongs to no node")
        check_growth(graph, len(data))
    except FormatError as error:
        raise refusal(FormatError(f"{name}: {error}"), data, name) from None
    return graph, {key: text for key, text in metadata.items() if key not in RESERVED_KEYS}


# ---------------------------------------------------------------- safetensors


def _parse_safetensors(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if len(data) < 8:
        raise FormatError(f"the file has {len(data)} bytes, too few for a model")
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER_BYTES:
        raise FormatError(
            f"a header of {size} bytes is over the limit of 64 MiB (is this a safetensors file?)"
        )
    if size > len(data) - 8:
        raise FormatError("the file ends inside its header: it is truncated")
    header = _json_object(data[8 : 8 + size], "the header")
    _check_size(header, size, "the header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("__metadata__ does not map names to strings")
    # Said before anything about the tensors, which may be any in a file of another kind.
    if metadata.get("format") != "kernelprune":
        raise FormatError(
            "not a kernelprune model, but a state dict or another file of tensors: load it into "
            "its torch model and write that with kernelprune.export"
        )
    block = np.frombuffer(data, np.uint8, offset=8 + size)
    tensors: dict[str, np.ndarray] = {}
    ranges = []
    for name, entry in header.items():
        begin, end, tensors[name] = _tensor(name, entry, block)
        ranges.append((begin, end, name))
    covered = 0
    for begin, end, name in sorted(ranges):
        if begin != covered:
            place = "inside another tensor" if begin < covered else "after a gap"
            raise FormatError(f"tensor {shown(name)} starts at byte {begin} {place}")
        covered = end
    if covered != block.size:
        raise FormatError(f"the tensors end at byte {covered} of a data block of {block.size}")
    return metadata, tensors


def _tensor(name: str, entry: Any, block: np.ndarray) -> tuple[int, int, np.ndarray]:
    what = f"tensor {shown(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{what} has other keys than dtype, shape, data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        known = ", ".join(_DTYPES)
        raise FormatError(f"{what} has an unknown dtype; this version reads {known}")
    shape = _counts(entry["shape"], f"the shape of {what}")
    offsets = _counts(entry["data_offsets"], f"data_offsets of {what}")
    if len(shape) > MAX_RANK or len(offsets) != 2:
        raise FormatError(f"{what} has a shape of rank {len(shape)} or not two offsets")
    begin, end = offsets
    if begin > end or end > block.size:
        raise FormatError(
            f"{what} lies at bytes {begin} to {end} of a data block of {block.size} "
            "(is the file truncated?)"
        )
    elements = 1
    for extent in shape:
        elements *= extent
    if elements * dtype.itemsize != end - begin:
        raise FormatError(f"{what} has {end - begin} bytes, which is not what its shape needs")
    if elements == 0:
        # numpy refuses shapes such as [0, 2^60]; a valid file holds only small sides here.
        if max(shape) > MAX_EXTENT:
            raise FormatError(f"the shape of {what} is out of range")
        return begin, end, np.zeros(shape, dtype)
    return begin, end, block[begin:end].view(dtype).reshape(shape)


def _counts(value: Any, what: str) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in value):
        raise FormatError(f"{what} is not a list of whole numbers from 0 up")
    return value


def _json_object(text: bytes, what: str) -> dict[str, Any]:
    """Strict: no duplicate keys, no NaN, nothing but an object that starts at the first byte."""
    if not text.startswith(b"{"):
        raise FormatError(f"{what} does not start with '{{'")
    try:
        return read_json(text)
    except ValueError as error:
        raise FormatError(f"{what} is not valid JSON: {error}") from None


def _check_size(document: Any, text_bytes: int, what: str) -> None:
    """Refuses a JSON document of too many values; each takes two bytes of text at least."""
    if text_bytes < 2 * MAX_JSON_VALUES:
        return
    count, left = 0, [document]
    while left:
        value = left.pop()
        count += 1
        if isinstance(value, (dict, list)):
            left.extend(value.values() if isinstance(value, dict) else value)
    if count > MAX_JSON_VALUES:
        raise FormatError(f"{what} has too many values; the limit is {MAX_JSON_VALUES}")


# ---------------------------------------------------------------- graph


def _graph(metadata: dict[str, str]) -> Graph:
    for key in RESERVED_KEYS:
        if key not in metadata:
            raise FormatError(f"the metadata has no '{key}'")
    if metadata["version"] not in VERSIONS:
        raise FormatError(
            f"the file has version {shown(metadata['version'])} and this is a reader of version "
            f"{VERSIONS[-1]}: update kernelprune or export again"
        )
    try:
        text = metadata["graph"].encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can express and UTF-8 cannot
        raise FormatError("the graph is not valid text") from None
    fields = _json_object(text, "the graph")
    _check_size(fields, len(text), "the graph")
    if set(fields) != {"inputs", "outputs", "nodes"}:
        raise FormatError("the graph has other keys than inputs, outputs, nodes")
    first = metadata["version"] == "1"
    inputs = [_input(entry, first) for entry in _list(fields["inputs"], MAX_VALUES, "the inputs")]
    entries = _list(fields["outputs"], MAX_VALUES, "the outputs")
    outputs = [_output(entry, first) for entry in entries]
    nodes = [_node(entry) for entry in _list(fields["nodes"], MAX_NODES, "the nodes")]
    graph = Graph(inputs, [value for _, value in outputs], nodes)
    graph.output_names = [name for name, _ in outputs]
    return graph


def _input(entry: Any, is_version_1: bool) -> Value:
    optional = set() if is_version_1 else {"dtype", "example", "quantization"}
    if not isinstance(entry, dict) or set(entry) - optional != {"name", "shape"}:
        keys = ", ".join(["name", "shape", *optional])
        raise FormatError(f"an input has other keys than {keys}")
    check_name(entry["name"], "the name of an input")
    # check_graph looks at the dtype
    what, free = shown(entry["name"]), (False, False)
    shape = _shape(entry.get("example", entry["shape"]), what)
    if "example" in entry:
        free = _free_sides(entry["shape"], shape, what)
    return Value(entry["name"], shape, entry.get("dtype", "f32"), free, _quantization(entry, what))


def _quantization(entry: dict[str, Any], what: str) -> Quantization | None:
    """Of an input or a node, if it has one; ``what`` names it."""
    if "quantization" not in entry:
        return None
    given = entry["quantization"]
    if not isinstance(given, dict) or set(given) != {"scale", "zero_point"}:
        raise FormatError(f"the quantization of {what} has other keys than scale, zero_point")
    try:
        check_quantization(given["scale"], given["zero_point"])
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None
    return Quantization(given["scale"], given["zero_point"])


def _free_sides(given: Any, example: Shape, what: str) -> tuple[bool, bool]:
    """Whether the height and the width of a map are free: FREE in its shape."""
    if not isinstance(given, list) or not len(given) == len(example) == 3:
        raise FormatError(f"input {what} has free sides, but is no map")
    free = [axis > 0 and side == FREE for axis, side in enumerate(given)]
    for side, known, is_free in zip(given, example, free, strict=True):
        if not is_free and (type(side) is not int or side != known):
            raise FormatError(f"the shape of input {what} and its example differ")
    if not any(free):
        raise FormatError(f"input {what} has an example, but no free side")
    return free[1], free[2]


def _output(entry: Any, is_version_1: bool) -> tuple[str, str]:
    """(what the user calls it, value)."""
    if is_version_1 or not isinstance(entry, dict):
        entry = {"name": entry, "value": entry}
    if set(entry) != {"name", "value"}:
        raise FormatError("an output has other keys than name, value")
    check_name(entry["name"], "the name of an output")
    check_name(entry["value"], "the value of an output")
    return entry["name"], entry["value"]


def _node(entry: Any) -> Node:
    if not isinstance(entry, dict) or any(key not in entry for key in _NODE_KEYS):
        raise FormatError(f"a node is not an object with {', '.join(_NODE_KEYS)}")
    check_name(entry["name"], "the name of a node")
    check_name(entry["output"], "the output of a node")
    name, op = entry["name"], entry["op"]
    if not isinstance(op, str) or op not in OPS:
        raise FormatError(f"node {shown(name)}: unknown op {shown(str(op)[:80])}")
    shape = _shape(entry["shape"], f"node {shown(name)}")
    others = {*_NODE_KEYS, "quantization"}
    params = {key: value for key, value in entry.items() if key not in others}
    inputs = _names(entry["inputs"], f"the inputs of node {shown(name)}")
    node = Node(op, name, inputs, entry["output"], shape, params)
    node.quantization = _quantization(entry, f"node {shown(name)}")
    return node


# The types of a layer's col, by version.
_INDICES = {True: ("<u2", "<u4"), False: ("|u1", "<u2", "<u4")}


def _take_tensors(
    node: Node, inputs: list[Shape], spare: dict[str, np.ndarray], is_version_1: bool
) -> None:
    """Moves a node's tensors from ``spare``; check_graph compares shapes and contents."""
    for role, (dtype, shape) in node.rule.tensors(node, inputs).items():
        node.tensors[role] = _take(node, role, (dtype.str,), len(shape), spare)
    if node.has_weight():
        weight = _take(node, "weight", ("<f4", "|i1"), 3, spare)
        is_quantised = weight.dtype == np.int8
        node.bias = _take(node, "bias", ("<i4" if is_quantised else "<f4",), 1, spare)
        if is_quantised:
            node.weight_scale = _take(node, "scale", ("<f4",), 1, spare)
        pattern = {}
        if not is_version_1 and f"{node.name}.kept" in spare:
            pattern["kept"] = _take(node, "kept", ("|u1",), 2, spare)
        elif is_version_1 or f"{node.name}.col" in spare:
            pattern["row_ptr"] = _take(node, "row_ptr", ("<u4",), 1, spare)
            pattern["col"] = _take(node, "col", _INDICES[is_version_1], 1, spare)
        node.connections = decode(node.shape[0], inputs[0][0], pattern, weight)


def _take(
    node: Node, role: str, dtypes: tuple[str, ...], rank: int, spare: dict[str, np.ndarray]
) -> np.ndarray:
    name = f"{node.name}.{role}"
    array = spare.pop(name, None)
    if array is None:
        raise FormatError(f"tensor {shown(name)} is missing")
    if array.dtype.str not in dtypes or array.ndim != rank:
        raise FormatError(f"tensor {shown(name)} has type {array.dtype} and rank {array.ndim}")
    return array


def _names(value: Any, what: str) -> list[str]:
    names = _list(value, MAX_VALUES, what)
    for name in names:
        check_name(name, f"a name in {what}")
    return names


def _list(value: Any, limit: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise FormatError(f"{what} is not a list of at most {limit} entries")
    return value


def _shape(value: Any, what: str) -> Shape:
    return tuple(_counts(value, f"the shape of {what}"))
