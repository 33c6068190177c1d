"""Functions of every element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.unary import clamped

Converter = Callable[[Call], Tensor]


def _plain(function: str) -> Converter:
    return lambda call: call.unary(call.tensor(), function)


def _with_alpha(function: str, default: float) -> Converter:
    def convert(call: Call) -> Tensor:
        return call.unary(call.tensor(), function, rows.number(call.get("alpha", default), "alpha"))

    return convert


def _activation(call: Call, x: Tensor, kind: str) -> Tensor:
    return call.emit("activation", x, {"activation": kind})


def _clip(call: Call) -> Tensor:
    x = call.tensor()
    low, high = call.number(1, "min"), call.number(2, "max")
    low = None if low is None or low <= np.finfo(np.float32).min else low
    high = None if high is None or high >= np.finfo(np.float32).max else high
    kinds: dict[Any, str] = {(0.0, None): "relu", (0.0, 6.0): "relu6"}
    if (low, high) in kinds:
        return _activation(call, x, kinds[low, high])
    return x.of(clamped(call, x.value, low, high))


def _selu(call: Call) -> Tensor:
    """gamma * elu(x) of slope alpha."""
    alpha, gamma = float(call.get("alpha", 1.6732632)), float(call.get("gamma", 1.050701))
    x = call.tensor()
    if math.isclose(alpha, 1.6732632, rel_tol=1e-6) and math.isclose(gamma, 1.050701, rel_tol=1e-6):
        return call.unary(x, "selu")
    curved = call.unary(x, "elu", alpha)
    return curved.of(rows.affine(call, curved.value, gamma, 0.0))


def _hard_sigmoid(call: Call) -> Tensor:
    """max(0, min(1, alpha * x + beta)); ours has alpha = 1 / 6 and beta = 0.5."""
    alpha, beta = float(call.get("alpha", 0.2)), float(call.get("beta", 0.5))
    x = call.tensor()
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return call.unary(x, "hardsigmoid")
    steep = x.of(rows.affine(call, x.value, alpha, beta))
    return call.unary(steep, "clamp", 0.0, 1.0)


def _gelu(call: Call) -> Tensor:
    kind = call.get("approximate", "none")
    if kind not in ("none", "tanh"):
        raise UnsupportedOperator(f"a gelu of the kind {kind}")
    return call.unary(call.tensor(), "gelu" if kind == "none" else "gelu_tanh")


def _prelu(call: Call) -> Tensor:
    x, slope = call.tensor(), call.weight(1, "the slope")
    if slope.size == 1:
        return call.unary(x, "leaky_relu", rows.number(float(slope.reshape(-1)[0]), "the slope"))
    shape = [1] * (x.rank - slope.ndim) + list(slope.shape)
    by_channel = [1] * x.rank
    if x.sides:
        by_channel[1 if x.batch == 0 else 0] = x.sides[0]
    if shape != by_channel:
        raise UnsupportedOperator(f"slopes {list(slope.shape)} for {list(x.sides)} per image")
    return call.emit("prelu", x, tensors={"slope": np.ascontiguousarray(slope.reshape(-1))})


def _thresholded_relu(call: Call) -> Tensor:
    return call.unary(call.tensor(), "threshold", float(call.get("alpha", 1.0)), 0.0)


def _same(call: Call) -> list[Tensor]:
    return [call.tensor()]


def _cast(call: Call) -> Tensor:
    """Between kinds of floating point, of bytes that are given, and of what counts already."""
    from onnx import TensorProto

    x = call.tensor()
    wanted = int(call.get("to", TensorProto.FLOAT))
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    integers = (TensorProto.INT32, TensorProto.INT64)
    node = call.walk.nodes.get(x.value)
    counts = node is not None and node.op == "argmax"
    if wanted not in floats and not (counts and wanted in integers):
        raise UnsupportedOperator("converts numbers of the model's input to another type")
    return x


def _dropout(call: Call) -> list[Tensor]:
    if call.has(2) and bool(call.constant(2, "training_mode").any()):
        raise UnsupportedOperator("a dropout that is on")
    return [call.tensor()]


TABLE: dict[str, Callable[[Call], Tensor | list[Tensor]]] = {
    **{
        operator: _plain(function)
        for operator, function in {
            "Abs": "abs",
            "Cos": "cos",
            "Erf": "erf",
            "Exp": "exp",
            "HardSwish": "hardswish",
            "Log": "log",
            "Mish": "mish",
            "Neg": "neg",
            "Reciprocal": "reciprocal",
            "Sigmoid": "sigmoid",
            "Sign": "sign",
            "Sin": "sin",
            "Softsign": "softsign",
            "Sqrt": "sqrt",
            "Tanh": "tanh",
        }.items()
    },
    "Cast": _cast,
    "Celu": _with_alpha("celu", 1.0),
    "Clip": _clip,
    "Dropout": _dropout,
    "Elu": _with_alpha("elu", 1.0),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _same,
    "LeakyRelu": _with_alpha("leaky_relu", 0.01),
    "PRelu": _prelu,
    "Relu": lambda call: _activation(call, call.tensor(), "relu"),
    "Selu": _selu,
    "Softplus": lambda call: call.unary(call.tensor(), "softplus", 1.0, 20.0),
    "ThresholdedRelu": _thresholded_relu,
}
