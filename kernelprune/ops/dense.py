"""The operators by torch's own dense convolution: for float64, and where nothing here is faster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import conv2d as torch_conv2d, pad

from kernelprune.ops.pattern import Grouped, Pattern


def weights(found: Grouped, weight: torch.Tensor) -> torch.Tensor:
    """``[nnz, kh, kw] -> [O, I/groups, kh, kw]``, zeros where there is no connection."""
    full = weight.new_zeros((math.prod(found.shape), *weight.shape[1:]))
    full.index_copy_(0, found.place.to(weight.device), weight)
    return full.unflatten(0, found.shape)


def conv2d(
    pattern: Pattern,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    found = pattern.grouped(input.shape[1])
    input, rest = _padded(input, padding)
    full = weights(found, weight)
    output = torch_conv2d(input, full, bias, tuple(stride), rest, tuple(dilation), found.groups)
    return output.contiguous()


def conv2d_input(
    pattern: Pattern,
    grad: torch.Tensor,
    weight: torch.Tensor,
    in_channels: int,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    found = pattern.grouped(in_channels)
    top, left, bottom, right = padding
    height, width = size
    input = grad.new_empty((len(grad), in_channels, height + top + bottom, width + left + right))
    result = torch.ops.aten.convolution_backward(
        grad.contiguous(), input, weights(found, weight), None, list(stride), [0, 0],
        list(dilation), False, [0, 0], found.groups, [True, False, False],
    )[0]  # fmt: skip
    return result[:, :, top : top + height, left : left + width].contiguous()


def conv2d_weight(
    pattern: Pattern,
    grad: torch.Tensor,
    input: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    found = pattern.grouped(input.shape[1])
    input, rest = _padded(input, padding)
    full = grad.new_empty(()).expand(*found.shape, *kernel)  # its shape alone counts
    result = torch.ops.aten.convolution_backward(
        grad.contiguous(), input, full, None, list(stride), list(rest), list(dilation), False,
        [0, 0], found.groups, [False, True, False],
    )[1]  # fmt: skip
    # index_select on one axis takes a tenth of the time of two index tensors.
    return result.reshape(-1, *kernel).index_select(0, found.place.to(result.device))


def _padded(input: torch.Tensor, padding: Sequence[int]) -> tuple[torch.Tensor, tuple[int, int]]:
    """The input, and the padding that is left to the convolution: only equal sides can be."""
    top, left, bottom, right = padding
    if (top, left) == (bottom, right):
        return input, (top, left)
    return pad(input, (left, right, top, bottom)), (0, 0)
