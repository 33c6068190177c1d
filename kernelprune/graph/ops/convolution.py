"""Rows of convolutions that are more than one conv2d node: over one axis, transposed, with padding
wider than the kernel, and linear layers along an axis of a value of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops import rows
from kernelprune.graph.ops.base import Row
from kernelprune.graph.ops.pad import padded
from kernelprune.graph.ops.window import check_window, pair, window_shape


def convolved(
    call: Any,
    x: str,
    weight: np.ndarray,
    bias: np.ndarray | None,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Any:
    """A conv2d node; ``weight`` [O, I / groups, kh, kw], ``padding`` [top, left, bottom, right].
    What of it is wider than the kernel becomes a pad."""
    kernel, stride, dilation = [int(k) for k in weight.shape[2:]], list(stride), list(dilation)
    check_window(kernel, stride, dilation)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)] * 2
    inside = [min(pad, size - 1) for pad, size in zip(padding, extents, strict=True)]
    top, left, bottom, right = (pad - own for pad, own in zip(padding, inside, strict=True))
    params = {
        "kernel": kernel,
        "stride": stride,
        "padding": inside,
        "dilation": dilation,
        "activation": "none",
        "groups": int(groups),
    }
    x = padded(call, x, [(0, 0), (top, bottom), (left, right)])
    shape = window_shape(call.shape(x), params, weight.shape[0])
    node = call.add("conv2d", [x], params, shape)
    node.weight, node.bias = np.ascontiguousarray(weight), bias
    return node


def _weight(call: Any) -> np.ndarray:
    if not rows.is_constant(call, call["weight"]):
        raise UnsupportedOperator("a weight is computed from the model's input")
    return np.asarray(call.array(call["weight"]))


def _windows(call: Any, axes: int) -> tuple[list[int], list[int], list[int]]:
    """(stride, dilation, padding [top, left, bottom, right]); of one axis as those of a map that is
    one row high."""
    stride, dilation = (
        [1] * (2 - axes) + pair(call[name])[:axes] for name in ("stride", "dilation")
    )
    given = call["padding"]
    if isinstance(given, str):
        kernel = _weight(call).shape[2:]
        spans = [d * (k - 1) for k, d in zip(kernel, pair(call["dilation"]), strict=False)]
        before = [span // 2 if given == "same" else 0 for span in spans]
        after = [
            span - half if given == "same" else 0 for span, half in zip(spans, before, strict=True)
        ]
    else:
        before = after = pair(given)[:axes]
    rest = [0] * (2 - axes)
    return stride, dilation, [*rest, *before, *rest, *after]


# ---------------------------------------------------------------- rows


def conv2d(call: Any) -> str:
    """With padding wider than the kernel."""
    stride, dilation, padding = _windows(call, 2)
    x, weight, bias = call.map(call["input"]), _weight(call), call.array(call["bias"])
    node = convolved(
        call, x, weight, bias, stride=stride, padding=padding, dilation=dilation,
        groups=call["groups"],
    )  # fmt: skip
    node.parameters = call.owned(weight=call["weight"], bias=call["bias"])
    return str(node.output)


def conv1d(call: Any) -> Any:
    """[C, L] is the map [C, 1, L]."""
    stride, dilation, padding = _windows(call, 1)
    weight, bias = _weight(call)[:, :, None], call.array(call["bias"])  # [O, I / groups, 1, k]
    x = call.row(call["input"])
    node = convolved(
        call, x, weight, bias, stride=stride, padding=padding, dilation=dilation,
        groups=call["groups"],
    )  # fmt: skip
    node.parameters = call.owned(weight=call["weight"], bias=call["bias"])
    return call.row_result(node.output)


def convolution(call: Any) -> Any:
    """aten::convolution, which all others are when torch decomposes them."""
    axes = _weight(call).ndim - 2
    if axes not in (1, 2):
        raise UnsupportedOperator(f"a convolution over {axes} axes")
    if call["transposed"]:
        return _transposed(call, axes)
    return conv2d(call) if axes == 2 else conv1d(call)


def conv_transpose1d(call: Any) -> Any:
    return _transposed(call, 1)


def conv_transpose2d(call: Any) -> Any:
    return _transposed(call, 2)


def _transposed(call: Any, axes: int) -> Any:
    weight, bias = _weight(call), call.array(call["bias"])  # [I, O / groups, k, k]
    shape, groups = rows.result_shape(call), int(call["groups"])
    stride, dilation, padding = _windows(call, axes)
    if axes == 1:
        weight, x = weight[:, :, None], call.row(call["input"])
    else:
        x = call.map(call["input"])
    sides = [1] * (2 - axes) + list(shape[1:])
    owned = call.owned(weight=call["weight"], bias=call["bias"])
    x = transposed(
        call, x, weight, bias, sides, stride=stride, before=padding[:2], dilation=dilation,
        groups=groups, parameters=owned,
    )  # fmt: skip
    return call.row_result(x) if axes == 1 else x


def transposed(
    call: Any,
    x: str,
    weight: np.ndarray,
    bias: np.ndarray | None,
    sides: Sequence[int],
    *,
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    parameters: dict[str, str] | None = None,
) -> str:
    """A transposed convolution; ``weight`` [I, O / groups, kh, kw]; ``before``, rows and columns of
    its result that are cut off in front, and ``sides``, how many are left of each. ``parameters``:
    the model's own that weight and bias are.

    A stride of s makes s * s convolutions, one for each place within a block of outputs: a conv2d
    with s * s times as many outputs, whose channels then become blocks."""
    check_window(list(weight.shape[2:]), list(stride), list(dilation))
    weight = _spread(weight, dilation)
    plans = [
        _plan(weight.shape[2 + axis], stride[axis], before[axis], call.shape(x)[1 + axis], side)
        for axis, side in enumerate(sides)
    ]
    kernels = _phases(weight, groups, stride, [taps for taps, *_ in plans])
    if bias is not None:
        bias = np.repeat(bias, stride[0] * stride[1])
    top, left = (front for _, front, _, _ in plans)
    bottom, right = (after for _, _, after, _ in plans)
    node = convolved(call, x, kernels, bias, padding=(top, left, bottom, right), groups=groups)
    node.phases, node.parameters = stride[0] * stride[1], parameters or {}
    x = _interleaved(call, node.output, stride)
    for axis, (side, (*_, crop)) in enumerate(zip(sides, plans, strict=True)):
        x = rows.sliced(call, x, 1 + axis, crop, crop + side)
    return x


def _spread(weight: np.ndarray, dilation: Sequence[int]) -> np.ndarray:
    """Zeros between the taps, as the dilation has them."""
    height, width = (d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
    spread = np.zeros((*weight.shape[:2], height, width), weight.dtype)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread


def _plan(kernel: int, stride: int, padding: int, side: int, wanted: int) -> tuple[int, ...]:
    """(taps, padding before, padding after, outputs to cut off in front) of the convolutions along
    one axis. Output z = stride * q + r of the uncropped result is sum over t of x[q - t] *
    w[r + stride * t], t < taps; the result begins at z = ``padding``."""
    blocks = -(-(padding + wanted) // stride)  # q runs from 0 to below this
    taps = -(-kernel // stride)
    skipped = min(padding // stride, taps - 1)  # values of q that need not be computed
    before, after = taps - 1 - skipped, max(0, blocks - side)
    return taps, before, after, padding - skipped * stride


def _phases(
    weight: np.ndarray, groups: int, stride: Sequence[int], taps: Sequence[int]
) -> np.ndarray:
    """[I, O / groups, kh, kw] -> [O * sh * sw, I / groups, taps, taps]: of every output channel one
    kernel for each place (r, s) in a block, in the order of depth_to_space."""
    (sh, sw), (th, tw) = stride, taps
    inputs, outputs = weight.shape[:2]
    whole = np.zeros((inputs, outputs, th * sh, tw * sw), weight.dtype)
    whole[:, :, : weight.shape[2], : weight.shape[3]] = weight
    # [groups, I / groups, O / groups, t, r, u, s], the taps last to first as a convolution has them
    parts = whole.reshape(groups, inputs // groups, outputs, th, sh, tw, sw)[:, :, :, ::-1, :, ::-1]
    parts = parts.transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(parts).reshape(-1, inputs // groups, th, tw)


def _interleaved(call: Any, x: str, stride: Sequence[int]) -> str:
    """[O * sh * sw, H, W] -> [O, H * sh, W * sw]."""
    (sh, sw), (channels, height, width) = stride, call.shape(x)
    if sh == sw:
        return x if sh == 1 else rows.emit(call, "depth_to_space", [x], {"block": sh})
    if sw > 1:
        channels //= sw
        x = rows.reshaped(call, x, (channels, sw, height, width))
        width *= sw
        x = rows.reshaped(call, rows.permuted(call, x, [0, 2, 3, 1]), (channels, height, width))
    if sh > 1:
        channels //= sh
        x = rows.reshaped(call, x, (channels, sh, height, width))
        x = rows.permuted(call, x, [0, 2, 1, 3])
        x = rows.reshaped(call, x, (channels, height * sh, width))
    return x


# ---------------------------------------------------------------- linear layers


def pointwise(
    call: Any,
    argument: Any,
    dim: int,
    weight: np.ndarray,
    bias: np.ndarray | None,
    parameters: dict[str, str] | None = None,
) -> Any:
    """weight [O, F] applied to torch's axis ``dim`` of side F, which becomes O. A linear node for
    vectors [N, F], else a 1x1 conv2d on a map that has the axis as its channels.
    ``parameters``: the model's own that weight and bias are."""
    sides = rows.torch_shape(argument)
    if sides[dim] != weight.shape[1]:
        raise UnsupportedOperator(f"a matrix {list(weight.shape)} on an axis of {sides[dim]}")
    view = call.view(argument)
    if view.rank == 2 and view.batch_first():
        x, shape = call.value(argument), (weight.shape[0],)
        node = call.walk.add(call.fx_node, "linear", [x], shape, {"activation": "none"})
        node.weight, node.bias = np.ascontiguousarray(weight), bias
        result: Any = node.output
    else:
        x, source = call.front(argument, dim)
        node = convolved(call, x, weight[:, :, None, None], bias)
        result = call.front_result(node.output, source, dim)
    node.parameters = parameters or {}
    return result


def linear(call: Any) -> Any:
    """On the last axis of a value of several."""
    owned = call.owned(weight=call["weight"], bias=call["bias"])
    return pointwise(call, call["input"], -1, _weight(call), call.array(call["bias"]), owned)


TORCH_ROWS: dict[str, Row] = {
    "aten::conv1d": conv1d,
    "aten::conv2d": conv2d,
    "aten::conv_transpose1d": conv_transpose1d,
    "aten::conv_transpose2d": conv_transpose2d,
    "aten::convolution": convolution,
    "aten::linear": linear,
}
