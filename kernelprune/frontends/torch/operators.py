"""The capture table: one row per ATen operator, each row a function that appends nodes.

A row raises UnsupportedOperator with the reason; trace adds the node and the source line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.call import Call

_MAX_WINDOW = 64


def _pair(value: int | Sequence[int], default: Sequence[int] | None = None) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    if not numbers and default is not None:
        return list(default)
    return [int(n) for n in (numbers * 2 if len(numbers) == 1 else numbers)]


def _check_window(kernel: list[int], stride: list[int], dilation: list[int]) -> None:
    if max(*kernel, *stride, *dilation) > _MAX_WINDOW:
        raise UnsupportedOperator(
            f"kernel {kernel}, stride {stride}, dilation {dilation}: at most {_MAX_WINDOW} each"
        )


# ---------------------------------------------------------------- layers with weights


def _conv(call: Call, padding: list[int]) -> str:
    weight = call.array(call["weight"])
    assert weight is not None
    x = call.map(call["input"])
    stride, dilation = _pair(call["stride"]), _pair(call["dilation"])
    kernel = [int(side) for side in weight.shape[2:]]
    _check_window(kernel, stride, dilation)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)] * 2
    if any(pad >= extent for pad, extent in zip(padding, extents, strict=True)):
        raise UnsupportedOperator(f"padding {padding} is not smaller than the kernel's extent")
    node = call.add(
        "conv2d",
        [x],
        {
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "activation": "none",
            "groups": int(call["groups"]),
        },
    )
    node.weight, node.bias = weight, call.array(call["bias"])
    node.parameters = call.owned(weight=call["weight"], bias=call["bias"])
    return node.output


def _conv2d(call: Call) -> str:
    padding = call["padding"]
    if isinstance(padding, str):
        if padding == "valid":
            return _conv(call, [0, 0, 0, 0])
        weight = call.array(call["weight"])
        assert weight is not None
        totals = [
            d * (k - 1) for k, d in zip(weight.shape[2:], _pair(call["dilation"]), strict=True)
        ]
        before = [total // 2 for total in totals]
        after = [total - half for total, half in zip(totals, before, strict=True)]
        return _conv(call, [*before, *after])
    return _conv(call, _pair(padding) * 2)


def _convolution(call: Call) -> str:
    if call["transposed"]:
        raise UnsupportedOperator("transposed convolution")
    return _conv(call, _pair(call["padding"]) * 2)


def _sparse_conv(call: Call) -> str:
    """kernelprune.ops.conv2d: the pattern becomes zeros of a dense weight again."""
    kernels, bias = call.array(call["weight"]), call.array(call["bias"])
    row_ptr, col = (call.walk.env[call[name]].cpu().numpy() for name in ("row_ptr", "col"))
    assert kernels is not None
    kernel = [int(side) for side in kernels.shape[1:]]
    stride, dilation = _pair(call["stride"]), _pair(call["dilation"])
    _check_window(kernel, stride, dilation)
    channels, outputs = int(call["in_channels"]), len(row_ptr) - 1
    rows = np.repeat(np.arange(outputs), np.diff(row_ptr))
    groups = call.groups()
    if outputs % groups or channels % groups:
        groups = 1
    width = channels // groups
    if (rows // (outputs // groups) != col // width).any():  # another operator's groups
        groups, width = 1, channels
    params = {
        "kernel": kernel,
        "stride": stride,
        "padding": [int(side) for side in call["padding"]],
        "dilation": dilation,
        "activation": "none",
        "groups": groups,
    }
    node = call.add("conv2d", [call.map(call["input"])], params)
    weight = np.zeros((outputs, width, *kernel), kernels.dtype)
    weight[rows, col % width] = kernels
    node.weight, node.bias = weight, bias
    return node.output


def _linear_layer(call: Call, x: Any, weight: Any, bias: Any, transpose: bool) -> str:
    value, matrix = call.value(x), call.array(weight)
    if len(call.shape(value)) != 1:
        raise UnsupportedOperator(f"needs a vector [F], has {list(call.shape(value))}: flatten it")
    assert matrix is not None
    node = call.add("linear", [value], {"activation": "none"})
    node.weight, node.bias = matrix.T if transpose else matrix, call.array(bias)
    node.parameters = {} if transpose else call.owned(weight=weight, bias=bias)
    return node.output


def _linear(call: Call) -> str:
    return _linear_layer(call, call["input"], call["weight"], call["bias"], False)


def _addmm(call: Call) -> str:
    if call["alpha"] != 1 or call["beta"] != 1:
        raise UnsupportedOperator("alpha or beta is not 1")
    return _linear_layer(call, call["mat1"], call["mat2"], call["self"], True)


def _matmul(call: Call) -> str:
    return _linear_layer(call, call["self"], call.get("mat2", call.get("other")), None, True)


def _batch_norm(call: Call) -> str:
    if call.get("training", False):
        raise UnsupportedOperator(
            "batch norm without running statistics depends on the batch; set track_running_stats"
        )
    x = call.value(call["input"])
    if len(call.shape(x)) not in (1, 3) or call["running_mean"] is None:
        raise UnsupportedOperator(f"batch norm of {list(call.shape(x))} without running statistics")
    mean, variance = call.array(call["running_mean"]), call.array(call["running_var"])
    assert mean is not None and variance is not None
    weight, bias = call.array(call["weight"]), call.array(call["bias"])
    node = call.add(
        "batch_norm",
        [x],
        {
            "weight": np.ones_like(mean) if weight is None else weight,
            "bias": np.zeros_like(mean) if bias is None else bias,
            "running_mean": mean,
            "running_var": variance,
            "eps": float(call["eps"]),
        },
    )
    roles = ("weight", "bias", "running_mean", "running_var")
    node.parameters = call.owned(**{role: call[role] for role in roles})
    return node.output


# ---------------------------------------------------------------- pooling


def _ceil_padding(call: Call, x: str, window: list[list[int]], axis: int) -> int:
    """Extra padding behind one axis that makes floor rounding give ceil_mode's size."""
    kernel, stride, padding, dilation = (numbers[axis] for numbers in window)
    size = call.shape(x)[1 + axis]
    wanted = call.output_shape()[1 + axis]
    needed = (wanted - 1) * stride + dilation * (kernel - 1) + 1
    return max(0, needed - (size + 2 * padding)) if call["ceil_mode"] else 0


