"""Layers, pools and norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kernelprune.frontends.onnx.emitters.builder import Builder
from kernelprune.graph.ir import Node
from kernelprune.graph.ops import OPS

Emitter = Callable[[Builder, Node], None]


def _weights(build: Builder, node: Node) -> list[str]:
    """Weight and bias: numbers, or int8 and int32 with the operators that make numbers of them."""
    out = node.output
    assert node.weight is not None
    bias = np.zeros(node.shape[0]) if node.bias is None else node.bias
    if node.weight_scale is None:
        return [
            build.constant(f"{out}:weight", node.weight.astype(np.float32)),
            build.constant(f"{out}:bias", bias.astype(np.float32)),
        ]
    scale = node.weight_scale.astype(np.float32)
    found = []
    step = build.quantizations[node.inputs[0]].scale
    for role, array, factor in (
        ("weight", node.weight.astype(np.int8), scale),
        ("bias", bias.astype(np.int32), scale * np.float32(step)),
    ):
        parts = [
            build.constant(f"{out}:{role}", array),
            build.constant(f"{out}:{role}_scale", factor),
        ]
        found.append(build.node("DequantizeLinear", parts, f"{out}:{role}", axis=0))
    return found


def _residual(node: Node) -> str | None:
    return node.inputs[1] if len(node.inputs) > 1 else None


def _conv2d(build: Builder, node: Node) -> None:
    params = node.params
    value = build.node(
        "Conv",
        [node.inputs[0], *_weights(build, node)],
        node.output,
        kernel_shape=list(params["kernel"]),
        strides=list(params["stride"]),
        pads=list(params["padding"]),
        dilations=list(params["dilation"]),
        group=int(params.get("groups", 1)),
    )
    build.finish(value, node, _residual(node))


def _linear(build: Builder, node: Node) -> None:
    inputs = [node.inputs[0], *_weights(build, node)]
    value = build.node("Gemm", inputs, node.output, transB=1)
    build.finish(value, node, _residual(node))


def _max_pool2d(build: Builder, node: Node) -> None:
    params, value = node.params, node.inputs[0]
    padding = list(params["padding"])
    if any(pad >= side for pad, side in zip(padding, params["kernel"] * 2, strict=True)):
        # More than ONNX Runtime takes, whatever the dilation.
        value, padding = _padded(build, node, -np.inf), [0, 0, 0, 0]
    build.node(
        "MaxPool",
        [value],
        node.output,
        last=True,
        kernel_shape=list(params["kernel"]),
        strides=list(params["stride"]),
        pads=padding,
        dilations=list(params["dilation"]),
    )


def _padded(build: Builder, node: Node, number: float) -> str:
    """The input with the padding of the window as entries of its own."""
    top, left, bottom, right = node.params["padding"]
    ends = np.asarray([0, 0, top, left, 0, 0, bottom, right], np.int64)
    parts = [build.constant(f"{node.output}:pad", part) for part in (ends, np.float32(number))]
    return build.node("Pad", [node.inputs[0], *parts], node.output)


def _avg_pool2d(build: Builder, node: Node) -> None:
    params, rule = node.params, OPS[node.op]
    window: dict[str, Any] = {
        "kernel_shape": list(params["kernel"]),
        "strides": list(params["stride"]),
    }
    if not rule.parameter(params, "divisor") and not any(rule.parameter(params, "uncounted")):
        build.node(
            "AveragePool", node.inputs, node.output, last=True, pads=list(params["padding"]),
            count_include_pad=int(params["count_include_pad"]), **window,
        )  # fmt: skip
        return
    # What ONNX has no divisor for: the mean of all taps, by a factor for each place.
    padded = _padded(build, node, 0.0)
    mean = build.node("AveragePool", [padded], node.output, **window)
    divisors = rule.divisors(node, build.shapes[node.inputs[0]])  # type: ignore[attr-defined]
    factor = build.constant(f"{node.output}:factor", math.prod(params["kernel"]) / divisors)
    build.node("Mul", [mean, factor], node.output, last=True)


def _group_norm(build: Builder, node: Node) -> None:
    groups, out, rank = int(node.params["groups"]), node.output, len(node.shape)
    value = build.reshape(node.inputs[0], (groups, math.prod(node.shape) // groups), out)
    ones, zeros = (build.constant(f"{out}:{n}", np.full(groups, n, np.float32)) for n in (1, 0))
    value = build.node(
        "InstanceNormalization", [value, ones, zeros], out, epsilon=float(node.params["eps"])
    )
    value = build.reshape(value, node.shape, out)
    scale, shift = (
        build.by_channel(f"{out}:{role}", node.tensors[role], rank) for role in ("scale", "shift")
    )
    value = build.node("Mul", [value, scale], out)
    build.node("Add", [value, shift], out, last=True)


def _layer_norm(build: Builder, node: Node) -> None:
    axis, rank, out = node.params["axis"], len(node.shape), node.output
    parts = [build.constant(f"{out}:{role}", node.tensors[role]) for role in ("scale", "shift")]
    eps = float(node.params["eps"])
    if axis == rank - 1:
        inputs = [node.inputs[0], *parts]
        build.node("LayerNormalization", inputs, out, last=True, axis=-1, epsilon=eps)
        return
    order = [a for a in range(rank) if a != axis] + [axis]
    value = build.transpose(node.inputs[0], order, out)
    value = build.node("LayerNormalization", [value, *parts], out, axis=-1, epsilon=eps)
    build.transpose(value, [order.index(a) for a in range(rank)], out, last=True)


def _l2_normalize(build: Builder, node: Node) -> None:
    x, out = node.inputs[0], node.output
    norm = build.node("ReduceL2", [x], out, axes=[node.params["axis"] + 1], keepdims=1)
    eps = build.constant(f"{out}:eps", np.float32(node.params["eps"]))
    build.node("Div", [x, build.node("Max", [norm, eps], out)], out, last=True)


def _affine(build: Builder, node: Node) -> None:
    scale, shift = (
        build.by_channel(f"{node.output}:{role}", node.tensors[role], len(node.shape))
        for role in ("scale", "shift")
    )
    value = build.node("Mul", [node.inputs[0], scale], node.output)
    build.node("Add", [value, shift], node.output, last=True)


def _prelu(build: Builder, node: Node) -> None:
    slope = build.by_channel(f"{node.output}:slope", node.tensors["slope"], len(node.shape))
    build.node("PRelu", [node.inputs[0], slope], node.output, last=True)


def _adaptive(build: Builder, node: Node) -> None:
    """Windows of one size are a pool, others a reduction for each of them, axis by axis."""
    sides, wanted, out = build.shapes[node.inputs[0]][1:], node.shape[1:], node.output
    mean = node.op == "adaptive_avg_pool2d"
    if all(side % want == 0 for side, want in zip(sides, wanted, strict=True)):
        kernel = [side // want for side, want in zip(sides, wanted, strict=True)]
        op = "AveragePool" if mean else "MaxPool"
        build.node(op, node.inputs, out, last=True, kernel_shape=kernel, strides=kernel)
        return
    value = node.inputs[0]
    for axis, (side, want) in enumerate(zip(sides, wanted, strict=True)):
        parts = []
        for place in range(want):
            ends = (place * side // want, -(-(place + 1) * side // want))
            limits = [build.constant(f"{out}:end", np.asarray([end], np.int64)) for end in ends]
            axes = build.constant(f"{out}:axis", np.asarray([axis + 2], np.int64))
            part = build.node("Slice", [value, *limits, axes], out)
            op = "ReduceMean" if mean else "ReduceMax"
            parts.append(build.node(op, [part], out, axes=[axis + 2], keepdims=1))
        value = build.node("Concat", parts, out, last=axis == 1, axis=axis + 2)


TABLE: dict[str, Emitter] = {
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "affine": _affine,
    "avg_pool2d": _avg_pool2d,
    "conv2d": _conv2d,
    "group_norm": _group_norm,
    "l2_normalize": _l2_normalize,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "prelu": _prelu,
}
