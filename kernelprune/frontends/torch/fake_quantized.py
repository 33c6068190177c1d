"""Models that torch.ao or NNCF have quantised: their quantisers as nodes of the graph.

Such a model computes with numbers that it rounds to multiples of a scale ("fake quantisation"), or
makes integers of numbers and numbers of these again. Here both become ``fake_quantize`` nodes, and
the steps of rounded weights are noted; ``kernelprune.graph.rounded`` then makes bytes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.call import Call
from kernelprune.graph.ops.base import Row

# ---------------------------------------------------------------- modules


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Has the quantisers of torch.ao and NNCF in ``model`` compute with the ranges that they have,
    by one operator each. They would ask their flags, which no trace can follow, some would measure
    every input that they see, and NNCF compiles an extension of its own."""
    changed = []
    for module in model.modules():
        forward = _still_forward(module)
        if forward is not None:
            changed.append((module, vars(module).get("forward")))
            module.forward = forward
    try:
        yield
    finally:
        for module, before in changed:
            del module.forward
            if before is not None:
                module.forward = before


Forward = Callable[[torch.Tensor], torch.Tensor]


def _still_forward(module: nn.Module) -> Forward | None:
    # By their names: neither package has to be installed, and torch.ao's classes are moving.
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in type(module).__mro__}
    if bases & {("torch", "FakeQuantizeBase"), ("torchao", "FakeQuantizeBase")}:
        return _of_torch(module)
    if ("nncf", "BaseQuantizer") in bases:
        return _of_nncf(module)
    return None


def _of_torch(module: Any) -> Forward | None:
    if int(module.fake_quant_enabled[0]) != 1:
        return _identity
    if not hasattr(module, "scale"):  # of another kind; a trace says what is wrong with it
        return None
    low, high = (
        int(module.activation_post_process.quant_min),
        int(module.activation_post_process.quant_max),
    )
    axis = int(module.ch_axis) if module.is_per_channel else None
    return _rounding(module.scale, module.zero_point, axis, low, high)


def _of_nncf(module: Any) -> Forward | None:
    """``levels`` numbers from input_low to input_low + input_range, one of which is 0."""
    if not module.is_enabled_quantization():
        return _identity
    if hasattr(module, "lora_A") or not hasattr(module, "level_low"):
        return None
    with torch.no_grad():
        if hasattr(module, "input_range"):
            low, high = module.get_input_low_input_high()
        else:
            high = module.scale.abs() + module.eps
            low = high * (module.level_low / module.level_high)
        top = int(module.level_high) - int(module.level_low)
        scale = ((high - low) / top).detach()
        zero = torch.round(-low / scale).detach()
    sides = [side for side in scale.shape if side > 1]
    if len(sides) > 1:
        return None
    axis = list(scale.shape).index(sides[0]) if sides else None
    return _rounding(scale.flatten(), zero.flatten(), axis, 0, top)


def _rounding(
    scale: torch.Tensor, zero_point: torch.Tensor, axis: int | None, low: int, high: int
) -> Forward:
    scale, zero_point = scale.detach(), zero_point.detach().to(torch.int32)
    if axis is None:
        scale, zero_point = scale.reshape(1), zero_point.reshape(1)
        return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
    return lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, low, high)


# What autograd makes of them: a mask for the backward pass comes along.
_WITHOUT_SHAPES = (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask",
)


