"""Masks that hold pruned connections at zero while a model trains on.

A mask is a parametrisation: the layer computes with ``raw * mask``, whatever an optimiser does to
``raw`` (momentum, weight decay). The mask is a buffer, so it is part of the state dict;
``finalize_masks`` leaves a plain model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import Error, FormatError, ShapeError
from kernelprune.files import name_of, opened, write_bytes

_MASKS = "kernelprune-masks"


class Mask(nn.Module):
    """Parametrisation ``[O, I/groups, kh, kw] -> same``: zero where ``mask`` [O, I/groups] is."""

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw * self.mask.view(*self.mask.shape, *[1] * (raw.dim() - 2))


def parametrisation(module: nn.Module, kind: type[nn.Module]) -> Any:
    """The parametrisation of type ``kind`` on the module's weight, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return next((p for p in module.parametrizations.weight if isinstance(p, kind)), None)  # type: ignore[union-attr, operator]


def _weight_of(model: nn.Module, name: str, mask: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    try:
        module = model.get_submodule(name)
        weight = module.weight
    except AttributeError as error:
        raise Error(f"mask for '{name}': the model has no such layer") from error
    if not isinstance(weight, torch.Tensor) or mask.shape != weight.shape[:2]:
        have = list(weight.shape[:2]) if isinstance(weight, torch.Tensor) else "no weight"
        raise ShapeError(f"mask for '{name}' has shape {list(mask.shape)}, the layer {have}")
    return module, weight


def apply_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Sets the weights of dropped connections to zero, once: training may revive them.

    ``masks``: bool ``[O, I/groups]`` by the layer's name, True where a connection is kept.
    Raises Error for an unknown layer and ShapeError for a mask of the wrong shape.
    """
    for name, mask in masks.items():
        module, weight = _weight_of(model, name, mask)
        if parametrize.is_parametrized(module, "weight"):
            if parametrisation(module, Mask) is None:
                raise Error(f"layer '{name}': its weight is parametrised; finalize that first")
            weight = module.parametrizations.weight.original  # type: ignore[union-attr, assignment]
        with torch.no_grad():
            dropped = ~mask.to(weight.device, torch.bool)
            weight.masked_fill_(dropped.view(*mask.shape, *[1] * (weight.dim() - 2)), 0)


def attach_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Zeroes dropped connections and holds them at zero until ``finalize_masks``.

    Attach before you build the optimiser: the trained parameter is then
    ``<layer>.parametrizations.weight.original``. A layer that has a mask gets the new one.
    Raises as ``apply_masks``.
    """
    apply_masks(model, masks)
    for name, mask in masks.items():
        module = model.get_submodule(name)
        held = parametrisation(module, Mask)
        if held is not None:
            held.mask.copy_(mask)
            continue
        weight = _weight_of(model, name, mask)[1]
        own = mask.detach().to(weight.device, torch.bool).clone()
        parametrize.register_parametrization(module, "weight", Mask(own))


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all masks that the model holds, also those of Synaptic Strength, by layer."""
    found = {}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for held in module.parametrizations.weight:  # type: ignore[union-attr, operator]
                mask = getattr(held, "mask", None)
                if isinstance(mask, torch.Tensor):
                    found[name] = mask.clone()
    return found


def make_plain(module: nn.Module) -> None:
    """Replaces the parametrised weight by its present value, dropped connections exactly +0.

    The module's class, parameter names and their order are then those it had at first.
    """
    mask = next(p.mask for p in module.parametrizations.weight if hasattr(p, "mask"))  # type: ignore[union-attr, operator]
    trains = any(p.requires_grad for p in module.parametrizations.weight.parameters())  # type: ignore[union-attr]
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        weight.masked_fill_(~mask.view(*mask.shape, *[1] * (weight.dim() - 2)), 0)
    weight.requires_grad_(trains)
    others = {key: value for key, value in module._parameters.items() if key != "weight"}
    module._parameters.clear()
    module._parameters.update({"weight": weight, **others})


def finalize_masks(model: nn.Module) -> nn.Module:
    """Removes all attached masks; the zeroed weights stay. Returns the same model."""
    for module in list(model.modules()):
        if parametrisation(module, Mask) is not None:
            make_plain(module)
    return model


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
