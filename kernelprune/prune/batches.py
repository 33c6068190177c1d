"""Running data through a model: what a loader gives, losses, batch norm recalibration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import eval_mode
from kernelprune.prune.checks import check_number
from kernelprune.prune.distributed import synchronised_norms
from kernelprune.prune.targets import check_targets, first_of, map_tensors
from kernelprune.prune.weights import check_values, first_line

# What a model is called with: one tensor per input, images along axis 0.
Inputs = tuple[torch.Tensor, ...]
# loss(outputs, targets), one number: outputs as the model gives them, targets as the loader does.
Loss = Callable[[Any, Any], torch.Tensor]


def device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_loader(loader: Any, *, again: bool = False) -> None:
    """Raises Error unless ``loader`` can be iterated over; with ``again``, many times."""
    if not hasattr(loader, "__iter__"):
        raise Error(f"the loader is a {type(loader).__name__}, not something that gives batches")
    if again and isinstance(loader, Iterator):
        raise Error(
            f"the loader is a {type(loader).__name__}, which can be read once; it is read many "
            "times: give a list or a DataLoader"
        )


def compute(model: nn.Module, given: Inputs) -> Any:
    """What the model gives. Raises Error where it cannot compute such inputs."""
    try:
        return model(*given)
    except Error:
        raise
    except Exception as error:  # whatever the model or torch raises, the user sees one line
        raise Error(
            f"{type(model).__name__} cannot compute what the loader gives ({describe(given)}): "
            f"{first_line(error)}"
        ) from error


def loss_of(loss: Loss, outputs: Any, targets: Any) -> torch.Tensor:
    """``loss(outputs, targets)``, a number. Raises Error where the loss fails or is no number."""
    try:
        value = loss(outputs, targets)
    except Exception as error:  # the loss is the user's
        raise Error(
            f"the loss fails for outputs {describe(outputs)} and targets {describe(targets)}: "
            f"{first_line(error)}; say loss=, a function of (outputs, targets) that suits them"
        ) from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise Error(
            f"the loss gives {describe(value)}, not one number: take its mean over the batch"
        )
    if not value.requires_grad and torch.is_grad_enabled():
        raise Error("the loss does not depend on the model's weights: it has no gradient")
    return value.reshape(())


def differentiate(loss: torch.Tensor) -> None:
    """``loss.backward()``. Raises Error where the model does not let it."""
    try:
        loss.backward()
    except RuntimeError as error:
        raise Error(f"the loss cannot be differentiated: {first_line(error)}") from error


def describe(value: Any) -> str:
    """Shape and type, for messages."""
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if type(value) in (tuple, list):
        return ", ".join(describe(part) for part in value)
    if isinstance(value, dict) and value:
        parts = ", ".join(f"{key}: {describe(part)}" for key, part in value.items())
        return f"a {type(value).__name__} of {parts}"
    return f"a {type(value).__name__}"


def _tensors(value: Any) -> Inputs | None:
    """A tensor, or a tuple or list of them; None for anything else."""
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return parts if parts and all(isinstance(part, torch.Tensor) for part in parts) else None


def inputs(loader: Iterable[Any], batches: int | None, model: nn.Module) -> Iterator[Inputs]:
    """The inputs of each batch: the batch itself, or the first of a tuple or list; a model that
    takes n inputs gets the first n, or the n that a first one which is itself a tuple holds."""
    if batches is not None:
        check_number("batches", batches, least=1, whole=True)
    check_loader(loader)
    required, device = _required_inputs(model), device_of(model)
    for number, batch in enumerate(loader, 1):
        given = batch
        if isinstance(batch, (tuple, list)) and batch:
            single = required == 1 or not isinstance(batch[0], torch.Tensor)
            given = batch[0] if single else batch[:required]
        found = _tensors(given)
        if found is None:
            raise Error(
                f"the loader gives {type(given).__name__}, not a tensor or a tuple with one"
            )
        yield tuple(x.to(device) for x in found)
        if number == batches:
            return


def _required_inputs(model: nn.Module) -> int:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except ValueError:  # TorchScript's have none
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty
    ]
    return max(len(needed), 1)


def recalibrate(model: nn.Module, loader: Iterable[Any], batches: int | None = None) -> nn.Module:
    """Measures the statistics of all batch norms anew, as plain means over the batches.

    Pruning shifts what arrives at a batch norm; a few hundred images set that right without any
    training. Nothing else changes: no weight, no mode, dropout is off. ``loader`` gives inputs
    ``[N, C, H, W]``, or tuples that start with the input (a model of several inputs takes that
    many); ``batches`` limits how many are used. Returns the model.
    Raises Error when the loader is empty or gives what the model cannot compute, and when the
    statistics come out not finite; they are then as before.
    """
    check_values(model)
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    before = [{key: value.clone() for key, value in norm.named_buffers()} for norm in norms]
    seen = 0
    with eval_mode(model), synchronised_norms(model), torch.no_grad():
        try:
            for given in inputs(loader, batches, model):
                if not seen:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # torch's word for a plain mean
                        norm.training = True
                compute(model, given)
                seen += 1
            _check_statistics(norms, seen)
        except BaseException:
            for norm, values in zip(norms, before, strict=True):
                for key, value in norm.named_buffers():
                    value.copy_(values[key])
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return model


def _check_statistics(norms: list[_BatchNorm], seen: int) -> None:
    if not seen:
        raise Error("recalibrate: the loader gave no batch")
    for norm in norms:
        if not all(bool(torch.isfinite(value).all()) for value in norm.buffers()):
            raise Error("recalibrate: the statistics are not finite; are there NaN in the images?")


def labelled(
    loader: Iterable[Any], samples: int | None, device: torch.device, *, needed: bool = True
) -> Iterator[tuple[Inputs, Any]]:
    """Inputs and targets of each batch, up to ``samples`` images (the last batch is cut).

    A batch is ``(images, targets)``, anything after that is not looked at; in the place of the
    images a model of several inputs has a tuple of them. Targets are labels, or whatever the loss
    takes: tensors, or tuples, lists and dictionaries of them. Unless ``needed``, a batch may also
    be the images alone, and targets are None.
    Raises Error when the loader gives something else, or nothing.
    """
    if samples is not None:
        check_number("samples", samples, least=1, whole=True)
    check_loader(loader)
    seen = 0
    for batch in loader:
        images, targets = _parts(batch, needed)
        count = len(images[0])
        if samples is not None and samples - seen < count:
            targets = first_of(targets, samples - seen, count)
            images = tuple(x[: samples - seen] for x in images)
        seen += len(images[0])
        yield (
            tuple(x.to(device) for x in images),
            map_tensors(lambda tensor: tensor.to(device), targets),
        )
        if samples is not None and seen >= samples:
            return
    if not seen:
        raise Error("the loader gave no batch")


def _parts(batch: Any, needed: bool) -> tuple[Inputs, Any]:
    pair = isinstance(batch, (tuple, list)) and len(batch) > 1
    images = _tensors(batch[0] if pair else batch)
    if images is None or (needed and not pair):
        raise Error(
            "the loader must give (images, targets), such as (images, labels), not "
            f"{describe(batch)}"
        )
    if any(x.dim() == 0 for x in images):
        raise Error(f"the loader gives {describe(batch)}: images need an axis for the batch")
    count = len(images[0])
    if count == 0 or any(len(x) != count for x in images):
        raise Error(
            f"the loader gave inputs of {', '.join(str(len(x)) for x in images)} images"
            if count
            else "the loader gave a batch without images"
        )
    if not needed:
        return images, None
    check_targets(batch[1], count)
    return images, batch[1]
