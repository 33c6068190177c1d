"""The images that a network is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.prune.batches import Inputs, inputs

_BATCH = 32  # images that are computed at once


def batches_of(calibration: Any, model: nn.Module, samples: int) -> list[Inputs]:
    """At most ``samples`` images in batches of at most 32, on the CPU.

    ``calibration``: a tensor or array ``[N, ...]``, a tuple of them for a model of several inputs,
    or batches as ``prune.batches.inputs`` takes them, which may be arrays too.
    Raises Error when there is none, or something else.
    """
    found: list[Inputs] = []
    seen = 0
    for given in inputs(_loader(calibration), None, model):
        count = len(given[0]) if given[0].dim() else 0
        if count == 0 or any(x.dim() == 0 or len(x) != count for x in given):
            raise Error("calibration: a batch has no image, or its inputs have different numbers")
        used = tuple(x[: samples - seen].detach().cpu() for x in given)
        found += zip(*(x.split(_BATCH) for x in used), strict=True)
        seen += len(used[0])
        if seen >= samples:
            break
    if not found:
        raise Error("calibration: no images were given")
    for x in (x for batch in found for x in batch):
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise Error("calibration: the images hold NaN or infinite numbers")
    return found


def _loader(calibration: Any) -> Iterable[Any]:
    if isinstance(calibration, (torch.Tensor, np.ndarray)):
        return [_tensor(calibration)]
    if isinstance(calibration, tuple) and all(
        isinstance(x, (torch.Tensor, np.ndarray)) for x in calibration
    ):
        return [tuple(_tensor(x) for x in calibration)]
    if isinstance(calibration, (str, bytes, dict)) or not hasattr(calibration, "__iter__"):
        raise Error(
            f"calibration is a {type(calibration).__name__}: give images as a tensor, an array or "
            "an iterable of batches"
        )
    return _batches(calibration)


def _batches(calibration: Iterable[Any]) -> Iterator[Any]:
    for batch in calibration:
        yield type(batch)(map(_tensor, batch)) if type(batch) in (tuple, list) else _tensor(batch)


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
