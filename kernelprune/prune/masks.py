"""Masks that hold pruned connections at zero while a model trains on.

A mask is a parametrisation: the layer computes with ``raw * mask``, whatever an optimiser does to
``raw`` (momentum, weight decay). The mask is a buffer, so it is part of the state dict;
``finalize_masks`` leaves a plain model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import Error, FormatError, ShapeError
from kernelprune.files import name_of, opened, write_bytes
from kernelprune.prune.strength import Strength
from kernelprune.prune.weights import (
    Masked,
    check_values,
    check_weight,
    parametrisation,
    raw_weight,
)

_MASKS = "kernelprune-masks"


class Mask(Masked):
    """Parametrisation ``[O, I/groups, kh, kw] -> same``: zero where a connection is dropped."""

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw * self.mask.view(*self.dropped.shape, *[1] * (raw.dim() - 2))


def _layer(model: nn.Module, name: str, mask: torch.Tensor) -> nn.Module:
    try:
        module = model.get_submodule(name)
        weight = module.weight
    except AttributeError as error:
        raise Error(f"mask for '{name}': the model has no such layer") from error
    if isinstance(weight, torch.Tensor):
        check_weight(name, module, masked=True)
    if not isinstance(weight, torch.Tensor) or mask.shape != weight.shape[:2]:
        have = list(weight.shape[:2]) if isinstance(weight, torch.Tensor) else "no weight"
        raise ShapeError(f"mask for '{name}' has shape {list(mask.shape)}, the layer {have}")
    return module


def apply_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Sets the weights of dropped connections to zero, once: training may revive them.

    ``masks``: bool ``[O, I/groups]`` by the layer's name, True where a connection is kept. Under
    Synaptic Strength the strengths become zero, so this also prunes a copy of such a model.
    Raises Error for an unknown layer or a weight that cannot be pruned and ShapeError for a mask of
    the wrong shape; then nothing has changed.
    """
    check_values(model)
    found = []
    for name, mask in masks.items():
        module = _layer(model, name, mask)
        weight, own = raw_weight(module), mask.to(raw_weight(module).device, torch.bool)
        strength = parametrisation(module, Strength)
        if strength is not None:
            weight, own = strength.strength, strength.whole_groups(own)
        found.append((weight, own))
    for weight, own in found:
        with torch.no_grad():
            weight.masked_fill_(~own.view(*own.shape, *[1] * (weight.dim() - 2)), 0)


def attach_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Zeroes dropped connections and holds them at zero until ``finalize_masks``.

    Attach before you build the optimiser: the trained parameter is then
    ``<layer>.parametrizations.weight.original``. A layer that has a mask gets the new one.
    Raises as ``apply_masks``.
    """
    apply_masks(model, masks)
    for name, mask in masks.items():
        module = model.get_submodule(name)
        held = parametrisation(module, Masked)
        if held is not None:
            (held.prune if isinstance(held, Strength) else held.keep)(mask)
            continue
        own = mask.detach().to(raw_weight(module).device, torch.bool)
        parametrize.register_parametrization(module, "weight", Mask(own))


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """All masks that the model holds, also those of Synaptic Strength, by layer."""
    found = {name: parametrisation(module, Masked) for name, module in model.named_modules()}
    return {name: held.mask for name, held in found.items() if held is not None}


def finalize_masks(model: nn.Module) -> nn.Module:
    """Removes all masks and strengths that the model holds; the zeroed weights stay, and so does
    the function. Returns the same model.

    For a copy of a model under Synaptic Strength too, such as a moving average of it; the
    ``SynapticStrength`` of that very model is of no more use.
    """
    for module in list(model.modules()):
        if parametrisation(module, Masked) is not None:
            make_plain(module)
    return model


def make_plain(module: nn.Module) -> None:
    """Replaces the parametrised weight by its present value, dropped connections exactly +0.

    The module's class, parameter names and their order are then those it had at first.
    """
    held = parametrisation(module, Masked)
    mask = held.mask
    if isinstance(held, Strength):
        held.let_go()
    trains = any(p.requires_grad for p in module.parametrizations.weight.parameters())  # type: ignore[union-attr]
    _remove(module, keep_value=True)
    with torch.no_grad():
        weight = raw_weight(module)
        weight.masked_fill_(~mask.view(*mask.shape, *[1] * (weight.dim() - 2)), 0)
    weight.requires_grad_(trains)


def remove_parametrisation(module: nn.Module, kind: type[nn.Module]) -> None:
    """Takes the parametrisation of this type off the module's weight, and no other."""
    parts: Any = module.parametrizations.weight  # type: ignore[union-attr]
    if all(isinstance(part, kind) for part in parts):
        _remove(module, keep_value=False)
        return
    for place in reversed(range(len(parts))):
        if isinstance(parts[place], kind):
            del parts[place]


def _remove(module: nn.Module, *, keep_value: bool) -> None:
    """Removes the parametrisation: the weight is its value, or the raw tensor; and it is the
    first parameter again."""
    # torch keeps the property "weight" in a class that copies of the module share, and deletes it
    # there: the copies would have no weight any more. So the module gets a class to itself.
    shared = type(module)
    own = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, own)
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=keep_value)
    others = {key: value for key, value in module._parameters.items() if key != "weight"}
    weight = module._parameters["weight"]
    module._parameters.clear()
    module._parameters.update({"weight": weight, **others})


@contextmanager
def unchanged_on_failure(*models: nn.Module) -> Iterator[None]:
    """When the block fails, the models are bit for bit as they were: weights, statistics, flags,
    and without the masks and strengths that the block attached."""
    modules = [module for model in models for module in model.modules()]
    parametrised = {module for module in modules if parametrize.is_parametrized(module)}
    before = [
        (tensor, tensor.detach().clone(), tensor.requires_grad, tensor.grad)
        for model in models
        for tensor in [*model.parameters(), *model.buffers()]
    ]
    try:
        yield
    except BaseException:
        for module in modules:
            held = parametrisation(module, Masked)
            if held is None or module in parametrised:
                continue
            if isinstance(held, Strength):
                held.let_go()
            _remove(module, keep_value=False)
        with torch.no_grad():
            for tensor, values, trained, gradient in before:
                tensor.copy_(values)
                tensor.requires_grad_(trained)
                tensor.grad = gradient
        raise


def save_masks(masks: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Writes masks to a safetensors file, whole or not at all. Raises Error when it cannot."""
    from safetensors.torch import save

    # Copies: safetensors refuses tensors that share memory, such as the masks of tied layers.
    tensors = {n: m.detach().cpu().to(torch.uint8, copy=True) for n, m in masks.items()}
    content = save({n: m.contiguous() for n, m in tensors.items()}, {"format": _MASKS})
    write_bytes(path, content, "the masks")


def load_masks(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Masks that ``save_masks`` wrote. Raises Error when there is no such file, FormatError when it
    is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with opened(path), safe_open(name_of(path), "pt") as file:
            if (file.metadata() or {}).get("format") != _MASKS:
                raise FormatError(f"{path}: not a file of masks")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from error
    if any(tensor.dtype != torch.uint8 or tensor.dim() != 2 for tensor in tensors.values()):
        raise FormatError(f"{path}: a mask must be u8 [O, I/groups]")
    return {name: tensor.ne(0) for name, tensor in tensors.items()}
