"""What FORMAT.md says of quantised values in plain numpy loops, to compare everything else with."""

from __future__ import annotations

import math

import numpy as np

from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.quantization import Quantization

f32, f64 = np.float32, np.float64


def rounded(steps: np.ndarray, to: Quantization, activation: str = "none") -> np.ndarray:
    low, high = 0, 255
    if activation != "none":
        low = to.zero_point
    if activation == "relu6":
        high = min(255, to.zero_point + int(np.rint(f32(6) * f32(1.0 / f64(to.scale)))))
    steps = np.asarray(steps)
    assert steps.dtype == f32
    kept = np.minimum(np.maximum(steps, f32(low - to.zero_point)), f32(high - to.zero_point))
    found = np.where(np.isnan(kept), 0, np.rint(kept)) + to.zero_point
    return found.astype(np.uint8)


def quantised(numbers: np.ndarray, to: Quantization) -> np.ndarray:
    return rounded(numbers.astype(f32) * f32(1.0 / f64(to.scale)), to)


def numbers_of(value: np.ndarray, own: Quantization | None) -> np.ndarray:
    if own is None:
        return value
    return (value.astype(np.int32) - own.zero_point).astype(f32) * f32(own.scale)


def run(graph: Graph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs [N, ...] in float32; also of values in between when they are graph outputs."""
    own = {value.name: value.quantization for value in graph.inputs}
    own.update((node.output, node.quantization) for node in graph.nodes)
    values = {}
    for value, given in zip(graph.inputs, inputs, strict=True):
        is_number = value.quantization is None or value.dtype == "u8"
        values[value.name] = given if is_number else quantised(given, value.quantization)
    for node in graph.nodes:
        given = [(values[name], own[name]) for name in node.inputs]
        values[node.output] = np.stack(
            [
                compute(node, [(value[image], each) for value, each in given])
                for image in range(len(inputs[0]))
            ]
        )
    return [numbers_of(values[name], own[name]) for name in graph.outputs]


def compute(node: Node, given: list[tuple[np.ndarray, Quantization | None]]) -> np.ndarray:
    """One node for one image."""
    to = node.quantization
    if node.weight_scale is not None:
        return integer_layer(node, given)
    rule = RULES[node.op]
    if to is not None and all(own is not None for _, own in given) and node.op in BYTES:
        return BYTES[node.op](node, given)
    result = rule(node, *[numbers_of(value, own) for value, own in given])
    return result if to is None else quantised(result, to)


# ---------------------------------------------------------------- layers


def sums_of(node: Node, x: np.ndarray) -> np.ndarray:
    """Sums over connections and taps, in x's type."""
    weight = node.weight.astype(x.dtype)
    if weight.ndim == 2:
        return weight @ x
    outputs, height, width = node.shape
    (kh, kw), (sh, sw), (dh, dw) = (node.params[k] for k in ("kernel", "stride", "dilation"))
    top, left = node.params["padding"][:2]
    found = np.zeros(node.shape, x.dtype)
    for row in range(height):
        for column in range(width):
            for i in range(kh):
                for j in range(kw):
                    y, z = row * sh - top + i * dh, column * sw - left + j * dw
                    if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                        found[:, row, column] += weight[:, :, i, j] @ x[:, y, z]
    return found


def wide(vector: np.ndarray, like: np.ndarray) -> np.ndarray:
    return vector.reshape(-1, *[1] * (like.ndim - 1))


def activate(numbers: np.ndarray, kind: str) -> np.ndarray:
    if kind == "none":
        return numbers
    return np.clip(numbers, f32(0), f32(6) if kind == "relu6" else None)


def integer_layer(node: Node, given: list) -> np.ndarray:
    (x, source), *residual = given
    to, kind = node.quantization, node.params["activation"]
    sums = sums_of(node, x.astype(np.int64) - source.zero_point)
    sums = sums + wide(node.bias.astype(np.int64), sums)
    assert np.abs(sums).max() < 2**31
    factor = f64(source.scale) * node.weight_scale.astype(f64)
    if to is not None:
        factor = factor / f64(to.scale)
    y = sums.astype(f32) * wide(factor.astype(f32), sums)
    for r, own in residual:
        if own is not None:
            step = f64(own.scale) / (1.0 if to is None else f64(to.scale))
            y = y + (r.astype(np.int32) - own.zero_point).astype(f32) * f32(step)
        else:
            y = y + (r if to is None else r * f32(1.0 / f64(to.scale)))
    return activate(y, kind) if to is None else rounded(y, to, kind)


def float_layer(node: Node, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    y = sums_of(node, x.astype(f64))
    y = y + wide(node.bias, y) + (0 if residual is None else residual)
    return activate(y.astype(f32), node.params["activation"])


# ---------------------------------------------------------------- ops on bytes


def centred(pair: tuple[np.ndarray, Quantization]) -> np.ndarray:
    value, own = pair
    return value.astype(np.int64) - own.zero_point


def add_bytes(node: Node, given: list) -> np.ndarray:
    to = node.quantization
    a, b = (centred(pair).astype(f32) * f32(f64(pair[1].scale) / f64(to.scale)) for pair in given)
    return rounded(a + b, to, node.params.get("activation", "none"))


def binary_bytes(node: Node, given: list) -> np.ndarray:
    if node.params["function"] == "add":
        return add_bytes(node, given)
    if node.params["function"] != "mul":
        result = RULES["binary"](node, *[numbers_of(value, own) for value, own in given])
        return quantised(result, node.quantization)
    (_, one), (_, other) = given
    factor = f64(one.scale) * f64(other.scale) / f64(node.quantization.scale)
    product = centred(given[0]) * centred(given[1])
    return rounded(product.astype(f32) * f32(factor), node.quantization)


def table(node: Node, given: list) -> np.ndarray:
    ((value, own),) = given
    found = FUNCTIONS[node.op](node, numbers_of(value, own).astype(f64))
    return quantised(found.astype(f32), node.quantization)


def mean_bytes(node: Node, given: list) -> np.ndarray:
    ((_, source),) = given
    sums, divisors = window_sums(node, centred(given[0]))
    factor = f64(source.scale) / (f64(node.quantization.scale) * divisors)
    return rounded(sums.astype(f32) * factor.astype(f32), node.quantization)


def mean(node: Node, x: np.ndarray) -> np.ndarray:
    sums, divisors = window_sums(node, x.astype(f64))
    return (sums / divisors).astype(f32)


def window_sums(node: Node, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if node.op == "global_avg_pool":
        return x.sum(axis=(1, 2), keepdims=True), f64(x.shape[1] * x.shape[2])
    params = node.params
    top, left, bottom, right = params["padding"]
    rows, columns = params.get("uncounted", [0, 0])
    sums, divisors = np.zeros(node.shape, x.dtype), np.zeros(node.shape[1:])
    for row in range(node.shape[1]):
        for column in range(node.shape[2]):
            for i in range(params["kernel"][0]):
                for j in range(params["kernel"][1]):
                    y = row * params["stride"][0] - top + i
                    z = column * params["stride"][1] - left + j
                    inside = 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
                    if inside:
                        sums[:, row, column] += x[:, y, z]
                    padded = y < x.shape[1] + bottom - rows and z < x.shape[2] + right - columns
                    divisors[row, column] += inside or (params["count_include_pad"] and padded)
    return sums, divisors if not params.get("divisor") else f64(params["divisor"])


def max_pool(node: Node, x: np.ndarray) -> np.ndarray:
    params, found = node.params, np.full(node.shape, -np.inf, f32)
    top, left = params["padding"][:2]
    for row in range(node.shape[1]):
        for column in range(node.shape[2]):
            for i in range(params["kernel"][0]):
                for j in range(params["kernel"][1]):
                    y = row * params["stride"][0] - top + i * params["dilation"][0]
                    z = column * params["stride"][1] - left + j * params["dilation"][1]
                    if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                        found[:, row, column] = np.maximum(found[:, row, column], x[:, y, z])
    return found


def unary(node: Node, x: np.ndarray) -> np.ndarray:
    return {
        "silu": lambda: x / (1 + np.exp(-x)),
        "hardswish": lambda: x * np.clip(x + 3, 0, 6) / 6,
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "gelu": lambda: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    }[node.params["function"]]()


FUNCTIONS = {
    "unary": unary,
    "activation": lambda node, x: np.clip(
        x, 0, 6 if node.params["activation"] == "relu6" else None
    ),
    "affine": lambda node, x: (
        x * wide(node.tensors["scale"].astype(f64), x) + wide(node.tensors["shift"].astype(f64), x)
    ),
    "prelu": lambda node, x: np.where(x > 0, x, wide(node.tensors["slope"].astype(f64), x) * x),
}
RULES = {
    "conv2d": float_layer,
    "linear": float_layer,
    "add": lambda node, a, b: activate(a + b, node.params["activation"]),
    "binary": lambda node, a, b: {"add": np.add, "mul": np.multiply, "sub": np.subtract}[
        node.params["function"]
    ](a, b),
    "avg_pool2d": mean,
    "global_avg_pool": mean,
    "max_pool2d": max_pool,
    "concat": lambda node, *parts: np.concatenate(parts, node.params.get("axis", 0)),
    "flatten": lambda node, x: x.reshape(-1),
    "reshape": lambda node, x: x.reshape(node.shape),
    "pad": lambda node, x: np.pad(
        x,
        list(zip(node.params["before"], node.params["after"], strict=True)),
        constant_values=f32(node.params["value"]),
    ),
    **{
        name: lambda node, x, f=f: f(node, x.astype(f64)).astype(f32)
        for name, f in FUNCTIONS.items()
    },
}
BYTES = {
    "add": add_bytes,
    "binary": binary_bytes,
    "avg_pool2d": mean_bytes,
    "global_avg_pool": mean_bytes,
    **dict.fromkeys(FUNCTIONS, table),
}
