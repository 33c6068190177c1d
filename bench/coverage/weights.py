"""Weights with which every branch of an untrained network counts.

Fresh networks hide mistakes. Residual branches end in a scale of zero or 1e-6, batch norms know no
statistics, and without them the numbers vanish or explode over fifty layers: whatever a branch then
computes, the output is the same. Here no such scale is left, each layer's results spread by about
one, and the batch norms have seen images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from bench.coverage.families import Shape

_SCALED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
# Images that the batch norms take their statistics from.
_SEEN = 8
_TINY = 1e-3
# Of what a layer gives, the share that must differ from place to place and image to image before it
# is enlarged: more would enlarge rounding with it.
_LEAST_SHARE = 0.05


def images(count: int, shape: Shape, seed: int) -> torch.Tensor:
    """Pictures ``[count, *shape]`` of one brightness that differ in colour, patches and grain.

    Noise alone would not do: averaged over a map it is the same for every image. Brighter ones than
    those that the batch norms have seen would grow from layer to layer.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*sides: int) -> torch.Tensor:
        return torch.randn(count, shape[0], *sides, generator=generator)

    if len(shape) != 3:
        return normal(*shape[1:])
    patches = functional.interpolate(
        normal(4, 4), size=shape[1:], mode="bilinear", align_corners=False
    )
    found = 0.7 * normal(1, 1) + patches + 0.5 * normal(*shape[1:])
    return found / found.square().mean((1, 2, 3), keepdim=True).sqrt()


def make_plausible(model: nn.Module, shape: Shape, seed: int = 0, gain: float = 1.0) -> None:
    """Changes the weights of ``model`` in place; leaves it in eval mode. ``gain``: of the weights
    of norms. With smaller ones a deep network enlarges rounding less."""
    generator = torch.Generator().manual_seed(seed)
    model.eval().requires_grad_(False)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            _randomise(module, name, parameter, generator)
            if isinstance(module, _NORMS) and name == "weight":
                parameter.mul_(gain)
    x = images(_SEEN, shape, seed + 1)
    with torch.no_grad(), _norms_that_learn(model):
        with _scaled_layers(model):
            model(x.clone())
        model(x.clone())


def settle_norms(model: nn.Module, shape: Shape, seed: int = 0) -> None:
    """Gives the batch norms of ``model`` the statistics of its present weights."""
    with torch.no_grad(), _norms_that_learn(model):
        model(images(_SEEN, shape, seed + 1))


def _randomise(
    module: nn.Module, name: str, parameter: nn.Parameter, generator: torch.Generator
) -> None:
    """Start values that are all alike (0, 1, 1e-6) become random ones of a plausible size, and so
    do the weights of norms: some packages start them near zero."""
    if parameter.numel() == 0 or not parameter.is_floating_point():
        return
    low, high = float(parameter.min()), float(parameter.max())
    normal = torch.randn(parameter.shape, generator=generator)
    factor = 0.5 + torch.rand(parameter.shape, generator=generator)
    if isinstance(module, _NORMS) and name == "weight":
        parameter.data.copy_(factor)
    elif high - low > _TINY:
        return
    elif "bias" in name or name in ("beta", "shift"):
        parameter.data.copy_(0.2 * normal)
    elif parameter.numel() == 1:
        if abs(high) < _TINY:
            parameter.data.fill_(0.5)
    elif isinstance(module, _SCALED):
        parameter.data.copy_(normal / max(1, parameter[0].numel()) ** 0.5)
    elif parameter.numel() == max(parameter.shape):  # one factor a channel
        parameter.data.copy_(factor * (1.0 if abs(high) < _TINY else high))
    elif abs(high) < _TINY:  # a table of positions
        parameter.data.copy_(0.2 * normal)


@contextmanager
def _norms_that_learn(model: nn.Module) -> Iterator[None]:
    """Batch norms in training mode that take over the statistics of each batch as they are."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    kept = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 1.0
        module.train()
    try:
        yield
    finally:
        for module, momentum in zip(norms, kept, strict=True):
            module.momentum = momentum
            module.eval()


@contextmanager
def _scaled_layers(model: nn.Module) -> Iterator[None]:
    """While the model runs, every convolution and linear layer gets weights whose results spread by
    about one, and a bias that takes the mean out of each channel, from the first to the last."""
    seen: set[int] = set()

    def scale(module: nn.Module, inputs: tuple, result: torch.Tensor) -> torch.Tensor | None:
        weight, bias = module.weight, module.bias
        if id(weight) in seen or not isinstance(weight, nn.Parameter):
            return None
        seen.add(id(weight))
        axis = result.ndim - 1 if isinstance(module, nn.Linear) else 1
        sides = [-1 if position == axis else 1 for position in range(result.ndim)]
        others = [position for position in range(result.ndim) if position != axis]
        shift = torch.zeros(()) if bias is None else bias.reshape(sides)
        plain = result - shift
        mean = torch.zeros(()) if bias is None else plain.mean(others, keepdim=True)
        spread = max(
            float((plain - mean).square().mean().sqrt()),
            _LEAST_SHARE * float(plain.square().mean().sqrt()),
        )
        if not 1e-20 < spread < 1e20:
            return None
        weight.data.mul_(1.0 / spread)
        if bias is not None:
            bias.data.sub_(mean.flatten() / spread)
        return (plain - mean) / spread + shift

    # What is derived from these classes may compute its weights.
    forwards = {kind.forward for kind in _SCALED}
    hooks = [
        module.register_forward_hook(scale)
        for module in model.modules()
        if isinstance(module, _SCALED) and type(module).forward in forwards
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
