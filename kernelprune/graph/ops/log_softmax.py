"""log_softmax: the logarithm of softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Op, Parameter, Shape

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def _log_softmax(call: Any) -> str:
    rows.check_floating(call["self"])
    rows.check_dtype(call)
    if call.get("half_to_float"):
        raise UnsupportedOperator("changes the type")
    axis = rows.axis_of(call["dim"], len(rows.torch_shape(call["self"])))
    return rows.emit(call, "log_softmax", [call.value(call["self"])], {"axis": axis})


class LogSoftmax(Op):
    name = "log_softmax"
    parameters = (Parameter("axis", "axis"),)
    torch_rows = {"aten::log_softmax": _log_softmax, "aten::_log_softmax": _log_softmax}

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return input_shapes[0]

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        return [np.arange(node.shape[0]) if node.params["axis"] else None]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        import torch

        return torch.nn.LogSoftmax(node.params["axis"] + 1)
