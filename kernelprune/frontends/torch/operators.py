"""The capture table: ATen operator -> the row that appends its nodes. The rows are those of the op
classes (kernelprune.graph.ops); here are the operators that leave no node.

A row raises UnsupportedOperator with the reason; trace adds the node and the source line.
"""

from __future__ import annotations

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.call import Call
from kernelprune.graph.ops import torch_rows
from kernelprune.graph.ops.base import Row


def _identity(call: Call) -> str:
    """Operators that change nothing at inference; they leave no node."""
    source = next(iter(call.arguments.values()))
    before, after = source.meta["val"], call.fx_node.meta["val"]
    after = after[0] if isinstance(after, (tuple, list)) else after
    if before.dtype != after.dtype:
        raise UnsupportedOperator(f"changes the type from {before.dtype} to {after.dtype}")
    return call.value(source)


def _dropout(call: Call) -> str:
    if call.get("train", False):
        raise UnsupportedOperator("dropout is on in eval mode")
    return _identity(call)


OPERATORS: dict[str, Row] = {
    **torch_rows(),
    "aten::dropout": _dropout,
    "aten::dropout_": _dropout,
    "aten::feature_dropout": _dropout,
    "aten::feature_dropout_": _dropout,
    "aten::alpha_dropout": _dropout,
    "aten::feature_alpha_dropout": _dropout,
    "aten::native_dropout": _dropout,
    "aten::alias": _identity,
    "aten::clone": _identity,
    "aten::detach": _identity,
    "aten::detach_": _identity,
    "aten::contiguous": _identity,
    "aten::to": _identity,
    "aten::_to_copy": _identity,
    "aten::lift_fresh_copy": _identity,
}
