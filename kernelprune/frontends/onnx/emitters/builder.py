"""Collects the nodes and constants of an ONNX graph under unique names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernelprune.graph.ir import Node, Shape
from kernelprune.graph.quantization import Quantization


@dataclass
class Builder:
    """``shapes``: of every value per image; ``first``: an input, which has the batch;
    ``quantizations``: of the values that are bytes."""

    shapes: dict[str, Shape]
    first: str
    quantizations: dict[str, Quantization] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def unique(self, base: str) -> str:
        name, count = base, 1
        while name in self._names or name in self.shapes:
            count += 1
            name = f"{base}:{count}"
        self._names.add(name)
        return name

    def constant(self, base: str, array: Any) -> str:
        """Whole numbers as int64, all others as float32, bytes and 32-bit integers as they are."""
        from onnx import numpy_helper

        array = np.asarray(array)
        if array.dtype not in (np.int8, np.uint8, np.int32, np.bool_):
            array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        name = self.unique(base)
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], base: str, *, last: bool = False, **attributes: Any
    ) -> str:
        """Appends a node and returns its result, which has the name ``base`` if it is ``last``."""
        from onnx import helper

        name = base if last else self.unique(f"{base}:{op}")
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def finish(self, value: str, node: Node, residual: str | None = None) -> None:
        """Adds the residual, applies the activation, names the result ``node.output``."""
        activation = node.params.get("activation", "none")
        steps: list[tuple[str, list[str]]] = [] if residual is None else [("Add", [residual])]
        if activation == "relu":
            steps.append(("Relu", []))
        elif activation == "relu6":
            bounds = [self.constant(f"{node.output}:bound", np.float32(b)) for b in (0, 6)]
            steps.append(("Clip", bounds))
        for position, (op, more) in enumerate(steps or [("Identity", [])]):
            last = position >= len(steps) - 1
            value = self.node(op, [value, *more], node.output, last=last)

    def reshape(self, value: str, shape: Sequence[int], base: str, *, last: bool = False) -> str:
        """``shape`` per image."""
        sides = self.constant(f"{base}:shape", np.asarray([0, *shape], np.int64))
        return self.node("Reshape", [value, sides], base, last=last)

    def transpose(self, value: str, axes: Sequence[int], base: str, *, last: bool = False) -> str:
        """``axes`` per image."""
        order = [0, *(axis + 1 for axis in axes)]
        return self.node("Transpose", [value], base, last=last, perm=order)

    def gather(
        self, value: str, axis: int, index: np.ndarray, base: str, *, last: bool = False
    ) -> str:
        places = self.constant(f"{base}:index", index.astype(np.int64))
        return self.node("Gather", [value, places], base, last=last, axis=axis + 1)

    def by_channel(self, base: str, array: np.ndarray, rank: int) -> str:
        """[C] as a constant that meets values of ``rank`` axes per image."""
        return self.constant(base, array.reshape(-1, *[1] * (rank - 1)))
