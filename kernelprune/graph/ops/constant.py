"""constant: the same numbers for every image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Row, Shape, as_module, tensor

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _filled(argument: str | float) -> Row:
    """``argument``: the name of the call's argument that is the number, or the number."""

    def row(call: Any) -> Any:
        number = rows.number(call[argument] if isinstance(argument, str) else argument, "it")
        result = call.fx_node.meta["val"]
        if all(isinstance(side, int) for side in result.shape):  # no batch: new_zeros(4)
            import torch

            return torch.full(tuple(result.shape), number, dtype=result.dtype)
        return rows.constant(call, np.full(rows.result_shape(call), number))

    return row


class Constant(Op):
    """The tensor ``value``. Takes no input."""

    name = "constant"
    min_inputs = max_inputs = 0
    torch_rows = {
        # Like a value: what depends on sizes alone is computed when the model is captured.
        "aten::zeros_like": _filled(0.0),
        "aten::new_zeros": _filled(0.0),
        "aten::ones_like": _filled(1.0),
        "aten::new_ones": _filled(1.0),
        "aten::full_like": _filled("fill_value"),
        "aten::new_full": _filled("fill_value"),
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        if not declared:
            raise ShapeError("a constant declares no shape")
        return tuple(declared)

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        return {"value": (np.dtype(np.float32), tuple(node.shape))}

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        value = node.tensors["value"].astype(np.float64)
        flat = value.reshape(value.shape[0], -1)  # [C, elements of a channel]
        return np.where((flat == flat[:, :1]).all(axis=1), flat[:, 0], np.nan)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return []

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        """The module takes any value of the graph, for the size of the batch."""
        value = tensor(node.tensors["value"])[None]  # [1, ...]
        return as_module(lambda x, value: value.expand(x.shape[0], *value.shape[1:]), value=value)
