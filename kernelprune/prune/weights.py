"""What a layer's weight is made of: whether it can be pruned, and if not, what to do about it.

A weight that is computed anew at every call (by a hook, or by somebody's parametrisation) forgets
whatever is written into it. Every method asks here before it touches a model.
"""

from __future__ import annotations

import copy
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import Error
from kernelprune.frontends.torch.accepted import check_module, check_weights

# Classes that hold the user's model, by name since some are expensive to import; and the way out.
_WRAPPERS = {
    "DataParallel": "prune its .module, and wrap it afterwards",
    "DistributedDataParallel": "prune its .module, and wrap it afterwards",
    "FullyShardedDataParallel": "prune the model before it is sharded",
    "FSDPModule": "prune the model before it is sharded",
    "OptimizedModule": "prune the model that was compiled (._orig_mod), and compile it afterwards",
}
# Hooks that make a weight, by the name of their class; and what takes them away.
_MAKERS = {
    "BasePruningMethod": "torch.nn.utils.prune.remove(layer, 'weight')",
    "WeightNorm": "torch.nn.utils.remove_weight_norm(layer)",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm(layer)",
}
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Masked(nn.Module):
    """A parametrisation of a weight ``[O, I/groups, kh, kw]`` that drops connections.

    ``dropped`` (buffer ``[O, I/groups]``) is 0 where a connection is kept and anything else where
    it is not. So an average of models (SWA, EMA) drops whatever one of them has dropped: 0 is the
    one number that every weighted mean of itself is exactly, and a truth value has no mean.
    """

    dropped: torch.Tensor

    def __init__(self, mask: torch.Tensor):
        super().__init__()
        self.register_buffer("dropped", mask.logical_not().float())

    @property
    def mask(self) -> torch.Tensor:
        """bool ``[O, I/groups]``: True where a connection is kept."""
        return self.dropped.eq(0)

    def keep(self, mask: torch.Tensor) -> None:
        """Drops what ``mask`` leaves out, and nothing else."""
        with torch.no_grad():
            self.dropped.copy_(mask.logical_not())

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        _rename_mask(state, prefix)
        super()._load_from_state_dict(state, prefix, *more)


def _rename_mask(state: dict[str, Any], prefix: str) -> None:
    """Earlier versions saved a truth value, ``mask``."""
    mask = state.pop(f"{prefix}mask", None)
    if mask is not None:
        state[f"{prefix}dropped"] = mask.logical_not().float()


_PLACE = ".parametrizations.weight.0."


def present_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict, whichever version saved it, with the names and types that masks have now."""
    state = dict(state)
    for name in [key for key in state if key.endswith(f"{_PLACE}mask")]:
        _rename_mask(state, name.removesuffix("mask"))
    return state


def masks_in(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """bool ``[O, I/groups]`` by layer, of the state dict of a model that holds masks."""
    return {
        name.removesuffix(f"{_PLACE}dropped"): dropped.eq(0)
        for name, dropped in present_names(state).items()
        if name.endswith(f"{_PLACE}dropped")
    }


def parametrisation(module: nn.Module, kind: type[nn.Module]) -> Any:
    """The parametrisation of type ``kind`` on the module's weight, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return next((p for p in module.parametrizations.weight if isinstance(p, kind)), None)  # type: ignore[union-attr, operator]


def raw_weight(module: nn.Module) -> torch.Tensor:
    """The trained tensor of a weight that may be masked."""
    held = parametrisation(module, Masked)
    weight = module.weight if held is None else module.parametrizations.weight.original  # type: ignore[union-attr]
    assert isinstance(weight, torch.Tensor)
    return weight


def kernels_of(weight: torch.Tensor) -> torch.Tensor:
    """A layer's weight as ``[O, I/groups, kh, kw]``: that of a linear layer has kernels of 1x1."""
    return weight[:, :, None, None] if weight.dim() == 2 else weight


def check_model(model: Any) -> None:
    """Raises Error unless ``model`` is a module of one's own that can be changed."""
    check_module(model)
    if torch.is_inference_mode_enabled():
        raise Error("pruning changes the model: call it outside of torch.inference_mode()")
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            if kind.__name__ in _WRAPPERS and kind.__module__.startswith("torch."):
                where = f"its module '{name}'" if name else "the model"
                raise Error(f"{where} is of class {kind.__name__}: {_WRAPPERS[kind.__name__]}")
    check_values(model)


def check_values(model: nn.Module) -> None:
    """Raises Error unless all tensors of the model hold values that can be changed."""
    check_weights(model)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_inference():
            raise Error(
                f"the model's '{name}' was made under torch.inference_mode and cannot change; make "
                "or load the model outside of it"
            )


def check_weight(name: str, module: nn.Module, *, masked: bool = False) -> None:
    """Raises Error unless the layer's weight is a parameter whose values can be changed in place;
    with ``masked`` it may have masks of ours. The message says what to do."""
    if parametrize.is_parametrized(module, "weight"):
        _check_parametrised(name, module, masked)
    elif module._parameters.get("weight") is None:
        _refuse_made(name, module)
    weight = raw_weight(module)
    why = None
    if weight.dtype not in _TYPES:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _TYPES)
        why = f"is {str(weight.dtype).removeprefix('torch.')}; it must be one of {kinds}"
    elif type(weight) not in (nn.Parameter, torch.Tensor):
        why = f"is a {type(weight).__name__}, not a plain parameter; give the model without it"
    if why is not None:
        raise Error(f"layer '{name}': its weight {why}")


def _check_parametrised(name: str, module: nn.Module, masked: bool) -> None:
    parts = list(module.parametrizations.weight)  # type: ignore[union-attr, arg-type]
    foreign = [part for part in parts if not isinstance(part, Masked)]
    if foreign:
        raise Error(
            f"layer '{name}': its weight is parametrised by {type(foreign[0]).__name__}, which "
            "makes it anew at every call; call torch.nn.utils.parametrize."
            "remove_parametrizations(layer, 'weight') first"
        )
    if not masked:
        raise Error(f"layer '{name}' is parametrised already; finalize that first")


def _refuse_made(name: str, module: nn.Module) -> NoReturn:
    for hook in module._forward_pre_hooks.values():
        makes = getattr(hook, "_tensor_name", getattr(hook, "name", None))
        for kind in type(hook).__mro__ if makes == "weight" else ():
            if kind.__name__ in _MAKERS:
                raise Error(
                    f"layer '{name}': its weight is made anew at every call, by "
                    f"{type(hook).__name__}; call {_MAKERS[kind.__name__]} first"
                )
    raise Error(f"layer '{name}': its weight is no parameter of it, so it cannot be pruned")


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy. Raises Error for a model that has none."""
    # What a hook has made of parameters, such as a normed weight, torch does not copy by itself.
    made = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    try:
        return copy.deepcopy(model, {id(value): value.detach().clone() for value in made})
    except Exception as error:  # whatever the model's parts raise
        raise Error(
            f"{type(model).__name__} cannot be copied (copy.deepcopy): {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
