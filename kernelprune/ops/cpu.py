"""The operators on the CPU. A call of a kind that was seen before is one look-up and one kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from kernelprune.errors import ShapeError
from kernelprune.ops import dense
from kernelprune.ops.pattern import Call, Pattern, pattern_of


def check(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, in_channels: int
) -> None:
    """What shapes and types alone tell. Raises ShapeError."""
    if input.dim() != 4 or input.shape[1] != in_channels:
        raise ShapeError(
            f"the input must have the shape [batch,{in_channels},height,width], "
            f"got {list(input.shape)}"
        )
    if weight.dim() != 3:
        raise ShapeError(
            f"weight must have the shape [connections,kernel_h,kernel_w], got {list(weight.shape)}"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.dtype, tensor.device) != (input.dtype, input.device):
            raise ShapeError(
                f"{name} is {tensor.dtype} on {tensor.device}, "
                f"but the input is {input.dtype} on {input.device}"
            )
    if input.dtype not in (torch.float32, torch.float64):
        raise ShapeError(f"tensors must be float32 (or float64, for checks), got {input.dtype}")


def check_devices(input: torch.Tensor, row_ptr: torch.Tensor, col: torch.Tensor) -> None:
    """Whether the pattern is where the input is. Raises ShapeError. Not needed on the CPU: torch
    calls the operator of the other device."""
    for name, tensor in (("row_ptr", row_ptr), ("col", col)):
        if tensor.device != input.device:
            raise ShapeError(f"{name} is on {tensor.device}, but the input is on {input.device}")


def check_gradient(
    pattern: Pattern,
    grad: torch.Tensor,
    other: torch.Tensor,
    size: Sequence[int],
    kernel: Sequence[int],
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int]],
) -> None:
    """Whether ``grad`` [batch, ...] is one for the outputs of images of ``size``, and like the
    tensor that it is to be multiplied with. Raises ShapeError."""
    if (grad.dtype, grad.device) != (other.dtype, other.device):
        raise ShapeError(
            f"the gradient is {grad.dtype} on {grad.device}, "
            f"but what it is multiplied with is {other.dtype} on {other.device}"
        )
    stride, padding, dilation = geometry
    wanted = [pattern.out_channels]
    for i in (0, 1):
        span = size[i] + padding[i] + padding[i + 2] - dilation[i] * (kernel[i] - 1) - 1
        if span < 0:
            raise ShapeError(f"the kernel does not fit the input {list(size)}")
        wanted.append(span // stride[i] + 1)
    if grad.dim() != 4 or list(grad.shape[1:]) != wanted:
        raise ShapeError(
            f"the gradient must have the shape [batch,{','.join(map(str, wanted))}], "
            f"got {list(grad.shape)}"
        )


def check_pattern(
    pattern: Pattern, weight: torch.Tensor, bias: torch.Tensor | None, in_channels: int
) -> None:
    """Whether the rest fits the pattern. Raises ShapeError."""
    if len(weight) != len(pattern.col):
        raise ShapeError(f"weight has {len(weight)} connections, but col has {len(pattern.col)}")
    if bias is not None and bias.shape != (pattern.out_channels,):
        raise ShapeError(
            f"bias must have the shape [{pattern.out_channels}], got {list(bias.shape)}"
        )
    check_channels(pattern, in_channels)


def check_channels(pattern: Pattern, in_channels: int) -> None:
    """Whether all connections read channels that there are. Raises ShapeError."""
    if pattern.channels > in_channels:
        raise ShapeError(
            f"a connection reads input channel {pattern.channels - 1}, but there are {in_channels}"
        )


# The share of the multiply-adds, empty lanes included, from which the dense gradient for the
# weights is faster: of 3x3 kernels, and of others, whose taps share no loads.
_DENSE_FROM = (0.75, 0.35)


def _plan(
    pattern: Pattern,
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    in_channels: int,
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int]],
    threads: int,
) -> Call:
    """Checks a kind of call that was not seen before."""
    check(input, weight, bias, in_channels)
    check_pattern(pattern, weight, bias, in_channels)
    image, kernel = tuple(input.shape[1:]), tuple(weight.shape[1:])
    planned, weights = pattern.convolution(image, kernel, *geometry, threads)
    shape = (input.shape[0], pattern.out_channels, planned.out_h, planned.out_w)
    with torch.inference_mode(False):
        like = torch.empty(shape, dtype=torch.float32, device="cpu")
        like.untyped_storage().resize_(0)
    run = planned.run if input.dtype == torch.float32 else None
    return Call(run, weights, like, len(input))


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    row_ptr: torch.Tensor,
    col: torch.Tensor,
    bias: torch.Tensor | None,
    in_channels: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    pattern = pattern_of(row_ptr, col)
    threads = torch.get_num_threads()
    key = (
        input.shape, input.dtype, weight.shape, weight.dtype,
        None if bias is None else (bias.shape, bias.dtype),
        in_channels, *stride, *padding, *dilation, threads,
    )  # fmt: skip
    call = pattern.calls.get(key)
    if call is None:
        geometry = (stride, padding, dilation)
        call = _plan(pattern, input, weight, bias, in_channels, geometry, threads)
        pattern.remember(key, call)
    if call.run is None:
        return dense.conv2d(pattern, input, weight, bias, stride, padding, dilation)
    output = torch.empty_like(call.like)
    version = call.weights.version(weight)
    input, weight = input.contiguous(), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    call.run(
        input.data_ptr(),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        output.data_ptr(),
        call.batch,
        version,
    )
    return output


def conv2d_input(
    grad: torch.Tensor,
    weight: torch.Tensor,
    row_ptr: torch.Tensor,
    col: torch.Tensor,
    in_channels: int,
    size: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    """The gradient for an input of ``size``, by the connections from output to input: for stride 1
    one convolution of the gradient, else one for each phase of the input's rows and columns."""
    pattern = pattern_of(row_ptr, col)
    check_pattern(pattern, weight, None, in_channels)
    check_gradient(pattern, grad, weight, size, weight.shape[1:], (stride, padding, dilation))
    phases = [
        _phases(weight.shape[1 + i], stride[i], dilation[i], padding[i], grad.shape[2 + i], size[i])
        for i in (0, 1)
    ]
    if grad.dtype != torch.float32 or not all(phases):
        return dense.conv2d_input(
            pattern, grad, weight, in_channels, size, stride, padding, dilation
        )
    rows, columns, order = pattern.transposed(in_channels)
    turned = weight.index_select(0, order)
    channels = pattern.out_channels
    if tuple(stride) == (1, 1):
        (down,), (right,) = phases
        border = (down.before, right.before, down.after, right.after)
        turned = turned.flip(1, 2)
        return conv2d(grad, turned, rows, columns, None, channels, (1, 1), border, dilation)
    result = grad.new_zeros((len(grad), in_channels, *size))
    for down in phases[0]:
        for right in phases[1]:
            if down.taps == 0 or right.taps == 0:
                continue
            part = turned[:, down.first :: stride[0], right.first :: stride[1]].flip(1, 2)
            border = (down.before, right.before, down.after, right.after)
            # Along an axis without a stride all is one phase, which may be dilated.
            result[:, :, down.offset :: stride[0], right.offset :: stride[1]] = conv2d(
                grad, part, rows, columns, None, channels, (1, 1), border, dilation
            )
    return result


