"""All elements of a value as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Shape, elements

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node


def flatten_to(call: Any, value: str, *, literal: bool = False) -> str:
    """Appends the node that gives ``value`` the shape of the call's result, if it needs one."""
    target = call.output_shape()
    if target == call.shape(value):
        return value
    if len(target) != 1 or elements(call.shape(value)) != target[0]:
        raise UnsupportedOperator(
            f"reshapes {list(call.shape(value))} to {list(target)}: only flattening is supported"
        )
    # "literal": the model's code holds the number of features, so it cannot be made smaller.
    return str(call.add("flatten", [value], {"literal": literal}).output)


def _reshape(call: Any) -> str:
    sizes: list[Any] = list(call.get("shape", call.get("size")) or [])
    literal = bool(sizes) and sizes[-1] != -1
    return flatten_to(call, call.value(call["self"]), literal=literal)


def _flatten(call: Any) -> str:
    return flatten_to(call, call.value(call["self"]))


class Flatten(Op):
    name = "flatten"
    since = 1
    rearranges = True
    torch_rows = {
        "aten::flatten": _flatten,
        "aten::squeeze": _flatten,
        "aten::view": _reshape,
        "aten::_unsafe_view": _reshape,
        "aten::reshape": _reshape,
    }

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        return (elements(input_shapes[0]),)

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        channels = shapes[0][0]
        return [np.repeat(np.arange(channels), node.shape[0] // channels)]

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        from torch import nn

        return nn.Flatten()
