"""Values as bytes: what a byte stands for, and what FORMAT.md asks of scales and integer weights.

A quantised value holds bytes q (0 to 255) with one scale and one zero point; q stands for the
number ``float32(q - zero_point) * scale``. Quantised weights are signed bytes with one scale for
each output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelprune.errors import FormatError
from kernelprune.graph.connections import Connections
from kernelprune.graph.ops.base import is_integer, is_number

if TYPE_CHECKING:
    from kernelprune.graph.ir import Graph, Node

LEVELS = 255  # the largest byte
MAX_WEIGHT = 127  # of a signed byte; -128 has no opposite and is not used
MAX_SUM = (1 << 31) - 1
# So every quotient and product of scales that kernels multiply by is a normal float32.
MIN_SCALE, MAX_SCALE = 2.0**-40, 2.0**40


@dataclass(frozen=True)
class Quantization:
    """``scale``, from MIN_SCALE to MAX_SCALE, is rounded to float32. ``zero_point``: the byte that
    stands for 0."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", float(np.float32(self.scale)))

    def quantize(self, numbers: np.ndarray) -> np.ndarray:
        """Float numbers as bytes, every step in float32; halves go to the even byte, what lies
        outside goes to 0 or 255, NaN becomes the zero point."""
        inverse = np.float32(1.0 / float(self.scale))
        with np.errstate(over="ignore", invalid="ignore"):
            steps = numbers.astype(np.float32) * inverse
        steps = np.clip(steps, np.float32(-self.zero_point), np.float32(LEVELS - self.zero_point))
        rounded = np.rint(np.where(np.isnan(steps), np.float32(0), steps))
        return np.asarray(rounded + self.zero_point).astype(np.uint8)

    def dequantize(self, values: np.ndarray) -> np.ndarray:
        """What bytes stand for, in float32."""
        centred = values.astype(np.int32) - self.zero_point
        return np.asarray(centred.astype(np.float32) * np.float32(self.scale))

    @property
    def low(self) -> float:
        """The least number that a byte stands for."""
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        return (LEVELS - self.zero_point) * self.scale


def quantizations(graph: Graph) -> dict[str, Quantization]:
    """Of every quantised value, by its name."""
    found = {value.name: value.quantization for value in graph.inputs}
    found.update((node.output, node.quantization) for node in graph.nodes)
    return {name: each for name, each in found.items() if each is not None}


# ---------------------------------------------------------------- rules of the file


def check_quantization(scale: Any, zero_point: Any) -> None:
    """Raises FormatError unless they, which may be anything, are those of a quantization."""
    if not is_number(scale) or not MIN_SCALE <= scale <= MAX_SCALE:
        raise FormatError("the scale of its quantization is not a number from 2^-40 to 2^40")
    if not is_integer(zero_point) or not 0 <= zero_point <= LEVELS:
        raise FormatError(f"the zero point of its quantization is not an integer of 0..{LEVELS}")


def check_integer_layer(node: Node, known: Mapping[str, Quantization]) -> None:
    """Raises FormatError unless the integer weights, the scales and the bias of a layer, whose
    shapes hold, are ones that a file may have. ``known``: of the quantised values."""
    assert node.weight_scale is not None
    if node.inputs[0] not in known:
        raise FormatError(f"has integer weights, but its input '{node.inputs[0]}' is not quantised")
    scale, bias = node.weight_scale, node.bias
    if scale.dtype != np.float32 or scale.shape != (node.shape[0],):
        raise FormatError(
            f"scale is {scale.dtype} {list(scale.shape)}, not float32 [{node.shape[0]}]"
        )
    if not ((scale >= MIN_SCALE) & (scale <= MAX_SCALE)).all():  # not of NaN either
        raise FormatError("scale holds a number outside of 2^-40 to 2^40")
    if bias is None or bias.dtype != np.int32:
        raise FormatError("has integer weights, but no integer bias")
    kept = node.sparse()
    if kept.weight.dtype != np.int8:
        raise FormatError(f"has a scale, but weights that are {kept.weight.dtype}, not int8")
    if (kept.weight == -MAX_WEIGHT - 1).any():
        raise FormatError("weight holds -128")
    sums = LEVELS * row_sums(kept) + np.abs(bias.astype(np.int64))
    if sums.size and sums.max() > MAX_SUM:
        raise FormatError(
            f"output channel {sums.argmax()} may overflow: |bias| + 255 * sum of |weight| is "
            f"{sums.max()}, more than 2^31 - 1"
        )


def row_sums(connections: Connections) -> np.ndarray:
    """int64 [O]: of each output channel the sum of the sizes of its integer weights."""
    each = np.abs(connections.weight.astype(np.int64)).sum(axis=(1, 2))
    ends = np.concatenate([[0], np.cumsum(each)])[connections.row_ptr.astype(np.int64)]
    return np.asarray(np.diff(ends))
