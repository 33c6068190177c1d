"""The models by name: ``create("resnet18", num_classes=10)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from kernelprune.errors import Error

Builder = Callable[..., nn.Module]

# What a model's output is for.
KINDS = ("classifier", "segmentation", "detection")


class _Entry(NamedTuple):
    builder: Builder
    kind: str


_MODELS: dict[str, _Entry] = {}


def register(name: str, kind: str = "classifier") -> Callable[[Builder], Builder]:
    """Decorator: enters ``builder(*, num_classes, in_channels, **options)`` under ``name``.

    Raises Error when the name is taken or the kind is none of ``KINDS``.
    """
    if kind not in KINDS:
        raise Error(f"model '{name}': its kind must be one of {', '.join(KINDS)}, not '{kind}'")

    def enter(builder: Builder) -> Builder:
        if name in _MODELS:
            raise Error(f"the model name '{name}' is taken; choose another")
        _MODELS[name] = _Entry(builder, kind)
        return builder

    return enter


def names(kind: str | None = None) -> list[str]:
    """The registered model names, sorted: of one of ``KINDS``, or all."""
    return sorted(name for name, entry in _MODELS.items() if kind in (None, entry.kind))


def kind_of(name: str) -> str:
    """``"classifier"``, ``"segmentation"`` or ``"detection"``. Raises Error for an unknown name."""
    return _entry(name).kind


def require_classifier(name: str, user: str) -> None:
    """Raises Error when the model is unknown, or is no classifier, which ``user`` needs."""
    kind = kind_of(name)
    if kind != "classifier":
        raise Error(
            f"model '{name}' is for {kind}, and {user} takes classifiers: "
            f"{', '.join(names('classifier'))}"
        )


def _entry(name: str) -> _Entry:
    entry = _MODELS.get(name)
    if entry is None:
        raise Error(f"unknown model '{name}'; there are: {', '.join(names())}")
    return entry


def create(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    seed: int | None = None,
    **options: Any,
) -> nn.Module:
    """A freshly initialised model for images ``[N, in_channels, H, W]``.

    A classifier gives ``[N, num_classes]``, a model for segmentation ``[N, num_classes, H, W]``,
    one for detection a dictionary of maps (see :class:`kernelprune.models.yolo.Yolo`).

    Start values depend on ``seed`` alone; with None they come from torch's global generator
    (``torch.manual_seed``). ``options`` go to the model: all take ``width`` (a factor on the
    channels); those for large images also ``stem="imagenet" | "cifar"``.
    Raises Error for an unknown name or option.
    """
    builder = _entry(name).builder
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
