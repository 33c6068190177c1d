"""load_pruned: the state dict of a pruned model into a fresh model, whose layers are larger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from kernelprune.errors import Error
from kernelprune.frontends.torch.export import run
from kernelprune.graph.ops.layer import whole_groups
from kernelprune.ops import SparseConv2d
from kernelprune.prune.masks import Mask
from kernelprune.prune.weights import check_model, check_weight, copy_of, first_line, present_names

State = Mapping[str, torch.Tensor]

# What wrappers put in front of every name: DataParallel, DistributedDataParallel and AveragedModel;
# torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
_COUNTS = ("n_averaged",)  # of AveragedModel
_PLACE = "parametrizations.weight."


def load_pruned(
    model: nn.Module,
    state: State,
    x: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
) -> nn.Module:
    """A copy of ``model`` with the structure and the weights of a pruned one, whose
    ``state_dict()`` is ``state``.

    ``model``: as it was before pruning, of any weights. ``state`` may be that of a model

    - that was made ``compact``: layers get the shapes of its tensors, and biases where ``compact``
      gave them one;
    - that was made sparse (``sparsify``): these layers become ``SparseConv2d``;
    - with masks (``hold=True``, ``attach_masks``): the copy holds them too;
    - that was wrapped: names with the prefix of ``DistributedDataParallel``, ``DataParallel``,
      ``torch.compile`` or ``AveragedModel`` (a moving average) are understood. Wrap the result
      again afterwards.

    ``x``: an example input ``[N, C, H, W]``, or a tuple of inputs. With it the result is run once,
    so that a state of another model is an Error here; and it says how many channels the layers of a
    compact model that was made sparse read, which its state does not.

    Raises Error when names or shapes do not belong to this model, for a wrapped ``model``, and for
    a state with strengths (construct ``SynapticStrength`` first, then load it).
    """
    check_model(model)
    found = copy_of(model)
    given = present_names(_unwrapped(state, found))
    loader = _Loader(found, given)
    found = loader.shaped()
    _check_names(found, given)
    try:
        found.load_state_dict(given)
    except RuntimeError as error:
        raise Error(
            f"the state does not fit {type(model).__name__}: {first_line(error)}"
        ) from error
    if loader.unknown and x is None:
        raise Error(
            f"the state does not say how many channels layer '{loader.unknown[0]}' reads: say x=, "
            "an example input"
        )
    if x is not None:
        _run(found, x, loader.unknown)
    return found


def _unwrapped(state: State, model: nn.Module) -> dict[str, torch.Tensor]:
    """With the names that the model itself would give."""
    if not isinstance(state, Mapping):
        raise Error(f"the state is a {type(state).__name__}, not a state dict: names and tensors")
    names = {name for name, _ in model.named_children()}
    found = {name: value for name, value in state.items() if name not in _COUNTS}
    while True:
        prefix = next(
            (
                prefix
                for prefix in _PREFIXES
                if prefix[:-1] not in names
                and found
                and all(name.startswith(prefix) for name in found)
            ),
            None,
        )
        if prefix is None:
            return found
        found = {name.removeprefix(prefix): value for name, value in found.items()}


class _Loader:
    """Gives the layers of ``model`` the shapes that ``state`` has. ``unknown``: names of layers of
    which it does not say how many channels they read."""

    def __init__(self, model: nn.Module, state: State):
        self.model, self.state = model, state
        self.unknown: list[str] = []
        self._made: dict[int, nn.Parameter] = {}  # of shared parameters, by the old one
        self._narrower = False

    def shaped(self) -> nn.Module:
        sparse: dict[nn.Module, SparseConv2d] = {}
        for name, module in list(self.model.named_modules()):
            prefix = f"{name}." if name else ""
            if isinstance(module, SparseConv2d):
                continue
            if f"{prefix}row_ptr" in self.state:
                sparse[module] = self._sparse(name, module, prefix)
            elif not parametrize.is_parametrized(module):
                self._reshape(name, module, prefix)
        if self._narrower:
            self.unknown = [name for name, module in self.model.named_modules() if module in sparse]
        for parent in [*self.model.modules()]:
            for name, child in parent._modules.items():
                if child in sparse:
                    parent._modules[name] = sparse[child]
        return sparse.get(self.model, self.model)

    def _sparse(self, name: str, module: nn.Module, prefix: str) -> SparseConv2d:
        row_ptr, col, weight = (
            self.state.get(f"{prefix}{r}") for r in ("row_ptr", "col", "weight")
        )
        if type(module) is not nn.Conv2d or row_ptr is None or col is None or weight is None:
            raise Error(f"layer '{name}' is a SparseConv2d in the state and no nn.Conv2d here")
        outputs, groups = len(row_ptr) - 1, module.groups
        width, rows = module.in_channels // groups, module.out_channels // groups
        inputs = module.in_channels
        if whole_groups(groups, width, rows):
            groups = max(outputs // rows, 1)
            inputs = groups * width
        self._narrower |= outputs != module.out_channels
        return SparseConv2d(
            inputs,
            outputs,
            module.kernel_size,  # type: ignore[arg-type]
            len(col),
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            groups,
            f"{prefix}bias" in self.state,
            module.weight.device,
            module.weight.dtype,
        ).train(module.training)

    def _reshape(self, name: str, module: Any, prefix: str) -> None:
        masked = f"{prefix}{_PLACE}0.dropped" in self.state
        if masked and f"{prefix}{_PLACE}0.strength" in self.state:
            raise Error(
                f"layer '{name}' has strengths in the state: construct SynapticStrength(model, x) "
                "and call load_state_dict, then prune or finalize"
            )
        changed = False
        for role, own in [*module._parameters.items(), *module._buffers.items()]:
            place = f"{prefix}{_PLACE}original" if masked and role == "weight" else prefix + role
            tensor = self.state.get(place)
            if tensor is None or (own is not None and own.shape == tensor.shape):
                continue
            if own is None and (role != "bias" or not hasattr(module, "weight")):
                continue
            _check_shape(name, module, role, own, tensor)
            changed |= own is not None
            self._replace(module, role, own, tensor)
        if changed:
            self._narrower = True
            _renumber(name, module)
        if masked:
            check_weight(name, module)
            dropped = self.state[f"{prefix}{_PLACE}0.dropped"]
            if dropped.shape != module.weight.shape[:2]:
                raise Error(f"layer '{name}': the mask in the state is {list(dropped.shape)}")
            kept = torch.ones(dropped.shape, dtype=torch.bool, device=module.weight.device)
            parametrize.register_parametrization(module, "weight", Mask(kept))

    def _replace(
        self, module: Any, role: str, own: torch.Tensor | None, wanted: torch.Tensor
    ) -> None:
        like = module.weight if own is None else own
        values = torch.zeros(wanted.shape, dtype=like.dtype, device=like.device)
        if role in module._buffers:
            module._buffers[role] = values
            return
        made = self._made.get(id(own)) if own is not None else None
        if made is None:
            made = nn.Parameter(values, requires_grad=like.requires_grad)
            self._made[id(own)] = made
        module._parameters[role] = made


def _check_shape(
    name: str, module: nn.Module, role: str, own: torch.Tensor | None, wanted: torch.Tensor
) -> None:
    """Raises Error for a shape that ``compact`` cannot have made of the layer."""
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    able = isinstance(module, (*layers, _BatchNorm))
    if own is None:
        fits = able
    else:
        cut = 2 if role == "weight" and isinstance(module, layers) else 1
        pairs = zip(wanted.shape[:cut], own.shape[:cut], strict=False)
        fits = wanted.dim() == own.dim() and wanted.shape[cut:] == own.shape[cut:]
        fits = able and fits and all(0 < new <= old for new, old in pairs)
    if not fits:
        have = "none" if own is None else str(list(own.shape))
        raise Error(
            f"the state is of another model: tensor '{name}.{role}' is {list(wanted.shape)}, here "
            f"{have}"
        )


def _renumber(name: str, module: Any) -> None:
    """The numbers of a layer whose tensors have other shapes than before."""
    if isinstance(module, _BatchNorm):
        module.num_features = len(module.running_mean if module.weight is None else module.weight)
        return
    first, second = module.weight.shape[:2]
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = first, second
        return
    groups = module.groups
    width, rows = module.in_channels // groups, module.out_channels // groups
    if isinstance(module, nn.ConvTranspose2d):
        if whole_groups(groups, width, rows * module.stride[0] * module.stride[1]):
            groups = first // width
        inputs, outputs = first, second * groups
        divisible = inputs
    else:
        if whole_groups(groups, width, rows):
            groups = first // rows
        inputs, outputs = second * groups, first
        divisible = outputs
    if not groups or divisible % groups:
        raise Error(
            f"the state is of another model: layer '{name}' cannot have {divisible} channels"
        )
    module.in_channels, module.out_channels, module.groups = inputs, outputs, groups


def _check_names(model: nn.Module, state: State) -> None:
    wanted = model.state_dict()
    for name in sorted({*wanted, *state}):
        if name not in state or name not in wanted:
            has = "has no" if name not in state else "also has a"
            raise Error(f"the state is of another model: it {has} tensor '{name}'")


def _run(model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...], unknown: list[str]) -> None:
    """Once, with each layer of ``unknown`` told what it reads."""

    def tell(layer: Any, inputs: Any) -> None:
        layer.in_channels = int(inputs[0].shape[1])

    handles = [model.get_submodule(name).register_forward_pre_hook(tell) for name in unknown]
    try:
        run(model, x if isinstance(x, tuple) else (x,))
    finally:
        for handle in handles:
            handle.remove()