def _max_pool2d(call: Call) -> str:
    x = call.map(call["self"])
    kernel = _pair(call["kernel_size"])
    stride = _pair(call["stride"] or [], kernel)
    padding, dilation = _pair(call["padding"]), _pair(call["dilation"])
    _check_window(kernel, stride, dilation)
    window = [kernel, stride, padding, dilation]
    extra = [_ceil_padding(call, x, window, axis) for axis in (0, 1)]
    behind = [pad + more for pad, more in zip(padding, extra, strict=True)]
    params = {
        "kernel": kernel,
        "stride": stride,
        "padding": [*padding, *behind],
        "dilation": dilation,
    }
    return call.add("max_pool2d", [x], params).output


def _avg_pool2d(call: Call) -> str:
    x = call.map(call["self"])
    kernel = _pair(call["kernel_size"])
    stride = _pair(call["stride"] or [], kernel)
    padding = _pair(call["padding"])
    _check_window(kernel, stride, [1, 1])
    extra = [_ceil_padding(call, x, [kernel, stride, padding, [1, 1]], axis) for axis in (0, 1)]
    # Without padding the divisor is the number of taps inside the map either way, and torch does
    # not count what ceil_mode adds: then the extra padding must not be counted here either.
    include = bool(call["count_include_pad"]) and any(padding)
    if include and any(extra):
        raise UnsupportedOperator("ceil_mode with padding that counts: set count_include_pad=False")
    if call["divisor_override"] is not None:
        whole = call["divisor_override"] == kernel[0] * kernel[1]
        if not whole or any(extra) or (any(padding) and not include):
            raise UnsupportedOperator("divisor_override")
    behind = [pad + more for pad, more in zip(padding, extra, strict=True)]
    return _add_avg_pool(call, x, kernel, stride, [*padding, *behind], include)


