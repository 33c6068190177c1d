"""An ONNX file of anybody's: read whole, bounded by its own bytes, refused with one clear error."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelprune.errors import Error, FormatError
from kernelprune.files import name_of, opened, read_bytes
from kernelprune.graph.ops.base import MAX_EXTENT
from kernelprune.graph.validate import MAX_ELEMENTS, MAX_NODES, shown
from kernelprune.lazy import resolve

# What protobuf can hold in one message.
_MAX_BYTES = (1 << 31) - 1
OPSETS = (7, 22)
_ONNX_DOMAINS = ("", "ai.onnx")


@dataclass
class InputInfo:
    """``shape``: of ONNX, the batch first; None for a side that the file leaves free."""

    name: str
    dtype: str
    shape: list[int | None]


class ModelFile:
    """``nodes`` are ONNX's own; ``constants`` are the initialisers, as arrays. ``size``: of all
    bytes that were read, which bounds what may be computed from them."""

    def __init__(self, path: str | os.PathLike[str]):
        """Raises Error when there is no such file, FormatError when it holds no model that can be
        read."""
        self.path = name_of(path)
        content = read_bytes(path, _MAX_BYTES)
        self.size = len(content)
        model = _parsed(content, self.path)
        self.opset = self._opset(model)
        graph = model.graph
        if len(graph.node) > MAX_NODES:
            raise self.error(f"more than {MAX_NODES} nodes")
        if graph.sparse_initializer:
            raise self.error("sparse initialisers: store them dense, zeros are found")
        if model.functions:
            raise self.error("functions of its own: inline them (onnx.inliner)")
        self._check_names(graph)
        self.nodes = list(graph.node)
        self.constants: dict[str, np.ndarray] = {}
        for tensor in graph.initializer:
            if tensor.name in self.constants:
                raise self.error(f"two initialisers are called {shown(tensor.name)}")
            self.constants[tensor.name] = self.array(tensor)
        self.inputs = [self._input(info) for info in graph.input if info.name not in self.constants]
        self.outputs = [info.name for info in graph.output]
        for names, what in (([i.name for i in self.inputs], "inputs"), (self.outputs, "outputs")):
            if not names or "" in names:
                raise self.error(f"{what}: there are none, or one has no name")
            if len(set(names)) < len(names):
                raise self.error(f"two {what} have one name")

    def error(self, reason: str) -> FormatError:
        return FormatError(f"{self.path}: {reason}")

    # ------------------------------------------------------------ parts

    def _opset(self, model: Any) -> int:
        versions = [each.version for each in model.opset_import if each.domain in _ONNX_DOMAINS]
        low, high = OPSETS
        if len(versions) != 1:
            raise self.error("does not say which version of ONNX's operators (opset) it uses")
        if not low <= versions[0] <= high:
            raise self.error(
                f"opset {versions[0]}: {low} to {high} can be read; onnx.version_converter converts"
            )
        return int(versions[0])

    def _check_names(self, graph: Any) -> None:
        """protobuf gives what is no UTF-8 as bytes."""
        names = [
            each.name for part in (graph.initializer, graph.input, graph.output) for each in part
        ]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [attribute.name for attribute in node.attribute]
        if not all(isinstance(name, str) for name in names):
            raise self.error("names that are no text")

    def _input(self, info: Any) -> InputInfo:
        from onnx import TensorProto

        kind = info.type.tensor_type
        if not info.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise self.error(f"input {shown(info.name)} is no tensor with a shape")
        types = {
            TensorProto.FLOAT: "f32",
            TensorProto.FLOAT16: "f32",
            TensorProto.DOUBLE: "f32",
            TensorProto.UINT8: "u8",
        }
        if kind.elem_type not in types:
            raise self.error(
                f"input {shown(info.name)} holds {_type_name(kind.elem_type)}: only floating point "
                "and uint8 can be read"
            )
        shape: list[int | None] = []
        for side in kind.shape.dim:
            # Some tools write 0 or -1 for a side that they leave free.
            known = side.HasField("dim_value") and side.dim_value not in (0, -1)
            if known and not 1 <= side.dim_value <= MAX_EXTENT:
                raise self.error(f"input {shown(info.name)} has a side of {side.dim_value}")
            shape.append(int(side.dim_value) if known else None)
        if math.prod(side or 1 for side in shape) > MAX_ELEMENTS:
            raise self.error(f"input {shown(info.name)} has more than 2^31 elements")
        return InputInfo(info.name, types[kind.elem_type], shape)

    def array(self, tensor: Any) -> np.ndarray:
        """A TensorProto as an array, half precision as float32. Raises FormatError, before there is
        any memory for it, unless it has the bytes that its shape asks for."""
        from onnx import TensorProto, helper, numpy_helper

        name = shown(tensor.name)
        try:
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except (KeyError, TypeError, ValueError):
            kind = None
        if kind is None or tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
            raise self.error(f"tensor {name} holds {_type_name(tensor.data_type)}")
        sides = [int(side) for side in tensor.dims]
        count = math.prod(sides)
        if min(sides, default=0) < 0:
            raise self.error(f"tensor {name} has a side of {min(sides)}")
        if tensor.data_location == TensorProto.EXTERNAL:
            content = self._external(tensor, count * kind.itemsize)
            array = np.frombuffer(content, kind.newbyteorder("<")).reshape(sides)
        else:
            if count > 8 * self.size:  # the smallest type has more than one bit
                raise self.error(f"tensor {name} of shape {sides} has no data for it")
            try:
                array = numpy_helper.to_array(tensor)
            except Exception as error:  # of numpy, protobuf and onnx, by what is wrong
                reason = f"tensor {name} of shape {sides} does not have its data"
                raise self.error(reason) from error
        if array.dtype.kind not in "fiub":  # bfloat16, float8 and the like
            array = array.astype(np.float32)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _external(self, tensor: Any, wanted: int) -> bytes:
        """The bytes of a tensor that lie in another file of the same folder."""
        name = shown(tensor.name)
        said = {entry.key: entry.value for entry in tensor.external_data}
        folder = os.path.realpath(os.path.dirname(os.path.abspath(self.path)))
        try:
            location = name_of(said.get("location", ""))
            offset, length = int(said.get("offset", 0)), int(said.get("length", wanted))
        except (Error, ValueError):
            raise self.error(f"tensor {name} does not say where its data is") from None
        place = os.path.realpath(os.path.join(folder, location))
        if os.path.isabs(location) or os.path.commonpath([folder, place]) != folder:
            raise self.error(f"tensor {name}: its data lies outside of the file's folder")
        with opened(place) as file:
            size = os.fstat(file.fileno()).st_size
            if length != wanted or offset < 0 or offset + length > size:
                raise self.error(
                    f"tensor {name} needs {wanted} bytes, {shown(location)} has {length} of {size} "
                    f"bytes from {offset} on"
                )
            file.seek(offset)
            self.size += length
            return file.read(length)


def _parsed(content: bytes, path: str) -> Any:
    onnx = resolve("reading an ONNX file", "onnx")
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RuntimeError) as error:
        raise FormatError(f"{path}: no ONNX model: {error}") from error
    if not model.HasField("graph") or not model.graph.node:
        raise FormatError(f"{path}: no ONNX model, or one without nodes")
    return model


def _type_name(number: int) -> str:
    from onnx import TensorProto

    names = {value: name for name, value in TensorProto.DataType.items()}
    return names.get(number, f"a type of number {number}").lower()
