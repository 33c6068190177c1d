"""Bytes in training: numbers are rounded as the engine will round them, and gradients pass as if
they were not (the straight-through estimator)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kernelprune.graph.quantization import LEVELS, MAX_SCALE, MAX_WEIGHT, MIN_SCALE, Quantization

# A trace is of the network in float32. (torch 2.6 has the wider question alone.)
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _rounded(steps: torch.Tensor) -> torch.Tensor:
    return steps + (torch.round(steps) - steps).detach()


class FakeWeight(nn.Module):
    """Parametrisation of a weight ``[O, ...]``: signed bytes with one scale for each output channel
    (one for all, unless ``per_channel``). A batch norm behind the layer folds into that scale, so
    the integers are those of the folded weight. Behind masks and strengths: zeros stay zeros."""

    def __init__(self, per_channel: bool = True):
        super().__init__()
        self.per_channel = per_channel

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if _is_exporting():
            return weight
        axes = tuple(range(1 if self.per_channel else 0, weight.dim()))
        scale = weight.detach().abs().amax(axes, keepdim=True) / MAX_WEIGHT
        scale = torch.where(scale > 0, scale, 1.0)
        return _rounded(weight / scale) * scale


class FakeBytes(nn.Module):
    """Rounds activations to bytes with a scale of ``measured * exp(growth)``; the zero point stays.

    The gradient is that of Esser et al., "Learned step size quantization", ICLR 2020 (arXiv
    1902.08153), here for the logarithm of the scale: ``growth`` (parameter) trains at the pace of a
    batch norm's scale, and weight decay pulls it towards what was measured.
    """

    measured: torch.Tensor

    def __init__(self, quantization: Quantization):
        super().__init__()
        self.register_buffer("measured", torch.tensor(quantization.scale))
        self.growth = nn.Parameter(torch.zeros(()))
        self.zero_point = quantization.zero_point

    def scale(self) -> torch.Tensor:
        return (self.measured * self.growth.exp()).clamp(MIN_SCALE, MAX_SCALE)

    def quantization(self) -> Quantization:
        return Quantization(float(self.scale().detach()), self.zero_point)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        if _is_exporting():
            return numbers
        scale = self.scale()
        steps = (numbers / scale).clamp(-self.zero_point, LEVELS - self.zero_point)
        return (_rounded(steps) * scale).to(numbers.dtype)

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """As a hook: of the first input of a module."""
        return self(inputs[0]), *inputs[1:]
