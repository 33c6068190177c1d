"""sparsify and densify: exchange the convolutions of a model, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod

from kernelprune.errors import Error
from kernelprune.ops.module import SparseConv2d


def sparsify(
    model: nn.Module, *, below: float = 0.5, ignore: Iterable[str | type | nn.Module] = ()
) -> nn.Module:
    """Swaps the convolutions of ``model`` for :class:`SparseConv2d`, in place; returns the model
    (or the new layer, if the model is a convolution itself).

    What is no kept connection of a layer is gone: prune first. Swapped are Conv2d layers, also
    masked by torch.nn.utils.prune or parametrized, whose density is below ``below``. Others stay as
    they are: those that pad with anything but zeros or by a kernel's size or more, transposed
    ones, subclasses of Conv2d, layers with hooks, layers that share their weight with a layer of
    another kind. What is shared, a module or a weight, stays shared. Parameters are new, so make
    the optimizer afterwards.

    Args:
        model: An eager model, in any mode, on any device.
        below: Only layers with a lower density; 1.0 takes all that have been pruned, a number over
            1 every layer.
        ignore: Names, types or modules to leave alone.

    Raises:
        Error: ``ignore`` names no module of the model.
    """
    modules = dict(model.named_modules())
    items = [ignore] if isinstance(ignore, (str, type, nn.Module)) else list(ignore)
    for item in items:
        if isinstance(item, str) and item not in modules:
            raise Error(f"the model has no module {item!r}")
    left = [modules[item] if isinstance(item, str) else item for item in items]
    swapped: dict[nn.Module, nn.Module] = {}
    by_weight: dict[int, SparseConv2d] = {}
    for module in modules.values():
        ignored = any(
            isinstance(module, item) if isinstance(item, type) else module is item for item in left
        )
        if ignored or not isinstance(module, nn.Conv2d) or not _can_be_swapped(module, model):
            continue
        weight = module.weight.detach()
        if float(weight.flatten(2).ne(0).any(2).float().mean()) >= below:
            continue
        made = SparseConv2d.from_dense(module)
        if "weight" in module._parameters:
            first = by_weight.setdefault(id(module.weight), made)
            made.weight, made.row_ptr, made.col = first.weight, first.row_ptr, first.col
        if made.bias is not None and module.bias is not None:
            made.bias = _shared_bias(module, swapped) or made.bias
        swapped[module] = made
    return _replace(model, swapped)


def densify(model: nn.Module) -> nn.Module:
    """The reverse of :func:`sparsify`: swaps each SparseConv2d for an nn.Conv2d with zeros where
    there is no connection, in place; returns the model."""
    swapped: dict[nn.Module, nn.Module] = {}
    by_weight: dict[int, nn.Conv2d] = {}
    for module in model.modules():
        if isinstance(module, SparseConv2d):
            made = module.to_dense()
            made.weight = by_weight.setdefault(id(module.weight), made).weight
            made.bias = _shared_bias(module, swapped) or made.bias
            swapped[module] = made
    return _replace(model, swapped)


def _shared_bias(module: Any, swapped: dict[nn.Module, Any]) -> nn.Parameter | None:
    """The new bias of a layer that had the same one."""
    if module.bias is None:
        return None
    return next((new.bias for old, new in swapped.items() if old.bias is module.bias), None)


def _can_be_swapped(conv: nn.Conv2d, model: nn.Module) -> bool:
    kind = type(conv).__mro__[1] if parametrize.is_parametrized(conv) else type(conv)
    hooks = (*conv._forward_hooks.values(), *conv._forward_pre_hooks.values(),
             *conv._backward_hooks.values())  # fmt: skip
    if kind is not nn.Conv2d or any(not isinstance(hook, BasePruningMethod) for hook in hooks):
        return False
    if conv.padding_mode != "zeros":
        return False
    if not isinstance(conv.padding, str):
        extents = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        if any(pad >= extent for pad, extent in zip(conv.padding, extents, strict=True)):
            return False
    own = conv._parameters.get("weight")
    return own is None or all(
        type(other) is nn.Conv2d
        for other in model.modules()
        if any(parameter is own for parameter in other._parameters.values())
    )


def _replace(model: nn.Module, swapped: dict[nn.Module, nn.Module]) -> nn.Module:
    if model in swapped:
        return swapped[model]
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in swapped:
                parent._modules[name] = swapped[child]
    return model
