"""One pass over the nodes of an ONNX file, which makes the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernelprune.errors import Error, ShapeError, UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.converters import CONVERTERS, quantization
from kernelprune.frontends.onnx.folding import Folder
from kernelprune.frontends.onnx.model_file import InputInfo, ModelFile
from kernelprune.frontends.onnx.values import FREE_BATCH, Tensor
from kernelprune.frontends.refusal import Refusal, listed
from kernelprune.graph.ir import Graph, Node, Shape, Value, infer_shape
from kernelprune.graph.validate import MAX_PLACES, check_growth, shown

_MAX_NAME = 150
_NO_COUNTERPART = "has no counterpart in the engine (docs/ONNX.md lists what is read)"

# Sizes that a file leaves free: per image, of the one input or by the names of several.
Sizes = Sequence[int] | Mapping[str, Sequence[int]]


class Walk:
    """``env`` maps ONNX's names to what they are: tensors that depend on the input, or constants.
    ``lost`` are results of operators without counterpart: what reads them is not reported again."""

    def __init__(self, file: ModelFile, sizes: Sizes | None = None):
        self.file = file
        self.graph = Graph([], [], [])
        self.env: dict[str, Tensor | np.ndarray] = dict(file.constants)
        self.lost: set[str] = set()
        self.refusals: list[Refusal] = []
        self.shapes: dict[str, Shape] = {}
        self.nodes: dict[str, Node] = {}  # by the values that they write
        self.readers: dict[str, list[str]] = {}  # operators by the names that they read
        self.integers: dict[str, quantization.Integers] = {}  # by names of integer results
        # What constants are multiples of, by their names: float64, the rank of the constant.
        self.steps: dict[str, np.ndarray] = {}
        self.batch = FREE_BATCH
        self._folder = Folder(file.size, file.opset)
        self._names: dict[str, int] = {}
        self._modules: dict[str, int] = {}  # names of layers
        self._outer: set[str] = set()  # names of modules that hold layers
        self._places = 0
        self._inputs(sizes)
        self._needed = self._needed_nodes()

    def run(self) -> Graph:
        """Raises UnsupportedOperator (names all nodes that have no counterpart), FormatError for a
        graph that is none, Error when an output does not depend on the input."""
        for position, node in enumerate(self.file.nodes):
            if self._needed[position]:
                self._node(node)
        if self.refusals:
            raise UnsupportedOperator(listed(self.refusals))
        self._outputs()
        check_growth(self.graph, self.file.size)
        return self.graph

    # ------------------------------------------------------------ inputs and outputs

    def _inputs(self, sizes: Sizes | None) -> None:
        infos = self.file.inputs
        wanted = _by_name(sizes, [info.name for info in infos])
        batches = {info.shape[0] for info in infos if info.shape}
        if len(batches) == 1 and None not in batches:
            self.batch = int(batches.pop() or 1)
        for info in infos:
            shape = self._input_shape(info, wanted.get(info.name))
            name = self.unique(info.name)
            self.graph.inputs.append(Value(name, shape, info.dtype))
            self.shapes[name] = shape
            if info.name in self.env:
                raise self.file.error(f"{shown(info.name)} is defined twice")
            self.env[info.name] = Tensor(name, shape)

    def _input_shape(self, info: InputInfo, wanted: Sequence[int] | None) -> Shape:
        if not info.shape:
            raise self.file.error(f"input {shown(info.name)} is one number, no batch of images")
        given = info.shape[1:]
        if wanted is None and None not in given:
            return tuple(int(side or 1) for side in given) or (1,)
        if wanted is None:
            sides = ", ".join("?" if side is None else str(side) for side in given)
            raise Error(
                f"{self.file.path}: input {shown(info.name)} is [N, {sides}]: say its size per "
                "image, as in sizes=(3, 224, 224)"
            )
        if len(wanted) != len(given) or min(wanted, default=1) < 1:
            raise ShapeError(
                f"{self.file.path}: input {shown(info.name)} has {len(given)} sides per image, "
                f"not {list(wanted)}"
            )
        return tuple(int(side) for side in wanted)

    def _outputs(self) -> None:
        names = []
        for name in self.file.outputs:
            found = self.env.get(name)
            if found is None:
                raise self.file.error(f"output {shown(name)} is computed by no node")
            if isinstance(found, np.ndarray):
                raise Error(
                    f"{self.file.path}: output {shown(name)} does not depend on the model's input"
                )
            self.graph.outputs.append(found.value)
            if name in self.integers:
                raise UnsupportedOperator(
                    f"{self.file.path}: output {shown(name)} holds integers: end in "
                    "DequantizeLinear"
                )
            names.append(re.sub(r"[^!-~]", "_", name)[:_MAX_NAME])
        if len(set(names)) == len(names):
            self.graph.output_names = names

    def _needed_nodes(self) -> list[bool]:
        """For each node whether an output depends on it; also notes who reads what."""
        needed, found = set(self.file.outputs), []
        for node in reversed(self.file.nodes):
            found.append(any(name in needed for name in node.output if name))
            if found[-1]:
                for name in node.input:
                    if name:
                        needed.add(name)
                        self.readers.setdefault(name, []).append(node.op_type)
        for name in self.file.outputs:
            self.readers.setdefault(name, []).append("output")
        return found[::-1]

    # ------------------------------------------------------------ nodes

    def _node(self, node: Any) -> None:
        given = [name for name in node.input if name]
        for name in given:
            if name not in self.env and name not in self.lost:
                raise self.file.error(
                    f"node {shown(node.name or node.op_type)} reads {shown(name)}, which nothing "
                    "defines before it"
                )
        for name in node.output:
            if name and (name in self.env or name in self.lost):
                raise self.file.error(f"{shown(name)} is defined twice")
        outputs = [name for name in node.output if name]
        if len(set(outputs)) < len(outputs):
            raise self.file.error(f"node {shown(node.name or node.op_type)} defines a name twice")
        if any(name in self.lost for name in given):
            known = node.domain in ("", "ai.onnx") and node.op_type in CONVERTERS
            if not known:
                self._refuse(node, UnsupportedOperator(_NO_COUNTERPART))
            self.lost.update(outputs)
            return
        try:
            results = self._results(node)
        except (UnsupportedOperator, ShapeError) as error:
            self._refuse(node, error)
            self.lost.update(outputs)
            return
        # Results beyond these are asked for by nobody, or lost.
        for name, result in zip(node.output, results, strict=False):
            if name:
                self.env[name] = result
        self.lost.update(set(outputs) - set(self.env))

    def _results(self, node: Any) -> Sequence[Tensor | np.ndarray]:
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperator(_NO_COUNTERPART)
        converter = CONVERTERS.get(node.op_type)
        call = Call(self, node, self._attributes(node))
        constants = not any(isinstance(self.env[name], Tensor) for name in node.input if name)
        if constants and node.op_type != "Constant":
            return self._folded(call)
        if converter is None:
            raise UnsupportedOperator(_NO_COUNTERPART)
        integers, before = quantization.carried(call), len(self.graph.nodes)
        found = converter(call)
        if integers is not None:
            self.integers[node.output[0]] = integers
        for made in self.graph.nodes[before:]:
            if made.has_weight():
                quantization.note_steps(call, made)
        results = list(found) if isinstance(found, (list, tuple)) else [found]
        missing = [name for name in node.output[len(results) :] if name]
        if call.reads(missing):
            raise UnsupportedOperator(f"its result {shown(missing[0])} is not supported")
        return results

    def _folded(self, call: Call) -> Sequence[np.ndarray]:
        node = call.node
        if node.op_type == "DequantizeLinear":
            self._folder.spend(call.constant(0, "its integers").size)
            numbers = quantization.numbers_of(call)
            if numbers is not None:
                return numbers
        inputs: list[Any] = [self.env[name] if name else None for name in node.input]
        if not quantization.moves(node.op_type):  # numbers that are exact meet none of float32
            inputs = [
                each.astype(np.float32) if name in self.steps else each
                for name, each in zip(node.input, inputs, strict=True)
            ]
        found = self._folder.fold(node, call.attributes, inputs)
        if quantization.moves(node.op_type):
            quantization.hand_on_steps(call, found[0])
        return found

    def _attributes(self, node: Any) -> dict[str, Any]:
        from onnx import AttributeProto, helper

        found: dict[str, Any] = {}
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                raise UnsupportedOperator("runs a graph of its own (a branch or a loop)")
            if attribute.type == AttributeProto.TENSOR:
                found[attribute.name] = self.file.array(attribute.t)
                continue
            try:
                value = helper.get_attribute_value(attribute)
            except (ValueError, TypeError) as error:
                raise UnsupportedOperator(f"attribute '{attribute.name}': {error}") from error
            found[attribute.name] = (
                value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            )
        return found

    def _refuse(self, node: Any, error: Exception) -> None:
        operator = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        name = node.name or next((name for name in node.output if name), "")
        self.refusals.append(Refusal(operator, name, None, self.file.path, str(error)))

    # ------------------------------------------------------------ what converters use

    def unique(self, wanted: str) -> str:
        """A name that is printable ASCII without spaces, short, and not taken yet."""
        return self._counted(re.sub(r"[^!-~]", "_", wanted)[:_MAX_NAME] or "node", ":", self._names)

    def _counted(self, base: str, separator: str, taken: dict[str, int]) -> str:
        """``base`` with a number behind it unless it is the first; ``taken`` counts."""
        name = base
        while name in taken:
            taken[base] += 1
            name = f"{base}{separator}{taken[base]}"
        taken[name] = 1
        return name

    def add(
        self,
        call: Call,
        op: str,
        inputs: list[str],
        params: dict[str, Any],
        shape: Shape | None = None,
    ) -> Node:
        """Appends a node, whose value has the name of ONNX's first result."""
        given = [self.shapes[name] for name in inputs]
        shape = infer_shape(op, given, params, tuple(shape or ()))
        self._places += sum(shape)
        if self._places > MAX_PLACES:
            raise self.file.error(f"the sides of its shapes sum to more than {MAX_PLACES}")
        name = self.unique(next(each for each in call.node.output if each))
        node = Node(op, name, inputs, name, shape, params)
        layer = call.module if node.rule.module_roles else None
        node.module = self._module(layer or call.node.name or f"{op}_{len(self.graph.nodes)}")
        node.source = self.file.path
        self.graph.nodes.append(node)
        self.shapes[name], self.nodes[name] = shape, node
        return node

    def _module(self, wanted: str) -> str:
        """A name that a submodule may have, dots for modules inside of others."""
        parts = [re.sub(r"\W", "_", part) for part in wanted[:_MAX_NAME].split(".")]
        name = ".".join(part for part in parts if part) or "node"
        if name in self._outer or any(outer in self._modules for outer in _outer_names(name)):
            name = name.replace(".", "_") + "_"  # it would lie inside of a layer, or around one
        name = self._counted(name, "_", self._modules)
        self._outer.update(_outer_names(name))
        return name


def _outer_names(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _by_name(sizes: Sizes | None, names: list[str]) -> Mapping[str, Sequence[int]]:
    if sizes is None:
        return {}
    if isinstance(sizes, Mapping):
        unknown = [name for name in sizes if name not in names]
        if unknown:
            raise Error(f"there is no input {unknown[0]!r}; the inputs are {', '.join(names)}")
        return sizes
    if len(names) != 1:
        raise Error(f"the inputs are {', '.join(names)}: give sizes by name")
    return {names[0]: sizes}
