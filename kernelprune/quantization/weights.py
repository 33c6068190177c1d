"""Weights and biases of a layer as whole numbers."""

from __future__ import annotations

import numpy as np

from kernelprune.errors import Error
from kernelprune.graph.ir import Node
from kernelprune.graph.quantization import (
    LEVELS,
    MAX_SCALE,
    MAX_SUM,
    MAX_WEIGHT,
    MIN_SCALE,
    Quantization,
    row_sums,
)

_MAX_BIAS = 1 << 30


def make_integer(node: Node, source: Quantization, *, per_channel: bool = True) -> None:
    """Rounds a layer's weights and bias in place; ``source``: of its first input.

    Symmetric signed bytes: the largest weight of an output channel (of the layer, unless
    ``per_channel``) is 127, or less where sums could overflow. Raises Error for weights beyond what
    a file can hold.
    """
    kept = node.sparse()
    weight, rows = kept.weight.astype(np.float64), kept.rows()
    bias = np.zeros(node.shape[0]) if node.bias is None else node.bias.astype(np.float64)
    scale = np.zeros(node.shape[0])
    np.maximum.at(scale, rows, np.abs(weight).max(axis=(1, 2), initial=0.0) / MAX_WEIGHT)
    if not per_channel:
        scale[:] = scale.max(initial=0.0)
    # A bias has 31 bits, and a row without weights may have one.
    least = np.maximum(np.abs(bias) / (source.scale * _MAX_BIAS), MIN_SCALE)
    scale = _float32(np.maximum(scale, least))
    while True:
        if (scale > MAX_SCALE).any():
            raise Error(f"layer '{node.name}': its weights are too large for integers")
        wide = scale.astype(np.float64)
        steps = np.rint(weight / wide[rows][:, None, None])
        whole = kept.with_weight(np.clip(steps, -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8))
        whole_bias = np.rint(bias / (wide * source.scale)).astype(np.int64)
        over = LEVELS * row_sums(whole) + np.abs(whole_bias) > MAX_SUM
        if not over.any():
            break
        scale = np.where(over, 2 * scale, scale)
    node.set_sparse(whole)
    node.bias, node.weight_scale = whole_bias.astype(np.int32), scale


def _float32(scale: np.ndarray) -> np.ndarray:
    """Rounded up, so that the largest weight is not cut."""
    rounded = scale.astype(np.float32)
    return np.where(rounded < scale, np.nextafter(rounded, np.float32(np.inf)), rounded)
