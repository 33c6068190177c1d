"""The steps of a GraphModel: one node each, on bytes and numbers, by the rules of FORMAT.md.

Sums of whole numbers are exact: in float32 while they stay below 2^24, else in parts or float64.
All other operations are single ones of float32, which torch rounds one by one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from kernelprune.graph.ir import Node, Shape
from kernelprune.graph.ops.activation import activation_module
from kernelprune.graph.quantization import LEVELS, Quantization

_EXACT = 1 << 24  # whole numbers up to this are float32 numbers


class Bytes(nn.Module):
    """What the bytes of one value stand for."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, quantization: Quantization):
        super().__init__()
        self.register_buffer("scale", torch.tensor(quantization.scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(quantization.zero_point))

    def quantization(self) -> Quantization:
        return Quantization(float(self.scale), int(self.zero_point))

    def wide(self) -> torch.Tensor:
        """The scale in float64, from which multipliers are made."""
        return self.scale.double()

    def inverse(self) -> torch.Tensor:
        return (1.0 / self.wide()).float()

    def centred(self, value: torch.Tensor) -> torch.Tensor:
        """float32 q - zero point."""
        return value.float() - self.zero_point.float()

    def dequantize(self, value: torch.Tensor) -> torch.Tensor:
        return self.centred(value) * self.scale

    def quantize(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.rounded(numbers * self.inverse())

    def rounded(self, steps: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """uint8 of float32 numbers in units of the scale, after an activation; NaN is 0."""
        zero = self.zero_point.float()
        low, high = (-zero if activation == "none" else zero - zero), LEVELS - zero
        if activation == "relu6":
            high = torch.minimum(high, torch.round(6.0 * self.inverse()))
        steps = torch.round(torch.minimum(torch.maximum(steps, low), high))
        return (torch.nan_to_num(steps, nan=0.0) + zero).to(torch.uint8)


class Step(nn.Module):
    """One node, whose arrays are buffers: ``step(values, what their bytes stand for, what the
    output's do)``, None for numbers."""

    weight: Any  # these three are tensors, of layers alone
    bias: Any
    weight_scale: Any

    def __init__(self, node: Node, shapes: Sequence[Shape]):
        super().__init__()
        self._node = copy.copy(node)
        self._shapes = list(shapes)
        self._roles = list(node.tensors)
        self.inputs, self.output = list(node.inputs), node.output
        for role, array in node.tensors.items():
            self._store(f"tensor_{role}", array.astype(np.int64) if _whole(array) else array)
        if node.has_weight():
            self._store("weight", node.weight)
            self._store("bias", node.bias)
            self._store("weight_scale", node.weight_scale)
            self._product = node.rule.product(node, shapes)  # type: ignore[attr-defined]
        self._node.weight = self._node.bias = self._node.weight_scale = None
        self._node.tensors = {}
        self._forget()

    def _store(self, role: str, array: np.ndarray | None) -> None:
        if array is not None:
            array = array.astype(np.float32) if array.dtype.kind == "f" else array
            self.register_buffer(role, torch.from_numpy(np.array(array, order="C")))

    def replace(self, **arrays: torch.Tensor) -> None:
        """Gives buffers, by name, other numbers of the same shape."""
        for name, array in arrays.items():
            getattr(self, name).copy_(array)
        self._forget()

    def _forget(self) -> None:
        """What was made of the arrays."""
        self._modules_made: dict[torch.dtype, nn.Module] = {}
        self._parts: list[tuple[int, torch.Tensor]] = []

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Step:
        self._forget()
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*arguments)

    @property
    def is_integer_layer(self) -> bool:
        return "weight_scale" in self._buffers

    def node(self) -> Node:
        """A copy of the node with its arrays as they are now."""
        node = copy.copy(self._node)
        node.inputs, node.params = list(node.inputs), copy.deepcopy(node.params)
        own = {name: buffer.detach().cpu().numpy().copy() for name, buffer in self.named_buffers()}
        node.tensors = {
            role: array.astype(np.uint32) if _whole(array) else array
            for role in self._roles
            for array in [own[f"tensor_{role}"]]
        }
        if node.has_weight():
            node.weight, node.bias = own["weight"], own.get("bias")
            node.weight_scale = own.get("weight_scale")
        return node

    def forward(
        self, values: list[torch.Tensor], given: list[Bytes | None], to: Bytes | None
    ) -> torch.Tensor:
        node = self._node
        if node.has_weight():
            return self._layer(values, given, to)
        if all(given) and node.inputs:
            rule = node.rule.on_integers(node, self._shapes, to is not None)
            if rule is not None:
                steps = _on_integers(rule, values, given, to)
                return (
                    steps
                    if to is None
                    else to.rounded(steps, node.params.get("activation", "none"))
                )
            if to is not None and node.rule.elementwise and len(values) == 1:
                return self._by_table(values[0], given[0], to)  # type: ignore[arg-type]
        result = self._module(torch.float32, values[0].device)(*_numbers(values, given))
        return result if to is None else to.quantize(result)

    def _module(self, dtype: torch.dtype, device: torch.device) -> Any:
        if dtype not in self._modules_made:
            module = self._node.rule.to_torch(self.node(), self._shapes)
            self._modules_made[dtype] = module.to(device, dtype).eval().requires_grad_(False)
        return self._modules_made[dtype]

    def _by_table(self, value: torch.Tensor, given: Bytes, to: Bytes) -> torch.Tensor:
        """A function of every element by itself: of each byte, in float64."""
        channels = value.shape[1] if self._roles else 1
        sides = [1] * (value.dim() - 2)
        every = torch.arange(LEVELS + 1, device=value.device)
        numbers = given.dequantize(every).double().view(-1, 1, *sides)
        function = self._module(torch.float64, value.device)
        table = to.quantize(function(numbers.expand(-1, channels, *sides).contiguous()).float())
        places = value.to(torch.int32)
        if channels > 1:
            own = torch.arange(channels, dtype=torch.int32, device=value.device)
            places = places * channels + own.view(1, -1, *sides)
        return table.flatten().index_select(0, places.flatten()).view_as(value)

    # ------------------------------------------------------------ layers

    def linear(self, value: torch.Tensor, source: Bytes | None) -> torch.Tensor:
        """Of a layer: float32 numbers before a residual and the activation."""
        if not self.is_integer_layer:
            x = value if source is None else source.dequantize(value)
            y: torch.Tensor = self._product(x, self.weight)
            return y + _by_channel(self.bias, y) if "bias" in self._buffers else y
        assert source is not None
        return self._scaled_sums(value, source, source.wide() * self.weight_scale.double())

    def _scaled_sums(
        self, value: torch.Tensor, source: Bytes, factor: torch.Tensor
    ) -> torch.Tensor:
        sums = self._sums(source.centred(value))
        sums = sums + _by_channel(self.bias, sums)
        return sums.float() * _by_channel(factor.float(), sums)

    def _layer(
        self, values: list[torch.Tensor], given: list[Bytes | None], to: Bytes | None
    ) -> torch.Tensor:
        activation = self._node.params["activation"]
        if not self.is_integer_layer:
            y = self.linear(values[0], given[0])
            for residual in _numbers(values[1:], given[1:]):
                y = y + residual
            y = activation_module(activation)(y)
            return y if to is None else to.quantize(y)
        source = given[0]
        assert source is not None
        factor = source.wide() * self.weight_scale.double()
        y = self._scaled_sums(values[0], source, factor if to is None else factor / to.wide())
        if len(values) == 2:
            y = y + _residual(values[1], given[1], to)
        return activation_module(activation)(y) if to is None else to.rounded(y, activation)

    def _sums(self, x: torch.Tensor) -> torch.Tensor:
        """int32: the exact sums of whole numbers ``x``, at most 255 in size."""
        if not self._parts:
            self._parts = _exact_parts(self.weight)
        total: Any = 0
        for factor, weight in self._parts:
            part = self._product(x.to(weight.dtype), weight).round().to(torch.int32)
            total = total + part * factor
        return total


def _whole(array: np.ndarray) -> bool:
    return np.issubdtype(array.dtype, np.integer)


def _by_channel(numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[C] as wide as [N, C, ...]."""
    return numbers.view(-1, *[1] * (like.dim() - 2))


def _numbers(values: list[torch.Tensor], given: list[Bytes | None]) -> list[torch.Tensor]:
    return [
        value if own is None else own.dequantize(value)
        for value, own in zip(values, given, strict=True)
    ]


def _on_integers(
    rule: Any, values: list[torch.Tensor], given: list[Bytes | None], to: Bytes | None
) -> torch.Tensor:
    sources = [own for own in given if own is not None]
    whole = [own.centred(value).double() for value, own in zip(values, sources, strict=True)]
    scales = [own.wide() for own in sources]
    found: torch.Tensor = rule(
        whole, scales, torch.ones_like(scales[0]) if to is None else to.wide()
    )
    return found


def _residual(value: torch.Tensor, given: Bytes | None, to: Bytes | None) -> torch.Tensor:
    """In units of the output."""
    if given is None:
        return value if to is None else value * to.inverse()
    factor = given.wide() if to is None else given.wide() / to.wide()
    return given.centred(value) * factor.float()


def _exact_parts(weight: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Factors and weights whose products with bytes add up to the weight's, each exactly: float32
    while no sum can reach 2^24, in two halves of four bits where these cannot, else float64."""
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        whole = weight.to(torch.int32)
        low = (whole + 8).remainder(16) - 8
        for parts in ([(1, whole)], [(16, (whole - low) // 16), (1, low)]):
            if all(_largest_sum(part) < _EXACT for _, part in parts):
                return [(factor, part.float()) for factor, part in parts]
    return [(1, weight.double())]


def _largest_sum(weight: torch.Tensor) -> int:
    return LEVELS * int(weight.abs().flatten(1).sum(1).max()) if weight.numel() else 0
