"""What normalizes with the statistics of each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.converters.arithmetic import combined
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.group_norm import normalized
from kernelprune.graph.ops.layer_norm import normalized_along


def _channels_first(call: Call) -> Tensor:
    x = call.tensor()
    if x.batch != 0 or not x.sides:
        raise UnsupportedOperator("a norm whose first axis is not the batch")
    return x


def _instance_norm(call: Call) -> Tensor:
    x = _channels_first(call)
    weight, bias = call.weight(1), call.weight(2, "a bias")
    return x.of(normalized(call, x.value, x.sides[0], call.get("epsilon", 1e-5), weight, bias))


def _group_norm(call: Call) -> Tensor:
    """Before opset 21 there is one factor for each group."""
    x, groups = _channels_first(call), int(call.get("num_groups", 1))
    if groups < 1 or x.sides[0] % groups:
        raise UnsupportedOperator(f"{x.sides[0]} channels in {groups} groups")
    parts = [call.weight(1), call.weight(2, "a bias")]
    if call.opset < 21:
        parts = [part.repeat(x.sides[0] // groups) for part in parts]
    return x.of(normalized(call, x.value, groups, call.get("epsilon", 1e-5), *parts))


def _layer_norm(call: Call) -> list[Tensor]:
    """Over the last axes."""
    x = call.tensor()
    first = x.axis(int(call.get("axis", -1)))
    if x.batch is not None and x.batch > first:
        raise UnsupportedOperator("a layer norm over the batch")
    eps = rows.number(call.get("epsilon", 1e-5), "epsilon")
    sides = x.sides[first:]
    value = rows.reshaped(call, x.value, (*x.sides[:first], math.prod(sides)))
    parts = [call.weight(place) if call.has(place) else None for place in (1, 2)]
    flat = [part is None or part.size == math.prod(sides) for part in parts]
    own = [part if fits else None for part, fits in zip(parts, flat, strict=True)]
    value = normalized_along(call, value, first, eps, *own)
    found: Any = x.of(rows.reshaped(call, value, x.sides))
    for function, part, fits in zip(("mul", "add"), parts, flat, strict=True):
        if part is not None and not fits:
            found = combined(call, function, found, part)
    return [found]


def _lp_norm(call: Call) -> Tensor:
    x = call.tensor()
    if call.get("p", 2) != 2:
        raise UnsupportedOperator("a norm that is not the Euclidean one")
    axis = x.axis(int(call.get("axis", -1)))
    return call.emit("l2_normalize", x, {"axis": axis, "eps": 0.0})


def _local_response(call: Call) -> Tensor:
    """x / (bias + alpha * mean of the squares of the neighbouring channels) ** beta."""
    x, size = call.map(), int(call.get("size", 1))
    alpha, beta, bias = (
        rows.number(call.get(name, default), name)
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    channels, height, width = x.sides
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    value = rows.reshaped(call, rows.unary(call, x.value, "square"), (1, channels, height * width))
    params = {
        "kernel": [size, 1],
        "stride": [1, 1],
        "padding": [before, 0, after, 0],
        "count_include_pad": size > 1,
    }
    value = rows.emit(call, "avg_pool2d", [value], params)
    value = rows.affine(call, rows.reshaped(call, value, x.sides), alpha, bias)
    return x.of(rows.binary(call, "mul", x.value, rows.unary(call, value, "pow", -beta)))


TABLE: dict[str, Callable[[Call], Tensor | list[Tensor]]] = {
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LRN": _local_response,
    "LpNormalization": _lp_norm,
}