def _add_avg_pool(
    call: Call, x: str, kernel: list[int], stride: list[int], padding: list[int], include: bool
) -> str:
    params = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "count_include_pad": include,
    }
    return call.add("avg_pool2d", [x], params).output


def _adaptive_kernel(call: Call, x: str) -> list[int]:
    size, wanted = call.shape(x)[1:], call.output_shape()[1:]
    if any(have % want for have, want in zip(size, wanted, strict=True)):
        raise UnsupportedOperator(
            f"adaptive pooling from {list(size)} to {list(wanted)} needs windows of unequal size"
        )
    kernel = [have // want for have, want in zip(size, wanted, strict=True)]
    return kernel


def _adaptive_avg_pool2d(call: Call) -> str:
    x = call.map(call["self"])
    if call.output_shape() == call.shape(x):
        return x
    if call.output_shape()[1:] == (1, 1):
        return call.add("global_avg_pool", [x], {}).output
    kernel = _adaptive_kernel(call, x)
    _check_window(kernel, kernel, [1, 1])
    return _add_avg_pool(call, x, kernel, list(kernel), [0, 0, 0, 0], False)


def _adaptive_max_pool2d(call: Call) -> str:
    x = call.map(call["self"])
    if call.output_shape() == call.shape(x):
        return x
    kernel = _adaptive_kernel(call, x)
    _check_window(kernel, kernel, [1, 1])
    params = {
        "kernel": kernel,
        "stride": list(kernel),
        "padding": [0, 0, 0, 0],
        "dilation": [1, 1],
    }
    return call.add("max_pool2d", [x], params).output


def _mean(call: Call) -> str:
    x = call.map(call["self"])
    dims = sorted(int(d) % 4 for d in call["dim"] or ())
    if dims != [2, 3] or call.get("dtype") is not None:
        raise UnsupportedOperator(f"mean over the axes {call['dim']}: only (2, 3) is supported")
    pooled = (call.shape(x)[0], 1, 1)
    node = call.walk.add(call.fx_node, "global_avg_pool", [x], pooled, {})
    return node.output if call["keepdim"] else _flatten_to(call, node.output)


# ---------------------------------------------------------------- elementwise and moving


def _add(call: Call) -> str:
    if call.get("alpha", 1) != 1:
        raise UnsupportedOperator("alpha is not 1")
    a, b = call.value(call["self"]), call.value(call["other"])
    if call.shape(a) != call.shape(b):
        raise UnsupportedOperator(
            f"adds {list(call.shape(a))} and {list(call.shape(b))} with broadcasting"
        )
    return call.add("add", [a, b], {"activation": "none"}).output


def _cat(call: Call) -> str:
    values = [call.value(argument) for argument in call["tensors"]]
    if len(values) == 1:
        return values[0]
    rank = len(call.shape(values[0])) + 1
    if call["dim"] % rank != 1:
        raise UnsupportedOperator(f"concatenates along axis {call['dim']}: only 1, the channels")
    return call.add("concat", values, {}).output


def _flatten_to(call: Call, value: str, *, literal: bool = False) -> str:
    target = call.output_shape()
    if target == call.shape(value):
        return value
    if len(target) != 1 or math.prod(call.shape(value)) != target[0]:
        raise UnsupportedOperator(
            f"reshapes {list(call.shape(value))} to {list(target)}: only flattening is supported"
        )
    # "literal": the model's code holds the number of features, so it cannot be made smaller.
    return call.add("flatten", [value], {"literal": literal}).output


def _reshape(call: Call) -> str:
    sizes: list[Any] = list(call.get("shape", call.get("size")) or [])
    return _flatten_to(call, call.value(call["self"]), literal=bool(sizes) and sizes[-1] != -1)


def _flatten(call: Call) -> str:
    return _flatten_to(call, call.value(call["self"]))


def _activation(kind: str) -> Callable[[Call], str]:
    def row(call: Call) -> str:
        return call.add("activation", [call.value(call["self"])], {"activation": kind}).output

    return row


def _clamp(call: Call) -> str:
    low = call.get("min", call.get("min_val"))
    high = call.get("max", call.get("max_val"))
    kinds = {(0, None): "relu", (0, math.inf): "relu", (0, 6): "relu6"}
    if isinstance(low, torch.fx.Node) or (low, high) not in kinds:
        raise UnsupportedOperator(f"clamps to {low}..{high}: only 0.. and 0..6 are supported")
    return _activation(kinds[low, high])(call)


def _softmax(call: Call) -> str:
    x = call.value(call["self"])
    if call["dim"] % (len(call.shape(x)) + 1) != 1 or call.get("dtype") is not None:
        raise UnsupportedOperator(f"softmax over axis {call['dim']}: only 1, the channels")
    return call.add("softmax", [x], {}).output


def _identity(call: Call) -> str:
    """Operators that change nothing at inference; they leave no node."""
    source = next(iter(call.arguments.values()))
    before, after = source.meta["val"], call.fx_node.meta["val"]
    after = after[0] if isinstance(after, (tuple, list)) else after
    if before.dtype != after.dtype:
        raise UnsupportedOperator(f"changes the type from {before.dtype} to {after.dtype}")
    return call.value(source)


def _dropout(call: Call) -> str:
    if call.get("train", False):
        raise UnsupportedOperator("dropout is on in eval mode")
    return _identity(call)


OPERATORS: dict[str, Callable[[Call], str]] = {
    "aten::conv2d": _conv2d,
    "aten::convolution": _convolution,
    "kernelprune::conv2d": _sparse_conv,
    "aten::linear": _linear,
    "aten::addmm": _addmm,
    "aten::mm": _matmul,
    "aten::matmul": _matmul,
    "aten::batch_norm": _batch_norm,
    "aten::native_batch_norm": _batch_norm,
    "aten::cudnn_batch_norm": _batch_norm,
    "aten::_native_batch_norm_legit_no_training": _batch_norm,
    "aten::_native_batch_norm_legit": _batch_norm,
    "aten::max_pool2d": _max_pool2d,
    "aten::max_pool2d_with_indices": _max_pool2d,
    "aten::avg_pool2d": _avg_pool2d,
    "aten::adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "aten::_adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "aten::adaptive_max_pool2d": _adaptive_max_pool2d,
    "aten::mean": _mean,
    "aten::add": _add,
    "aten::add_": _add,
    "aten::cat": _cat,
    "aten::concat": _cat,
    "aten::flatten": _flatten,
    "aten::view": _reshape,
    "aten::_unsafe_view": _reshape,
    "aten::reshape": _reshape,
    "aten::squeeze": _flatten,
    "aten::relu": _activation("relu"),
    "aten::relu_": _activation("relu"),
    "aten::relu6": _activation("relu6"),
    "aten::relu6_": _activation("relu6"),
    "aten::hardtanh": _clamp,
    "aten::hardtanh_": _clamp,
    "aten::clamp": _clamp,
    "aten::clamp_": _clamp,
    "aten::clamp_min": _clamp,
    "aten::clamp_min_": _clamp,
    "aten::softmax": _softmax,
    "aten::_softmax": _softmax,
    "aten::dropout": _dropout,
    "aten::dropout_": _dropout,
    "aten::feature_dropout": _dropout,
    "aten::feature_dropout_": _dropout,
    "aten::alpha_dropout": _dropout,
    "aten::feature_alpha_dropout": _dropout,
    "aten::native_dropout": _dropout,
    "aten::alias": _identity,
    "aten::clone": _identity,
    "aten::detach": _identity,
    "aten::detach_": _identity,
    "aten::contiguous": _identity,
    "aten::to": _identity,
    "aten::_to_copy": _identity,
    "aten::lift_fresh_copy": _identity,
}
