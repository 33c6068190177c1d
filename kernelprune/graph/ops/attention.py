"""The row of attention: a product, softmax, another product."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Row, Shape
from kernelprune.graph.ops.binary import Operand, combined, operand
from kernelprune.graph.ops.gather import gathered
from kernelprune.graph.ops.matmul import product


def _attention(call: Any) -> Any:
    """softmax(scale * query @ key^T + mask) @ value."""
    if call.get("dropout_p"):
        raise UnsupportedOperator("dropout is on in eval mode")
    rows.check_floating(call["query"], call["key"], call["value"])
    # Each as it lies in memory; *_swapped: [..., features, tokens].
    (query, query_swapped), (key, key_swapped), (value, value_swapped) = (
        call.matrix(call[name]) for name in ("query", "key", "value")
    )
    shape = tuple(rows.torch_shape(call["query"])[1:])  # [..., heads, tokens, features]
    if call.get("enable_gqa"):
        key, value = (_repeated_heads(call, each, shape[-3]) for each in (key, value))
    scale = call.get("scale")
    scale = 1.0 / math.sqrt(shape[-1]) if scale is None else rows.number(scale, "the scale")
    query = rows.affine(call, query, scale, 0.0)
    scores: Operand = product(call, query, key, query_swapped, not key_swapped)
    mask = _mask(call, (*shape[:-1], rows.torch_shape(call["key"])[-2]))
    if mask is not None:
        scores = combined(call, "add", scores, mask)
    axis = len(shape) - 1
    weights = rows.emit(call, "softmax", [str(scores)], {"axis": axis} if axis else {})
    if value_swapped:  # (weights value)^T = value^T weights^T, which lies as the value does
        return call.swapped(product(call, value, weights, transpose_b=True))
    return product(call, weights, value)


def _repeated_heads(call: Any, x: str, heads: int) -> str:
    """Grouped queries: several heads of the query share one of the key."""
    axis, own = len(call.shape(x)) - 3, call.shape(x)[-3]
    return gathered(call, x, axis, np.arange(own).repeat(heads // own))


def _mask(call: Any, shape: Shape) -> Operand | None:
    """What is added to the scores of ``shape``."""
    given, rank = call.get("attn_mask"), len(shape) + 1
    if call["is_causal"]:
        allowed = np.tril(np.ones(shape[-2:], bool)).reshape((1,) * (rank - 3) + shape[-2:])
    elif given is None:
        return None
    elif not rows.is_constant(call, given):
        return operand(call, given, rank)
    else:
        found = rows.constant_per_image(call, given, rank)
        if str(given.meta["val"].dtype) != "torch.bool":
            if np.isneginf(found).all(axis=-1).any():
                raise UnsupportedOperator("a mask that leaves nothing to attend to")
            return np.maximum(found, float(np.finfo(np.float32).min))
        allowed = found != 0
    if not allowed.any(axis=-1).all():
        raise UnsupportedOperator("a mask that leaves nothing to attend to")
    return np.where(allowed, 0.0, float(np.finfo(np.float32).min))


TORCH_ROWS: dict[str, Row] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
}
