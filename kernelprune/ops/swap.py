"""sparsify and densify: exchange the convolutions of a model, in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod

from kernelprune.errors import Error
from kernelprune.ops.module import SparseConv2d


def sparsify(
    model: nn.Module, *, below: float = 0.75, ignore: Iterable[str | type | nn.Module] = ()
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
        below: Only layers with a lower density, where a swap pays (see docs/OPERATORS.md); 1.0
            takes all that have been pruned, a number over 1 every layer.
        ignore: Names, types or modules to leave alone.

    Raises:
        Error: ``ignore`` names no module of the model; the model is TorchScript or made by
            torch.export, where a convolution is no layer; a convolution's weights have no values
            (lazy, meta) or are not float32 or float64.
    """
    _check_model(model)
    modules = dict(model.named_modules())
    items = [ignore] if isinstance(ignore, (str, type, nn.Module)) else list(ignore)
    for item in items:
        if isinstance(item, str) and item not in modules:
            raise Error(f"the model has no module {item!r}")
    left = [modules[item] if isinstance(item, str) else item for item in items]
    swapped: dict[nn.Module, Any] = {}
    for name, module in modules.items():
        ignored = any(
            isinstance(module, item) if isinstance(item, type) else module is item for item in left
        )
        if ignored or not isinstance(module, nn.Conv2d) or not _can_be_swapped(module, model):
            continue
        _check_weight(name, module)
        weight = module.weight.detach()
        if float(weight.flatten(2).ne(0).any(2).float().mean()) >= below:
            continue
        made = SparseConv2d.from_dense(module)
        twin = _sharing("weight", module, swapped)
        if twin is not None:
            made.weight, made.row_ptr, made.col = twin.weight, twin.row_ptr, twin.col
        twin = _sharing("bias", module, swapped)
        made.bias = made.bias if twin is None else twin.bias
        swapped[module] = made
    return _replace(model, swapped)


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise Error(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    for module in model.modules():
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise Error("the model has lazy layers without weights: call it once on an input first")
        scripted = isinstance(module, torch.jit.ScriptModule)
        exported = isinstance(module, torch.fx.GraphModule) and any(
            str(node.target).startswith("aten.conv") for node in module.graph.nodes
        )
        if scripted or exported:
            maker = "TorchScript (torch.jit)" if scripted else "what torch.export made"
            raise Error(
                f"the model is {maker}, in which convolutions are calls and no layers: give the "
                "torch.nn.Module that it was made from"
            )


def _check_weight(name: str, conv: nn.Conv2d) -> None:
    weight = conv.weight
    if weight.is_meta:
        raise Error(f"layer '{name}' has no weights: it lies on the meta device")
    if weight.layout != torch.strided:
        kind = str(weight.layout).removeprefix("torch.")
        raise Error(
            f"layer '{name}' has a sparse weight ({kind}): make it dense (to_dense()); its zeros "
            "become dropped connections"
        )
    if weight.dtype not in (torch.float32, torch.float64):
        kind = str(weight.dtype).removeprefix("torch.")
        raise Error(
            f"layer '{name}' has {kind} weights, and the kernels compute in float32: call "
            "model.float() first (under torch.autocast its inputs may be of half precision)"
        )


def densify(model: nn.Module) -> nn.Module:
    """The reverse of :func:`sparsify`: swaps each SparseConv2d for an nn.Conv2d with zeros where
    there is no connection, in place; returns the model."""
    swapped: dict[nn.Module, Any] = {}
    for module in model.modules():
        if isinstance(module, SparseConv2d):
            made = module.to_dense()
            for role in ("weight", "bias"):
                twin = _sharing(role, module, swapped)
                if twin is not None:
                    setattr(made, role, getattr(twin, role))
            swapped[module] = made
    return _replace(model, swapped)


def _sharing(role: str, module: nn.Module, swapped: dict[nn.Module, Any]) -> Any:
    """The new layer of one that has the same parameter in this role."""
    own = module._parameters.get(role)
    if own is None:
        return None
    return next((new for old, new in swapped.items() if old._parameters.get(role) is own), None)


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


def _replace(model: nn.Module, swapped: dict[nn.Module, Any]) -> nn.Module:
    if model in swapped:
        return swapped[model]
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in swapped:
                parent._modules[name] = swapped[child]
    return model