@contextmanager
def with_shapes() -> Iterator[None]:
    """Within it torch.export knows the shapes of torch's own fake quantisation, which has no rule
    for them in some versions of torch."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in _WITHOUT_SHAPES:
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
                library.impl(name, _rounded_and_mask, "Meta")
        yield


def _rounded_and_mask(x: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


# ---------------------------------------------------------------- operators


def _rounded(call: Call) -> str:
    """Of values of the graph: rounded numbers."""
    first = next(iter(call.arguments.values()))
    params = _parameters(call)
    value = call.value(first)
    return call.add("fake_quantize", [value], params, call.shape(value)).output


def _parameters(call: Call) -> dict[str, Any]:
    if int(_number(call, call.get("fake_quant_enabled", 1))) != 1:
        raise UnsupportedOperator("is a fake quantiser that is switched off: take it out")
    return {
        "scale": float(_number(call, call["scale"])),
        "zero_point": int(_number(call, call["zero_point"])),
        "low": int(call["quant_min"]),
        "high": int(call["quant_max"]),
    }


def _number(call: Call, argument: Any) -> float:
    if isinstance(argument, (int, float)):
        return float(argument)
    known = call.walk.env.get(argument)
    if not isinstance(known, torch.Tensor) or known.numel() != 1:
        raise UnsupportedOperator(
            "quantises an activation by a scale that is computed from it, or with one for each "
            "channel: quantise it with one fixed scale"
        )
    return float(known)


def _to_integers(call: Call) -> str:
    """The integers are only read as the numbers that they stand for."""
    for user in call.fx_node.users:
        name = str(getattr(getattr(user.target, "_schema", None), "name", user.target))
        alike = [_plain(call, a) == _plain(call, b) for a, b in _pairs(call.fx_node, user)]
        if name not in _DEQUANTIZE or not all(alike):
            raise UnsupportedOperator(
                f"its integers are read by {name}: only dequantize with the same scale may do so"
            )
    return _rounded(call)


def _pairs(quantize: Any, dequantize: Any) -> list[tuple[Any, Any]]:
    """Scale, zero point, limits and type of the two."""
    return list(zip(quantize.args[1:], dequantize.args[1:], strict=False))


def _plain(call: Call, argument: Any) -> Any:
    known = call.walk.env.get(argument) if isinstance(argument, torch.fx.Node) else argument
    return known.flatten().tolist() if isinstance(known, torch.Tensor) else known


def _from_integers(call: Call) -> Any:
    return call.view(call["input"])


_FAKE = (
    "aten::fake_quantize_per_tensor_affine",
    "aten::fake_quantize_per_tensor_affine_cachemask",
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
)
_FAKE_BY_CHANNEL = (
    "aten::fake_quantize_per_channel_affine",
    "aten::fake_quantize_per_channel_affine_cachemask",
)
_QUANTIZE = ("quantized_decomposed::quantize_per_tensor",)
_DEQUANTIZE = (
    "quantized_decomposed::dequantize_per_tensor",
    "quantized_decomposed::dequantize_per_channel",
)


def _by_channel(call: Call) -> str:
    raise UnsupportedOperator(
        "quantises an activation with one scale for each channel: quantise it with one for all"
    )


ROWS: dict[str, Row] = {
    **{name: _rounded for name in _FAKE},
    **{
        name: _by_channel
        for name in (*_FAKE_BY_CHANNEL, "quantized_decomposed::quantize_per_channel")
    },
    **{name: _to_integers for name in _QUANTIZE},
    _DEQUANTIZE[0]: _from_integers,
}


# ---------------------------------------------------------------- weights

_SAME = ("aten::detach", "aten::alias", "aten::clone", "aten::contiguous")


def steps_of(fx_node: Any, env: dict[Any, Any], known: dict[Any, np.ndarray]) -> np.ndarray | None:
    """Float64, one number or one for each channel: what a constant that ``fx_node`` computes is
    whole multiples of; None where nothing says so. ``known``: of other constants."""
    name = str(getattr(getattr(fx_node.target, "_schema", None), "name", ""))
    if name in _SAME:
        return known.get(fx_node.args[0])
    if name not in (*_FAKE, *_FAKE_BY_CHANNEL, *_DEQUANTIZE):
        return None
    scale = fx_node.args[1]
    scale = env[scale].detach().cpu() if isinstance(scale, torch.fx.Node) else scale
    return np.asarray(scale, np.float64).reshape(-1)
