"""Layers with weights: convolutions, matrices; and batch norms."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.onnx.call import Call
from kernelprune.frontends.onnx.converters.arithmetic import combined
from kernelprune.frontends.onnx.converters.windows import Window, window_of
from kernelprune.frontends.onnx.values import Tensor
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.convolution import convolved, transposed
from kernelprune.graph.ops.matmul import product


def _name_module(call: Call, place: int) -> None:
    """Gives the layer the name that its weight has in the model that the file was made from."""
    name = call.node.input[place]
    if name.endswith(".weight"):
        call.module = name.removesuffix(".weight")


def _kernels(call: Call) -> tuple[np.ndarray, int]:
    """(weight with two axes of kernels, how many of them the file has)."""
    weight = call.weight(1)
    axes = weight.ndim - 2
    if axes not in (1, 2):
        raise UnsupportedOperator(f"a convolution over {axes} axes")
    return (weight[:, :, None] if axes == 1 else weight), axes


def _bias(call: Call, outputs: int) -> np.ndarray | None:
    bias = call.weight(2, "a bias") if call.has(2) else None
    if bias is not None and bias.shape != (outputs,):
        raise UnsupportedOperator(f"a bias {list(bias.shape)} for {outputs} outputs")
    return bias


def _conv(call: Call) -> Tensor:
    weight, axes = _kernels(call)
    x = call.map() if axes == 2 else call.row()
    channels, groups = call.shape(x.value)[0], int(call.get("group", 1))
    outputs, inputs = weight.shape[:2]
    if groups < 1 or inputs * groups != channels or outputs % groups:
        raise UnsupportedOperator(
            f"{groups} groups, a weight {list(weight.shape)} and {channels} channels"
        )
    window = window_of(call, call.shape(x.value)[1:], axes, list(weight.shape[2:]))
    bias = _bias(call, outputs)
    _name_module(call, 1)
    node = convolved(
        call, x.value, weight, bias, stride=window.stride, padding=window.padding,
        dilation=window.dilation, groups=groups,
    )  # fmt: skip
    return call.result(node.output) if axes == 2 else call.row_result(node.output)


def _conv_transpose(call: Call) -> Tensor:
    weight, axes = _kernels(call)
    x = call.map() if axes == 2 else call.row()
    channels, groups = call.shape(x.value)[0], int(call.get("group", 1))
    if groups < 1 or weight.shape[0] != channels or channels % groups:
        raise UnsupportedOperator(
            f"{groups} groups, a weight {list(weight.shape)} and {channels} channels"
        )
    bias = _bias(call, weight.shape[1] * groups)
    window = Window.of(call, axes, list(weight.shape[2:]))
    before, sides = _transposed_sides(call, window, call.shape(x.value)[1:], axes)
    found = transposed(
        call, x.value, weight, bias, sides, stride=window.stride, before=before,
        dilation=window.dilation, groups=groups,
    )  # fmt: skip
    return call.result(found) if axes == 2 else call.row_result(found)


def _transposed_sides(
    call: Call, window: Window, given: Any, axes: int
) -> tuple[list[int], list[int]]:
    """(rows and columns that are cut off in front, sides of the result)."""
    more = [0] * (2 - axes) + window.numbers("output_padding", axes, 0)
    spans = [
        stride * (side - 1) + extent + extra
        for stride, side, extent, extra in zip(
            window.stride, given, window.extents(), more, strict=True
        )
    ]
    wanted = call.get("output_shape")
    auto = call.get("auto_pad", "NOTSET")
    if wanted is None and auto in ("NOTSET", "VALID"):
        top, left, bottom, right = window.padding
        cut = [top + bottom, left + right]
        return [top, left], [span - both for span, both in zip(spans, cut, strict=True)]
    if wanted is not None:
        sides = [1] * (2 - axes) + [int(side) for side in wanted][-axes:]
    else:
        sides = [side * stride for side, stride in zip(given, window.stride, strict=True)]
    totals = [span - side for span, side in zip(spans, sides, strict=True)]
    if min(totals) < 0:
        raise UnsupportedOperator(f"an output of {sides}, more than its windows cover")
    upper = auto == "SAME_UPPER"
    return [total // 2 if upper else total - total // 2 for total in totals], sides


def _gemm(call: Call) -> Tensor:
    alpha, beta = float(call.get("alpha", 1.0)), float(call.get("beta", 1.0))
    if call.get("transA", 0):
        raise UnsupportedOperator("a product that mixes the images of a batch (transA)")
    matrix = call.weight(1) * np.float32(alpha)
    matrix = matrix if call.get("transB", 0) else matrix.T
    bias = None
    if call.has(2):
        bias = call.operand(2)
    fits = isinstance(bias, np.ndarray) and bias.size in (1, matrix.shape[0])
    _name_module(call, 1)
    if bias is None or fits:
        flat = None if bias is None else np.asarray(bias, np.float32).reshape(-1) * np.float32(beta)
        flat = None if flat is None else np.broadcast_to(flat, matrix.shape[:1]).copy()
        return _linear(call, call.vector(), matrix, flat)
    found = _linear(call, call.vector(), matrix, None)
    scaled = combined(call, "mul", bias, np.asarray(beta, np.float32))
    result = combined(call, "add", found, scaled)
    assert isinstance(result, Tensor)
    return result


def _linear(call: Call, x: Tensor, matrix: np.ndarray, bias: np.ndarray | None) -> Tensor:
    """``matrix`` [O, F] on the last axis of a tensor: a linear layer of vectors, else a 1x1
    convolution of a map that has this axis as its channels."""
    if matrix.ndim != 2 or matrix.shape[1] != x.sides[-1]:
        raise UnsupportedOperator(f"a matrix {list(matrix.shape)} on an axis of {x.sides[-1]}")
    if len(x.sides) == 1:
        node = call.add("linear", [x.value], {"activation": "none"}, (matrix.shape[0],))
        node.weight, node.bias = np.ascontiguousarray(matrix), bias
        return x.of(node.output, node.shape)
    rank, places = len(x.sides), x.sides[:-1]
    front = rows.permuted(call, x.value, [rank - 1, *range(rank - 1)])
    flat = (x.sides[-1], 1, int(np.prod(places)))
    shape = flat if rank != 3 else (x.sides[-1], *places)
    node = convolved(call, rows.reshaped(call, front, shape), matrix[:, :, None, None], bias)
    back = rows.reshaped(call, node.output, (matrix.shape[0], *places))
    found = rows.permuted(call, back, [*range(1, rank), 0])
    return x.of(found, (*places, matrix.shape[0]))


def _matmul(call: Call) -> Tensor:
    a, b = call.operand(0), call.operand(1)
    if isinstance(a, Tensor) and isinstance(b, np.ndarray) and b.ndim == 2:
        last = a.batch == a.rank - 1
        if a.sides and not last:
            return _linear(call, a, call.weight(1).T, None)
    rank = max(a.rank if isinstance(a, Tensor) else a.ndim, _rank(b))
    if min(_rank(a), _rank(b)) < 2:
        raise UnsupportedOperator("a product with a tensor of one axis")
    tensors = [x for x in (a, b) if isinstance(x, Tensor)]
    batch = {rank - x.rank + x.batch for x in tensors if x.batch is not None}
    if len(batch) > 1 or any(place >= rank - 2 for place in batch):
        raise UnsupportedOperator("a product that mixes the images of a batch")
    place = batch.pop() if batch else None
    left, right = (_matrices(call, x, rank, place) for x in (a, b))
    return call.result(product(call, left, right), place)


def _rank(x: Tensor | np.ndarray) -> int:
    return x.rank if isinstance(x, Tensor) else x.ndim


def _matrices(call: Call, x: Tensor | np.ndarray, rank: int, batch: int | None) -> str:
    """The value with matrices along its last two axes, of ``rank`` axes with the batch."""
    if isinstance(x, np.ndarray):
        sides = [1] * (rank - x.ndim) + list(x.shape)
        if batch is not None and sides.pop(batch) != 1:
            raise UnsupportedOperator("a constant that is another one for each image")
        return rows.constant(call, x.reshape(sides))
    sides = [1] * (rank - x.rank) + x.shape(1)
    if batch is not None:
        sides.pop(batch)
    return rows.reshaped(call, x.value, sides)


def _batch_norm(call: Call) -> list[Tensor]:
    x = call.tensor()
    if x.batch != 0 or not x.sides:
        raise UnsupportedOperator("a batch norm whose first axis is not the batch")
    if call.get("training_mode", 0) or call.get("spatial", 1) != 1:
        raise UnsupportedOperator("a batch norm that normalizes by the batch, or by pixels")
    roles = ("weight", "bias", "running_mean", "running_var")
    tensors = {role: call.weight(place + 1, f"its {role}") for place, role in enumerate(roles)}
    if any(array.shape != x.sides[:1] for array in tensors.values()):
        raise UnsupportedOperator(f"a batch norm of {x.sides[0]} channels with other tensors")
    _name_module(call, 1)
    params = {"eps": rows.number(call.get("epsilon", 1e-5), "epsilon")}
    return [x.of(rows.emit(call, "batch_norm", [x.value], params, tensors=tensors))]


TABLE = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
