"""Fine-tuning towards the dense network: it teaches, and labels are used where there are some.

The network computes as it will run: batch norms keep their statistics, nothing is dropped out. So
a small loader, or one without labels, does no harm to what reconstruction has measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.errors import Error
from kernelprune.frontends.torch.calling import call
from kernelprune.prune.batches import Inputs, check_loader, differentiate, inputs
from kernelprune.prune.progress import Progress
from kernelprune.prune.targets import tensors_of

_MOMENTUM = 0.9
_SOFTNESS = 2.0  # of the teacher's scores
_LABELS = 0.3  # what the labels count for, where there are some
_NORM = 1.0  # gradients are cut to it


def distill(
    model: nn.Module,
    teacher: nn.Module,
    loader: Iterable[Any],
    parameters: Iterable[Any],
    *,
    epochs: float,
    learning_rate: float,
    tell: Progress,
) -> None:
    """Trains ``model`` in place. ``loader`` gives batches of images, or of images and labels
    ``[N]``, and is read anew for each epoch. ``parameters``: for the optimiser; the learning rate
    falls to zero as a cosine. Raises Error for a loader that gives nothing or something else, and
    when the training diverges."""
    optimiser = torch.optim.SGD(parameters, learning_rate, momentum=_MOMENTUM)
    model.eval()
    weights = [p for group in optimiser.param_groups for p in group["params"]]
    known = _count(loader)
    last = max(1, math.ceil(epochs * known))
    for step, (given, labels) in enumerate(_batches(loader, model, last)):
        tell("fine-tuning", step / last)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / last))
        with torch.no_grad():
            taught = list(tensors_of(call(teacher, given)))
        loss = _loss(list(tensors_of(call(model, given))), taught, labels)
        if not bool(torch.isfinite(loss)):
            raise Error(
                f"fine-tuning diverges at step {step} of {last}: lower learning_rate="
                f"{learning_rate:g}"
            )
        optimiser.zero_grad()
        differentiate(loss)
        nn.utils.clip_grad_norm_(weights, _NORM)
        optimiser.step()


def _count(loader: Iterable[Any]) -> int:
    """Batches of an epoch."""
    check_loader(loader, again=True)
    try:
        known = len(loader)  # type: ignore[arg-type]
    except TypeError:
        known = sum(1 for _ in loader)
    if known == 0:
        raise Error("fine_tune: the loader gave no batch")
    return known


def _batches(
    loader: Iterable[Any], model: nn.Module, count: int
) -> Iterator[tuple[Inputs, torch.Tensor | None]]:
    """So many, from the beginning again where the loader ends."""
    done = 0
    while done < count:
        before = done
        for batch in loader:
            given = next(inputs([batch], None, model))
            yield given, _labels(batch, given)
            done += 1
            if done == count:
                return
        if done == before:
            raise Error("fine_tune: the loader gave no batch")


def _labels(batch: Any, given: Inputs) -> torch.Tensor | None:
    """The last of a batch, if that is a whole number for each image."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        return None
    last = batch[-1]
    whole = isinstance(last, torch.Tensor) and last.dtype in (torch.int64, torch.int32)
    if not whole or last.shape != (len(given[0]),):
        return None
    return last.long().to(given[0].device)


def _loss(
    outputs: list[torch.Tensor], taught: list[torch.Tensor], labels: torch.Tensor | None
) -> torch.Tensor:
    """Of scores the cross entropy to the teacher's softened ones; of anything else the squared
    distance in parts of the teacher's variance."""
    parts = [_distance(one.float(), two.float()) for one, two in zip(outputs, taught, strict=True)]
    found = torch.stack(parts).mean()
    scores = outputs[0]
    if labels is None or len(outputs) > 1 or scores.dim() != 2 or scores.shape[1] < 2:
        return found
    return (1 - _LABELS) * found + _LABELS * functional.cross_entropy(scores.float(), labels)


def _distance(output: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    centred = taught - taught.mean(0, keepdim=True)
    apart = (output - taught).square().mean() / centred.square().mean().clamp_min(1e-12)
    if taught.dim() != 2 or taught.shape[1] < 2:
        return apart
    if bool((taught >= 0).all()) and bool((taught.sum(1) - 1).abs().max() < 1e-3):
        return apart  # probabilities already
    wanted = functional.log_softmax(taught / _SOFTNESS, 1)
    own = functional.log_softmax(output / _SOFTNESS, 1)
    divergence = functional.kl_div(own, wanted, reduction="batchmean", log_target=True)
    return divergence * _SOFTNESS**2 + apart
