"""The models by name: ``create("resnet18", num_classes=10)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error

Builder = Callable[..., nn.Module]

_BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator: enters ``builder(*, num_classes, in_channels, **options)`` under ``name``.

    Raises Error when the name is taken.
    """

    def enter(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise Error(f"the model name '{name}' is taken; choose another")
        _BUILDERS[name] = builder
        return builder

    return enter


def names() -> list[str]:
    """The registered model names, sorted."""
    return sorted(_BUILDERS)


def create(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    seed: int | None = None,
    **options: Any,
) -> nn.Module:
    """A freshly initialised model that maps ``[N, in_channels, H, W]`` to ``[N, num_classes]``.

    Start values depend on ``seed`` alone; with None they come from torch's global generator
    (``torch.manual_seed``). ``options`` go to the model: all take ``width`` (a factor on the
    channels); ResNet-18 and 50, MobileNets and Inception also ``stem="imagenet" | "cifar"``.
    Raises Error for an unknown name or option.
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        raise Error(f"unknown model '{name}'; there are: {', '.join(names())}")
    if num_classes < 1 or in_channels < 1:
        raise Error(f"model '{name}': num_classes and in_channels must be at least 1")
    try:
        if seed is None:
            return builder(num_classes=num_classes, in_channels=in_channels, **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return builder(num_classes=num_classes, in_channels=in_channels, **options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].split("() ")[-1]
        raise Error(f"model '{name}': {reason}") from error
