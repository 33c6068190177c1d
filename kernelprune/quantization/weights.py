"""Weights and biases of a layer as whole numbers."""

from __future__ import annotations

import numpy as np

from kernelprune.errors import Error
from kernelprune.graph.connections import Connections
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
    """Rounds a layer's weights and bias in place; ``source``: of its first input. Symmetric signed
    bytes, the largest weight of an output channel (of the layer, unless ``per_channel``) is 127."""
    weight, bias = _wide(node)
    rows = weight.reshape(weight.shape[0], -1)
    scale = np.abs(rows).max(axis=1, initial=0.0) / MAX_WEIGHT
    if not per_channel:
        scale = np.full_like(scale, scale.max(initial=0.0))
    set_integers(node, weight, bias, scale, source)


def set_integers(
    node: Node,
    weight: np.ndarray,
    bias: np.ndarray,
    scale: np.ndarray,
    source: Quantization,
    whole: np.ndarray | None = None,
) -> None:
    """Gives the node the float64 ``weight`` [O, I, ...] and ``bias`` [O] in units of ``scale`` [O],
    or of the next larger one with which no sum can overflow. ``whole``: the weight in units of
    ``scale``, rounded already. Raises Error for weights beyond what a file can hold."""
    # A bias has 31 bits, and a row without weights may have one.
    least = np.maximum(np.abs(bias) / (source.scale * _MAX_BIAS), MIN_SCALE)
    scale = _float32(np.maximum(scale, least))
    while True:
        if (scale > MAX_SCALE).any():
            raise Error(f"layer '{node.name}': its weights are too large for integers")
        wide = scale.astype(np.float64)
        sides = (-1, *[1] * (weight.ndim - 1))
        rounded = np.rint(weight / wide.reshape(sides)) if whole is None else whole
        rounded = np.clip(rounded, -MAX_WEIGHT, MAX_WEIGHT).astype(np.int8)
        steps = np.rint(bias / (wide * source.scale)).astype(np.int64)
        sums = LEVELS * row_sums(Connections.from_dense(rounded)) + np.abs(steps)
        over = sums > MAX_SUM
        if not over.any():
            break
        scale, whole = np.where(over, 2 * scale, scale), None
    node.weight, node.bias, node.weight_scale = rounded, steps.astype(np.int32), scale


def _wide(node: Node) -> tuple[np.ndarray, np.ndarray]:
    assert node.weight is not None
    bias = np.zeros(node.shape[0]) if node.bias is None else node.bias
    return node.weight.astype(np.float64), bias.astype(np.float64)


def _float32(scale: np.ndarray) -> np.ndarray:
    """Rounded up, so that the largest weight is not cut."""
    rounded = scale.astype(np.float32)
    return np.where(rounded < scale, np.nextafter(rounded, np.float32(np.inf)), rounded)
