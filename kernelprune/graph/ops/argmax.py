"""argmax: where the largest number is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Shape, as_module, with_side

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _argmax(call: Any, *, smallest: bool = False) -> str:
    rank = len(rows.torch_shape(call["self"]))
    if call["dim"] is None:
        raise UnsupportedOperator("over the whole batch: give dim")
    axis = rows.axis_of(call["dim"], rank)
    x = call.value(call["self"])
    if smallest:
        x = rows.unary(call, x, "neg")
    return rows.emit(call, "argmax", [x], {"axis": axis, "keepdim": bool(call["keepdim"])})


class Argmax(Op):
    """Index of the first of the largest, as a number; NaN is larger than all else."""

    name = "argmax"
    parameters = (Parameter("axis", "axis"), Parameter("keepdim", "flag"))
    torch_rows = {
        "aten::argmax": _argmax,
        "aten::argmin": lambda call: _argmax(call, smallest=True),
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        shape, axis = input_shapes[0], params["axis"]
        if params["keepdim"]:
            return with_side(shape, axis, 1)
        return (*shape[:axis], *shape[axis + 1 :]) or (1,)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [np.arange(node.shape[0]) if node.params["axis"] else None]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        dim, keepdim = node.params["axis"] + 1, node.params["keepdim"]
        whole = not keepdim and len(shapes[0]) == 1  # [N], which is the value [1]

        def forward(x: Any) -> Any:
            found = torch.argmax(x, dim=dim, keepdim=keepdim).to(x.dtype)
            return found[:, None] if whole else found

        return as_module(forward)