class _Phase:
    """Rows ``offset``, ``offset + stride``, ... of the input (or columns), and the ``taps`` that
    they meet: the kernel's ``first``, ``first + stride``, ..."""

    def __init__(self, offset: int, kernel: int, stride: int, pad: int, grad: int, size: int):
        self.offset = offset
        shift, self.first = divmod(offset + pad, stride)
        self.taps = len(range(self.first, kernel, stride))
        rows = len(range(offset, size, stride))
        self.before = self.taps - 1 - shift
        self.after = rows - grad + shift

    def is_window(self) -> bool:
        """Whether it is a convolution that the kernels take: with less padding than taps."""
        return self.taps == 0 or (0 <= self.before < self.taps and 0 <= self.after < self.taps)


def _phases(
    kernel: int, stride: int, dilation: int, pad: int, grad: int, size: int
) -> list[_Phase]:
    """Along one axis; empty where it cannot be done so."""
    if stride == 1:  # a dilated kernel is one phase too
        phase = _Phase(0, dilation * (kernel - 1) + 1, 1, pad, grad, size)
        return [phase] if phase.is_window() else []
    if dilation != 1:
        return []
    found = [_Phase(i, kernel, stride, pad, grad, size) for i in range(min(stride, size))]
    return found if all(phase.is_window() for phase in found) else []


def conv2d_weight(
    grad: torch.Tensor,
    input: torch.Tensor,
    row_ptr: torch.Tensor,
    col: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
) -> torch.Tensor:
    """The gradient for the weights of the connections alone, where that is expected to be faster
    than the dense one, of which they are then taken."""
    pattern = pattern_of(row_ptr, col)
    if input.dim() != 4 or len(input) != len(grad):
        raise ShapeError(
            f"the input must have the shape [{len(grad)},channels,height,width], "
            f"got {list(input.shape)}"
        )
    check_channels(pattern, input.shape[1])
    geometry = (stride, padding, dilation)
    check_gradient(pattern, grad, input, input.shape[2:], kernel, geometry)
    if grad.dtype != torch.float32:
        return dense.conv2d_weight(pattern, grad, input, kernel, stride, padding, dilation)
    planned = pattern.weight_gradient(
        tuple(input.shape[1:]), tuple(kernel), *geometry, torch.get_num_threads()
    )
    batch = len(input)
    limit = _DENSE_FROM[0 if tuple(kernel) == (3, 3) else 1]
    full = math.prod(pattern.grouped(input.shape[1]).shape) * batch
    if planned.places(batch) * len(pattern.col) > limit * full:
        return dense.conv2d_weight(pattern, grad, input, kernel, stride, padding, dilation)
    result = torch.empty((len(pattern.col), *kernel), dtype=torch.float32, device="cpu")
    grad, input = grad.contiguous(), input.contiguous()
    planned.run(grad.data_ptr(), input.data_ptr(), result.data_ptr(), batch)
    return result
