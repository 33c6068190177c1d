"""What moves elements, and what looks at all of them along axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kernelprune.frontends.onnx.emitters.builder import Builder
from kernelprune.graph.ir import Node
from kernelprune.graph.ops import OPS
from kernelprune.graph.ops.pad import MODES

Emitter = Callable[[Builder, Node], None]


def _axis(node: Node) -> int:
    return int(OPS[node.op].parameter(node.params, "axis")) + 1


def _along(op: str) -> Emitter:
    def emit(build: Builder, node: Node) -> None:
        build.node(op, node.inputs, node.output, last=True, axis=_axis(node))

    return emit


def _global_avg_pool(build: Builder, node: Node) -> None:
    build.node("GlobalAveragePool", node.inputs, node.output, last=True)


def _flatten(build: Builder, node: Node) -> None:
    build.node("Flatten", node.inputs, node.output, last=True, axis=1)


def _constant(build: Builder, node: Node) -> None:
    """Repeated for every image of the batch, whose size the first input has."""
    out = node.output
    value = build.constant(f"{out}:value", node.tensors["value"][None])
    batch = build.node("Shape", [build.first], out, start=0, end=1)
    sides = build.constant(f"{out}:sides", np.asarray(node.shape, np.int64))
    shape = build.node("Concat", [batch, sides], out, axis=0)
    build.node("Expand", [value, shape], out, last=True)


def _slice(build: Builder, node: Node) -> None:
    numbers = [node.params[name] for name in ("start", "stop")] + [_axis(node), node.params["step"]]
    inputs = [build.constant(f"{node.output}:range", np.asarray([n], np.int64)) for n in numbers]
    build.node("Slice", [node.inputs[0], *inputs], node.output, last=True)


def _permute(build: Builder, node: Node) -> None:
    build.transpose(node.inputs[0], node.params["axes"], node.output, last=True)


def _reshape(build: Builder, node: Node) -> None:
    build.reshape(node.inputs[0], node.shape, node.output, last=True)


def _expand(build: Builder, node: Node) -> None:
    sides = build.constant(f"{node.output}:sides", np.asarray([1, *node.shape], np.int64))
    build.node("Expand", [node.inputs[0], sides], node.output, last=True)


def _gather(build: Builder, node: Node) -> None:
    index = node.tensors["index"]
    build.gather(node.inputs[0], node.params["axis"], index, node.output, last=True)


def _pad(build: Builder, node: Node) -> None:
    params, out, value = node.params, node.output, node.inputs[0]
    ends = list(zip(params["before"], params["after"], strict=True))
    if params["mode"] == "circular":  # newer than the opset that is written
        axes = [axis for axis, end in enumerate(ends) if any(end)]
        for axis in axes:
            side = build.shapes[node.inputs[0]][axis]
            index = np.pad(np.arange(side), ends[axis], MODES["circular"])
            value = build.gather(value, axis, index, out, last=axis == axes[-1])
        if not axes:
            build.node("Identity", [value], out, last=True)
        return
    flat = np.asarray([0, *params["before"], 0, *params["after"]], np.int64)
    inputs = [value, build.constant(f"{out}:ends", flat)]
    if params["mode"] == "constant":
        inputs.append(build.constant(f"{out}:filler", np.float32(params["value"])))
    build.node("Pad", inputs, out, last=True, mode=MODES[params["mode"]])


def _resize(build: Builder, node: Node) -> None:
    params = node.params
    sides = build.shapes[node.inputs[0]][1:]
    numbers = zip(sides, node.shape[1:], params["scale"], strict=True)
    scales = [1.0, 1.0, *(scale or _scale(side, wanted) for side, wanted, scale in numbers)]
    attributes = {
        "nearest": ("nearest", "asymmetric", "floor"),
        "nearest_exact": ("nearest", "half_pixel", "round_prefer_ceil"),
        "bilinear": ("linear", "half_pixel", "floor"),
        "bicubic": ("cubic", "half_pixel", "floor"),
    }
    mode, transform, rounding = attributes[params["mode"]]
    build.node(
        "Resize",
        [
            node.inputs[0],
            "",
            build.constant(f"{node.output}:scales", np.asarray(scales, np.float32)),
        ],
        node.output,
        last=True,
        mode=mode,
        coordinate_transformation_mode="align_corners" if params["align_corners"] else transform,
        nearest_mode=rounding,
        cubic_coeff_a=-0.75,
    )


def _scale(side: int, wanted: int) -> float:
    """The float32 number that makes ``wanted`` of ``side``, rounded down."""
    scale = np.float32(wanted / side)
    while math.floor(np.float32(side) * scale) < wanted:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


def _depth_to_space(build: Builder, node: Node) -> None:
    block = int(node.params["block"])
    build.node("DepthToSpace", node.inputs, node.output, last=True, blocksize=block, mode="CRD")


def _space_to_depth(build: Builder, node: Node) -> None:
    block = int(node.params["block"])
    value = build.node("SpaceToDepth", node.inputs, node.output, blocksize=block)
    order = np.arange(node.shape[0]).reshape(block * block, -1).T.reshape(-1)
    build.gather(value, 0, order, node.output, last=True)


_REDUCTIONS = {
    "amax": "ReduceMax",
    "amin": "ReduceMin",
    "l2": "ReduceL2",
    "mean": "ReduceMean",
    "sum": "ReduceSum",
}


def _reduce(build: Builder, node: Node) -> None:
    op, out = _REDUCTIONS[node.params["function"]], node.output
    axes = [axis + 1 for axis in node.params["axes"]]
    if op == "ReduceSum":
        places = build.constant(f"{out}:axes", np.asarray(axes, np.int64))
        value = build.node(op, [node.inputs[0], places], out, keepdims=1)
    else:
        value = build.node(op, node.inputs, out, axes=axes, keepdims=1)
    build.reshape(value, node.shape, out, last=True)


def _matmul(build: Builder, node: Node) -> None:
    values = []
    for name, side in zip(node.inputs, ("transpose_a", "transpose_b"), strict=True):
        rank = len(build.shapes[name])
        swapped = [*range(rank - 2), rank - 1, rank - 2]
        transposes = node.params[side]
        values.append(build.transpose(name, swapped, node.output) if transposes else name)
    build.node("MatMul", values, node.output, last=True)


def _argmax(build: Builder, node: Node) -> None:
    from onnx import TensorProto

    value = build.node("ArgMax", node.inputs, node.output, axis=_axis(node), keepdims=1)
    value = build.node("Cast", [value], node.output, to=TensorProto.FLOAT)
    build.reshape(value, node.shape, node.output, last=True)


TABLE: dict[str, Emitter] = {
    "argmax": _argmax,
    "concat": _along("Concat"),
    "constant": _constant,
    "depth_to_space": _depth_to_space,
    "expand": _expand,
    "flatten": _flatten,
    "gather": _gather,
    "global_avg_pool": _global_avg_pool,
    "log_softmax": _along("LogSoftmax"),
    "matmul": _matmul,
    "pad": _pad,
    "permute": _permute,
    "reduce": _reduce,
    "reshape": _reshape,
    "resize": _resize,
    "slice": _slice,
    "softmax": _along("Softmax"),
    "space_to_depth": _space_to_depth,
}
