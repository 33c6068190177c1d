"""Running data through a model: inputs of a loader, batch norm recalibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kernelprune.capture.trace import eval_mode
from kernelprune.errors import Error
from kernelprune.prune.checks import check_number
from kernelprune.prune.distributed import synchronised_norms


def device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_loader(loader: Any) -> None:
    if not hasattr(loader, "__iter__"):
        raise Error(f"the loader is a {type(loader).__name__}, not something that gives batches")


def inputs(
    loader: Iterable[Any], batches: int | None, device: torch.device
) -> Iterator[torch.Tensor]:
    """The input of each batch: the batch itself, or the first of a tuple or list."""
    if batches is not None:
        check_number("batches", batches, least=1, whole=True)
    check_loader(loader)
    for number, batch in enumerate(loader, 1):
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(x, torch.Tensor):
            raise Error(f"the loader gives {type(x).__name__}, not a tensor or a tuple with one")
        yield x.to(device)
        if number == batches:
            return


def recalibrate(model: nn.Module, loader: Iterable[Any], batches: int | None = None) -> nn.Module:
    """Measures the statistics of all batch norms anew, as plain means over the batches.

    Pruning shifts what arrives at a batch norm; a few hundred images set that right without any
    training. Nothing else changes: no weight, no mode, dropout is off. ``loader`` gives inputs
    ``[N, C, H, W]``, or tuples that start with the input; ``batches`` limits how many are used.
    Returns the model. Raises Error when the loader is empty.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    seen = 0
    with eval_mode(model), synchronised_norms(model), torch.no_grad():
        try:
            for x in inputs(loader, batches, device_of(model)):
                if not seen:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # torch's word for a plain mean
                        norm.training = True
                model(x)
                seen += 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if not seen:
        raise Error("recalibrate: the loader gave no batch")
    return model


def labelled(
    loader: Iterable[Any], samples: int | None, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of each batch, up to ``samples`` images (the last batch is cut).

    Raises Error when the loader gives something else, or nothing: it is read many times, so a
    generator will not do.
    """
    if samples is not None:
        check_number("samples", samples, least=1, whole=True)
    check_loader(loader)
    seen = 0
    for batch in loader:
        tensors = batch[:2] if isinstance(batch, (tuple, list)) else ()
        if len(tensors) < 2 or not all(isinstance(part, torch.Tensor) for part in tensors):
            raise Error("the loader must give (images, labels), both tensors")
        if len(batch[0]) == 0:
            raise Error("the loader gave a batch without images")
        images, labels = batch[0].to(device), batch[1].to(device)
        if samples is not None:
            images, labels = images[: samples - seen], labels[: samples - seen]
        seen += len(images)
        yield images, labels
        if samples is not None and seen >= samples:
            return
    if not seen:
        raise Error("the loader gave no batch; it is read many times, so a generator will not do")
