"""QuantizeLinear and DequantizeLinear: of results as ``fake_quantize`` nodes, of constants as
numbers whose steps are noted. ``kernelprune.graph.rounded`` makes bytes of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ir import Node
from kernelprune.graph.quantization import MAX_SCALE, MIN_SCALE, Quantization

# Operators that only move the integers, or numbers, of their first input.
_MOVES = ("Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Integers:
    """What the integers of a result stand for: (q - zero_point) * scale."""

    scale: float
    zero_point: int
    kind: str  # of the integers, as numpy calls it


def carried(call: Call) -> Integers | None:
    """What the integers among the operands stand for, None where there are none; the graph has the
    numbers in their place, so that only what moves them may read them."""
    found = [call.walk.integers.get(name) for name in call.node.input]
    if not any(found):
        return None
    if found[0] is None or call.operator not in (*_MOVES, "DequantizeLinear"):
        raise UnsupportedOperator(
            "reads the integers of QuantizeLinear: only DequantizeLinear and what moves them may"
        )
    return None if call.operator == "DequantizeLinear" else found[0]


# ---------------------------------------------------------------- results


def _quantize(call: Call) -> Tensor:
    x = call.tensor()
    kind = "uint8"
    if call.has(2):
        kind = call.constant(2, "the zero point").dtype.name
    elif call.get("output_dtype", 0):
        kind = _kind_of(int(call.get("output_dtype")))
    integers = _one_scale(call, kind)
    limits = np.iinfo(kind)
    params = {
        "scale": integers.scale,
        "zero_point": integers.zero_point,
        "low": int(limits.min),
        "high": int(limits.max),
    }
    call.walk.integers[call.node.output[0]] = integers
    return call.emit("fake_quantize", x, params)


def _kind_of(number: int) -> str:
    from onnx import helper

    try:
        return helper.tensor_dtype_to_np_dtype(number).name
    except (KeyError, TypeError, ValueError):
        raise UnsupportedOperator(f"quantises to a type of number {number}") from None


def _one_scale(call: Call, kind: str) -> Integers:
    """Scale and zero point of a result, which has one of each."""
    scale = call.weight(1, "the scale").astype(np.float64)
    if scale.size != 1 or scale.ndim > 1:
        raise UnsupportedOperator(
            f"has scales of shape {list(scale.shape)} for a result: quantise it with one scale"
        )
    number = float(scale.reshape(-1)[0])
    if not np.isfinite(number) or number <= 0:
        raise UnsupportedOperator(f"has a scale of {number:g}, not a number above 0")
    if kind not in ("uint8", "int8", "uint16", "int16"):
        raise UnsupportedOperator(f"has integers of type {kind}: only 8 and 16 bits can be read")
    zero = _zero_point(call, kind, scale.shape)
    return Integers(number, int(zero.reshape(-1)[0]), kind)


def _zero_point(call: Call, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    if not call.has(2):
        return np.zeros(shape, np.int64)
    zero = call.constant(2, "the zero point")
    if zero.dtype.name != kind:
        raise UnsupportedOperator(f"has a zero point of type {zero.dtype} for integers of {kind}")
    if zero.size != np.prod(shape, dtype=int) or max(zero.ndim, len(shape)) > 1:
        raise UnsupportedOperator(
            f"has zero points of shape {list(zero.shape)} for scales of {list(shape)}"
        )
    return zero.astype(np.int64).reshape(shape)


def _dequantize(call: Call) -> Tensor:
    x = call.tensor()
    source = call.walk.integers.get(call.node.input[0])
    if source is not None:
        own = _one_scale(call, source.kind)
        if own != source:
            raise UnsupportedOperator(
                f"has scale {own.scale:g} and zero point {own.zero_point}, its QuantizeLinear "
                f"{source.scale:g} and {source.zero_point}"
            )
        return x
    given = next((each for each in call.walk.graph.inputs if each.name == x.value), None)
    if given is None or given.dtype != "u8":
        raise UnsupportedOperator("reads integers that no QuantizeLinear makes")
    own = _one_scale(call, "uint8")
    if not MIN_SCALE <= own.scale <= MAX_SCALE:
        raise UnsupportedOperator(f"has a scale of {own.scale:g}, beyond 2^-40 to 2^40")
    quantization = Quantization(own.scale, own.zero_point)
    readers = set(call.walk.readers[call.node.input[0]])
    if readers != {"DequantizeLinear"} or given.quantization not in (None, quantization):
        raise UnsupportedOperator("reads an input of bytes that something else reads, too")
    given.quantization = quantization
    return x


# ---------------------------------------------------------------- constants


def numbers_of(call: Call) -> list[np.ndarray] | None:
    """What the integers of a constant stand for, in float64, so that nothing is rounded. None for
    blocks of scales, and types that the format has no integers for."""
    integers = call.constant(0, "its integers")
    if call.get("block_size", 0) or integers.dtype.kind not in "iu":
        return None
    scale = call.weight(1, "the scale").astype(np.float64)
    if not np.isfinite(scale).all():
        raise UnsupportedOperator("has a scale that is not finite")
    zero = _zero_point(call, integers.dtype.name, scale.shape)
    sides = [1] * integers.ndim
    if scale.size != 1:
        axis = int(call.get("axis", 1))
        if scale.ndim != 1 or not -integers.ndim <= axis < integers.ndim:
            raise UnsupportedOperator(
                f"has scales of shape {list(scale.shape)} along axis {axis} of "
                f"{list(integers.shape)}"
            )
        sides[axis] = scale.size
        if scale.size != integers.shape[axis]:
            raise UnsupportedOperator(
                f"has {scale.size} scales for {integers.shape[axis]} entries along axis {axis}"
            )
    elif scale.ndim > 1:
        raise UnsupportedOperator(f"has a scale of shape {list(scale.shape)}")
    scale, zero = scale.reshape(sides), zero.reshape(sides)
    call.walk.steps[call.node.output[0]] = np.abs(scale)
    return [(integers.astype(np.int64) - zero).astype(np.float64) * scale]


_UNKNOWN = np.full((1, 1), np.nan)


def hand_on_steps(call: Call, result: np.ndarray) -> None:
    """Of a constant that another one is moved to."""
    steps = call.walk.steps.get(call.node.input[0])
    if steps is None:
        return
    if call.operator == "Transpose":
        steps = np.transpose(steps, call.get("perm"))
    elif call.operator != "Identity":
        steps = np.full([1] * result.ndim, steps.item()) if steps.size == 1 else _UNKNOWN
    call.walk.steps[call.node.output[0]] = steps


def moves(operator: str) -> bool:
    """Does it leave the numbers of its first input as they are?"""
    return operator in _MOVES


def note_steps(call: Call, node: Node) -> None:
    """What the weights of a layer, made by the operator of ``call``, are multiples of. A bias that
    has the product of the steps of weights and input, rounded to float32, gets the exact one."""
    steps = call.walk.steps.get(call.node.input[1])
    if steps is None:
        return
    plain = call.operator == "Conv" or (call.operator == "Gemm" and call.get("transB", 0))
    along = [axis for axis, side in enumerate(steps.shape) if side > 1]
    if along not in ([], [0 if plain else 1]) or steps.size not in (1, node.shape[0]):
        steps = _UNKNOWN
    if np.isnan(steps).any():
        node.weight_step = _UNKNOWN  # of two axes: no number for each output channel
        return
    factor = abs(float(call.get("alpha", 1.0))) if call.operator == "Gemm" else 1.0
    node.weight_step = steps.reshape(-1) * factor
    bias = call.walk.steps.get(call.node.input[2]) if call.has(2) else None
    source = _scale_of(call, node.inputs[0])
    if bias is None or source is None or node.bias is None or bias.size not in (1, node.shape[0]):
        return
    exact = steps.reshape(-1) * source
    given = bias.reshape(-1)
    alike = np.abs(given - exact) <= exact * 2.0**-22
    node.bias = node.bias * np.where(alike, exact / np.where(given == 0, 1, given), 1.0)


def _scale_of(call: Call, value: str) -> float | None:
    maker = call.walk.nodes.get(value)
    if maker is not None:
        return float(maker.params["scale"]) if maker.op == "fake_quantize" else None
    given = next((each for each in call.walk.graph.inputs if each.name == value), None)
    return None if given is None or given.quantization is None else given.quantization.scale


TABLE = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
