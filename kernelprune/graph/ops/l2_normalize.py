"""l2_normalize: divided by the norm over one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module
from kernelprune.graph.ops.binary import operand

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _cosine_similarity(call: Any) -> str:
    """Sum of the products of two normalized vectors."""
    rank = len(rows.torch_shape(call["x1"]))
    axis = rows.axis_of(call["dim"], rank)
    params = {"axis": axis, "eps": rows.number(call["eps"], "eps")}
    parts = []
    for name in ("x1", "x2"):
        found = operand(call, call[name], rank)
        value = found if isinstance(found, str) else rows.constant(call, found)
        parts.append(rows.emit(call, "l2_normalize", [value], params))
    return rows.reduced(call, rows.binary(call, "mul", *parts), "sum", [axis], False)


class L2Normalize(Op):
    """x / max(norm, eps). Captured from what torch.nn.functional.normalize does (see binary)."""

    name = "l2_normalize"
    parameters = (Parameter("axis", "axis"), Parameter("eps", "number", low=0))
    torch_rows = {"aten::cosine_similarity": _cosine_similarity}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [np.arange(node.shape[0]) if node.params["axis"] else None]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        axis = node.params["axis"]
        if axis == 0:
            return np.full(node.shape[0], np.nan)
        norm = np.abs(inputs[0]) * math.sqrt(shapes[0][axis])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(inputs[0] / np.maximum(norm, node.params["eps"]))

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        dim, eps = node.params["axis"] + 1, node.params["eps"]
        return as_module(lambda x: torch.nn.functional.normalize(x, dim=dim, eps=eps))
