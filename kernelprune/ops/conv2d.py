"""The operators: conv2d, and its gradients for the input and for the weights.

    conv2d(input, weight, row_ptr, col, bias, in_channels, stride, padding, dilation)

input [N, in_channels, H, W]; output channel o reads the input channels
``col[row_ptr[o]:row_ptr[o + 1]]`` (ascending), each through a kernel ``weight[k]`` [kh, kw];
row_ptr [O+1] and col [nnz] are int32; padding is top, left, bottom, right. Groups and depthwise
convolutions are patterns. The output is contiguous.

All three are linear in each of their floating-point arguments, and the derivatives of each are made
of the other two, so that gradients of gradients need nothing more; forward-mode derivatives are the
operator itself. float32 runs the engine's
kernels; float64, for checks, is torch's own convolution on the dense weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from kernelprune.ops import cpu, cuda

_library = torch.library.Library("kernelprune", "DEF")
_library.define(
    "conv2d(Tensor input, Tensor weight, Tensor row_ptr, Tensor col, Tensor? bias, "
    "int in_channels, int[2] stride=1, int[4] padding=0, int[2] dilation=1) -> Tensor"
)
_library.define(
    "conv2d_input(Tensor grad, Tensor weight, Tensor row_ptr, Tensor col, int in_channels, "
    "SymInt[2] size, int[2] stride=1, int[4] padding=0, int[2] dilation=1) -> Tensor"
)
_library.define(
    "conv2d_weight(Tensor grad, Tensor input, Tensor row_ptr, Tensor col, int[2] kernel, "
    "int[2] stride=1, int[4] padding=0, int[2] dilation=1) -> Tensor"
)
conv2d = torch.ops.kernelprune.conv2d
_conv2d = torch.ops.kernelprune.conv2d.default
_conv2d_input = torch.ops.kernelprune.conv2d_input.default
_conv2d_weight = torch.ops.kernelprune.conv2d_weight.default

for _name in ("conv2d", "conv2d_input", "conv2d_weight"):
    _library.impl(_name, getattr(cpu, _name), "CPU")
    _library.impl(_name, getattr(cuda, _name), "CUDA")


# ---------------------------------------------------------------- shapes

_1, _0000 = (1, 1), (0, 0, 0, 0)


@torch.library.register_fake("kernelprune::conv2d", lib=_library)
def _fake(
    input, weight, row_ptr, col, bias, in_channels, stride=_1, padding=_0000, dilation=_1
) -> torch.Tensor:
    cpu.check(input, weight, bias, in_channels)
    cpu.check_devices(input, row_ptr, col)
    size = []
    for i in (0, 1):
        extent = dilation[i] * (weight.shape[1 + i] - 1) + 1
        size.append((input.shape[2 + i] + padding[i] + padding[i + 2] - extent) // stride[i] + 1)
    return input.new_empty((input.shape[0], row_ptr.shape[0] - 1, *size))


@torch.library.register_fake("kernelprune::conv2d_input", lib=_library)
def _fake_input(
    grad, weight, row_ptr, col, in_channels, size, stride=_1, padding=_0000, dilation=_1
) -> torch.Tensor:
    return grad.new_empty((grad.shape[0], in_channels, *size))


@torch.library.register_fake("kernelprune::conv2d_weight", lib=_library)
def _fake_weight(
    grad, input, row_ptr, col, kernel, stride=_1, padding=_0000, dilation=_1
) -> torch.Tensor:
    return grad.new_empty((col.shape[0], *kernel))


# ---------------------------------------------------------------- gradients

# Tensors on the CPU with no mode and no transform around them: then the dispatcher would only come
# back to the function that is called here.
_PLAIN = (
    torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    | torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradCPU)
).raw_repr()

_Gradients = tuple[Any, Any, Any]  # of the first two arguments, and of the bias


def _of_conv2d(needed: Any, saved: Any, rest: Any, grad: torch.Tensor) -> _Gradients:
    input, weight, row_ptr, col = saved
    channels, *geometry = rest
    size, kernel = input.shape[2:], weight.shape[1:]
    return (
        _conv2d_input(grad, weight, row_ptr, col, channels, size, *geometry) if needed[0] else None,
        _conv2d_weight(grad, input, row_ptr, col, kernel, *geometry) if needed[1] else None,
        grad.sum((0, 2, 3)) if needed[2] else None,
    )


def _of_input(needed: Any, saved: Any, rest: Any, grad: torch.Tensor) -> _Gradients:
    before, weight, row_ptr, col = saved
    channels, _, *geometry = rest
    kernel = weight.shape[1:]
    return (
        _conv2d(grad, weight, row_ptr, col, None, channels, *geometry) if needed[0] else None,
        _conv2d_weight(before, grad, row_ptr, col, kernel, *geometry) if needed[1] else None,
        None,
    )


def _of_weight(needed: Any, saved: Any, rest: Any, grad: torch.Tensor) -> _Gradients:
    before, input, row_ptr, col = saved
    _, *geometry = rest
    channels, size = input.shape[1], input.shape[2:]
    return (
        _conv2d(input, grad, row_ptr, col, None, channels, *geometry) if needed[0] else None,
        _conv2d_input(before, grad, row_ptr, col, channels, size, *geometry) if needed[1] else None,
        None,
    )


def _make_differentiable(op: Any, derivative: Callable[..., _Gradients]) -> None:
    """Registers ``derivative(needed, saved, rest, grad)``, the gradients of the arguments.

    As torch.library.register_autograd does, but in a third of the time, and under any transforms
    of torch.func.
    """
    name = op._schema.name.split("::")[1]
    on_cpu = getattr(cpu, name)
    tensors = 5 if op is _conv2d else 4
    grad_enabled, transformed = torch.is_grad_enabled, torch._C._are_functorch_transforms_active

    def below(keyset: Any, args: tuple[Any, ...]) -> torch.Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    class Recorded(torch.autograd.Function):
        # What gradients flow to is passed for torch to see, beside the whole of args: an argument
        # takes torch 0.1 us.
        @staticmethod
        def forward(ctx: Any, keyset: Any, args: tuple[Any, ...], *_: Any) -> torch.Tensor:
            ctx.save_for_backward(*args[:4])
            ctx.rest = args[tensors:]
            if forward_ad._current_level >= 0:
                ctx.save_for_forward(*args[:4])
            if keyset is None:
                return on_cpu(*args)
            if not transformed():
                return below(keyset, args)
            # Nothing is recorded within forward; the transforms around this one are to record.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                return below(keyset, args)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
            needed = ctx.needs_input_grad[2:]
            return (None, None, *derivative(needed, ctx.saved_tensors, ctx.rest, grad))

        @staticmethod
        def jvp(ctx: Any, _1: Any, _2: Any, *tangents: Any) -> Any:
            first, second, row_ptr, col = ctx.saved_tensors
            pattern, rest = (row_ptr, col), (*[None] * (tensors - 4), *ctx.rest)
            d_first, d_second, d_bias = tangents
            parts = []
            if d_first is not None:
                parts.append(op(d_first, second, *pattern, *rest))
            if d_second is not None:
                parts.append(op(first, d_second, *pattern, *rest))
            if d_bias is not None:
                shape = parts[0].shape if parts else op(first, second, *pattern, *rest).shape
                parts.append(d_bias[:, None, None].expand(shape))
            return sum(parts[1:], parts[0])

    # Not Recorded.apply, which hands over to the innermost transform of torch.func that is
    # active: by the time that the dispatcher is here, this one's turn is over.
    apply = super(torch.autograd.Function, Recorded).apply

    def autograd(keyset: Any, *args: Any) -> torch.Tensor:
        plain = keyset.raw_repr() == _PLAIN
        forward = forward_ad._current_level >= 0  # tangents are known to Recorded alone
        if forward or grad_enabled():
            first, second, bias = args[0], args[1], args[4] if tensors == 5 else None
            if (
                forward
                or first.requires_grad
                or second.requires_grad
                or (bias is not None and bias.requires_grad)
            ):
                if plain:
                    return apply(None, args, first, second, bias)
                if not transformed():
                    return apply(keyset, args, first, second, bias)
                with enable_single_level_autograd_function():
                    return apply(keyset, args, first, second, bias)
        return on_cpu(*args) if plain else below(keyset, args)

    _library.impl(name, autograd, "Autograd", with_keyset=True)


_make_differentiable(_conv2d, _of_conv2d)
_make_differentiable(_conv2d_input, _of_input)
_make_differentiable(_conv2d_weight, _of_weight)


# ---------------------------------------------------------------- autocast and vmap


def _in_float32(device: str) -> Callable[..., torch.Tensor]:
    """conv2d under autocast: there are kernels for float32 alone."""

    def run(input, weight, row_ptr, col, bias, *rest) -> torch.Tensor:
        with torch.autocast(device, enabled=False):
            input, weight, bias = (
                tensor.float() if tensor is not None and tensor.dtype.itemsize < 4 else tensor
                for tensor in (input, weight, bias)
            )
            return _conv2d(input, weight, row_ptr, col, bias, *rest)

    return run


_library.impl("conv2d", _in_float32("cpu"), "AutocastCPU")
_library.impl("conv2d", _in_float32("cuda"), "AutocastCUDA")


def _one_by_one(op: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, int]]:
    """vmap by a loop; a batch of inputs alone becomes one larger batch of images."""

    def run(info: Any, axes: tuple[Any, ...], *args: Any) -> tuple[torch.Tensor, int]:
        if op is not _conv2d_weight and all(axis is None for axis in axes[1:5]):
            first = args[0].movedim(axes[0], 0)
            result = op(first.flatten(0, 1), *args[1:])
            return result.unflatten(0, first.shape[:2]), 0
        moved = [
            arg.movedim(axis, 0) if isinstance(axis, int) else arg
            for arg, axis in zip(args, axes, strict=True)
        ]
        results = [
            op(*(m[i] if isinstance(axis, int) else m for m, axis in zip(moved, axes, strict=True)))
            for i in range(info.batch_size)
        ]
        return torch.stack(results), 0

    return run


for _op in (_conv2d, _conv2d_input, _conv2d_weight):
    torch.library.register_vmap(_op.name(), _one_by_one(_op), lib=_library)
