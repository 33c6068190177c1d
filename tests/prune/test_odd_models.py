"""Every method on every odd model: it does what its plan says, or one Error and nothing changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from prune.networks import Chain
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune as torch_prune

import kernelprune as kp
from kernelprune import prune
from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace_all
from kernelprune.prune.weights import copy_of

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(4) % 5


class Doubled(nn.Module):
    """A parametrisation of somebody else's."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


class Weightless(nn.Conv2d):
    """The weight is a buffer."""

    def __init__(self, like: nn.Conv2d):
        super().__init__(like.in_channels, like.out_channels, 3, padding=1)
        del self.weight
        self.register_buffer("weight", like.weight.detach().clone())


class Packed(nn.Parameter):
    """As of libraries that keep weights in a form of their own."""


class TwoInputs(Chain):
    def forward(self, x, y):
        return super().forward(x) + super().forward(y)


class Dictionary(Chain):
    def forward(self, x):
        return {"scores": super().forward(x)}


def chain(kind: type[nn.Module] = Chain, **options: Any) -> Any:
    torch.manual_seed(1)
    return kind(**options)


def with_conv2(change: Callable[[nn.Conv2d], Any]) -> nn.Module:
    model = chain()
    changed = change(model.conv2)
    if isinstance(changed, nn.Conv2d):
        model.conv2 = changed
    return model


def set_weight(convert: Callable[[torch.Tensor], nn.Parameter]) -> nn.Module:
    model = chain()
    model.conv2.weight = convert(model.conv2.weight.detach())
    return model


def inferred() -> nn.Module:
    with torch.inference_mode():
        return chain()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))


# Model -> what the one error says, whatever the method.
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "torch's pruning": (
        lambda: with_conv2(lambda c: torch_prune.ln_structured(c, "weight", 0.25, 2, 0)),
        r"layer 'conv2'.* LnStructured; call torch.nn.utils.prune.remove\(layer, 'weight'\)",
    ),
    "torch's pruning twice": (
        lambda: with_conv2(
            lambda c: torch_prune.l1_unstructured(
                torch_prune.ln_structured(c, "weight", 0.25, 2, 0), "weight", 0.1
            )
        ),
        r"layer 'conv2'.* PruningContainer; call torch.nn.utils.prune.remove\(layer, 'weight'\)",
    ),
    "weight norm": (
        lambda: with_conv2(nn.utils.weight_norm),
        r"layer 'conv2'.*call torch.nn.utils.remove_weight_norm\(layer\) first",
    ),
    "spectral norm": (
        lambda: with_conv2(nn.utils.spectral_norm),
        r"layer 'conv2'.*call torch.nn.utils.remove_spectral_norm\(layer\) first",
    ),
    "weight norm, parametrised": (
        lambda: with_conv2(lambda c: parametrizations.weight_norm(c) and None),
        "layer 'conv2'.*parametrised by _WeightNorm.*remove_parametrizations",
    ),
    "another parametrisation": (
        lambda: with_conv2(lambda c: parametrize.register_parametrization(c, "weight", Doubled())),
        "layer 'conv2'.*parametrised by Doubled.*remove_parametrizations",
    ),
    "no parameter": (lambda: with_conv2(Weightless), "layer 'conv2': its weight is no parameter"),
    "sparse": (
        lambda: set_weight(lambda w: nn.Parameter(w.to_sparse())),
        "weight 'conv2.weight' is a sparse tensor",
    ),
    "complex": (
        lambda: set_weight(lambda w: nn.Parameter(w.to(torch.complex64))),
        "layer 'conv2': its weight is complex64; it must be one of float16",
    ),
    "whole numbers": (
        lambda: set_weight(lambda w: nn.Parameter(w.to(torch.int8), requires_grad=False)),
        "layer 'conv2': its weight is int8",
    ),
    "packed": (lambda: set_weight(Packed), "layer 'conv2': its weight is a Packed"),
    "inference": (inferred, "model's 'conv1.weight' was made under torch.infe"),
    "meta": (lambda: chain().to("meta"), "'conv1.weight' lies on the meta device"),
    "lazy": (lazy, "'0.weight' is lazy and has no shape yet: call"),
    "data parallel": (lambda: nn.DataParallel(chain()), "the model is of class DataParallel: "),
    "inside": (
        lambda: nn.Sequential(nn.DataParallel(chain())),
        "module '0' is of class DataParallel: prune its .module",
    ),
    "TorchScript": (lambda: torch.jit.trace(chain().eval(), X), "the model is TorchScript"),
    "compiled": (lambda: torch.compile(chain()), "of class OptimizedModule: prune the mod"),
}  # fmt: skip


def synaptic(model: nn.Module, x: Any, loader: Any) -> prune.Plan:
    pruner = kp.SynapticStrength(model, x)
    plan = pruner.prune(density=0.5)
    pruner.finalize()
    return plan


def greedy(**options: Any) -> Callable[[nn.Module, Any, Any], prune.Plan]:
    def call(model: nn.Module, x: Any, loader: Any) -> prune.Plan:
        pruner = kp.DiscriminationAware(
            model, x, loader, **{"channels_per_step": 4, "losses": 1, **options}
        )
        plan = pruner.prune(ratio=0.5)
        pruner.finalize()
        return plan

    return call


def held(model: nn.Module, x: Any, loader: Any) -> prune.Plan:
    plan = kp.prune_connections(model, density=0.5, x=x, hold=True)
    prune.finalize_masks(model)
    return plan


METHODS: dict[str, Callable[[nn.Module, Any, Any], prune.Plan]] = {
    "connections": lambda model, x, _: kp.prune_connections(model, density=0.5),
    "taylor": lambda model, x, loader: kp.prune_connections(
        model, density=0.5, criterion="taylor", loader=loader
    ),
    "hold": held,
    "channels": lambda model, x, _: kp.prune_channels(model, x, ratio=0.5),
    "synaptic": synaptic,
    "dcp": greedy(),
    "dkp": greedy(granularity="kernel"),
    "reconstruction": greedy(discrimination=0),
}


def sensitive(model: nn.Module, x: Any, loader: Any) -> Any:
    return prune.sensitivity(model, lambda m: 1.0, densities=(0.5,))


def mask_by_hand(model: nn.Module, x: Any, loader: Any) -> None:
    name = "conv2" if hasattr(model, "conv2") else "1"
    prune.attach_masks(model, {name: torch.zeros(6, 6, dtype=torch.bool)})


def fingerprint(model: nn.Module) -> list[Any]:
    """All that a failure must not change; tensors as bytes where they have any."""
    found: list[Any] = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        empty = tensor.is_meta or "Uninitialized" in type(tensor).__name__
        plain = not empty and tensor.layout == torch.strided
        values = tensor.detach().reshape(-1).clone().view(torch.uint8).tolist() if plain else None
        found.append((name, type(tensor), tensor.requires_grad, values))
    for name, module in model.named_modules():
        hooks = len(module._forward_pre_hooks), len(module._forward_hooks)
        found.append((name, type(module), module.training, hooks))
    return found


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_pruned_is_one_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a method prunes nothing and says that it did, or ends in a traceback."""
    make, message = REFUSED[kind]
    model = make()
    next(model.children()).train()
    graphs: list[Any] = []

    def trace_once(*args: Any, **options: Any) -> Any:  # the model is the same each time
        if not graphs:
            graphs.append(trace_all(*args, **options))
        return graphs[0]

    monkeypatch.setattr("kernelprune.prune.layers.trace_all", trace_once)
    before = fingerprint(model)
    methods = {**METHODS, "sensitivity": sensitive}
    if kind not in ("data parallel", "inside", "compiled", "TorchScript"):
        methods["masks"] = mask_by_hand  # go by names, which are right there
    for name, method in methods.items():
        with pytest.raises(Error) as caught:
            method(model, X, [(X, LABELS)])
        if name != "masks" or message.startswith("layer"):
            assert caught.match(message), name
        assert "\n" not in str(caught.value)
        assert fingerprint(model) == before, name


def halved(dtype: torch.dtype) -> tuple[nn.Module, Any]:
    return chain().to(dtype), X.to(dtype)


def frozen() -> nn.Module:
    model = chain()
    model.conv2.weight.requires_grad_(False)
    return model


def shared() -> nn.Module:
    """A module that is called twice, under two names."""
    torch.manual_seed(1)
    twice = nn.Conv2d(6, 6, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), twice, nn.ReLU(inplace=True), twice, nn.ReLU(),
        nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5),
    )  # fmt: skip


def tied() -> nn.Module:
    model = chain()
    model.extra = nn.Conv2d(6, 6, 3, padding=1)
    model.extra.weight = model.conv2.weight
    return model


# Model and example -> layers that every method must leave as they were.
WORKING: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "half": (lambda: halved(torch.float16), ()),
    "bfloat16": (lambda: halved(torch.bfloat16), ()),
    "two inputs": (lambda: (chain(TwoInputs), (X, X.flip(0))), ()),
    "shared module": (lambda: (shared(), X), ()),
    "tied": (lambda: (tied(), X), ("conv2", "extra")),
    "depthwise": (lambda: (chain(groups=6), X), ("conv2",)),
    "grouped": (lambda: (chain(groups=2), X), ()),
    "normed elsewhere": (lambda: (normed_ends(), X), ()),
}


def normed_ends() -> nn.Module:
    """Weights made by hooks in layers that are not pruned."""
    model = chain()
    nn.utils.weight_norm(model.conv1)
    nn.utils.spectral_norm(model.fc)
    model(X)  # the weights that hooks have made now depend on parameters
    return model


@pytest.mark.parametrize("kind", WORKING)
def test_what_the_plan_says_is_what_the_model_has(kind: str) -> None:
    """If this fails, a plan is of another model than the one that is left."""
    make, untouched = WORKING[kind]
    start, x = make()
    given = x if isinstance(x, tuple) else (x,)
    loader = [(x, LABELS)]
    for name, method in METHODS.items():
        if kind == "two inputs" and name in ("dcp", "dkp", "channels"):
            continue  # has a test of its own
        if kind != "half" and name in ("hold", "reconstruction"):
            continue  # go the ways of "connections" and "dcp"
        if kind == "grouped" and name in ("channels", "dcp"):
            continue  # no layer of it reads a map of its own
        model = copy_of(start)
        if kind == "tied":
            model.extra.weight = model.conv2.weight
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            plan = method(model, x, loader)
        with torch.no_grad():
            model.eval()(*given)  # hooks would make their weights anew
        assert plan.masks and plan.prunable_kept < plan.prunable_connections, name
        for layer, mask in plan.masks.items():
            weight = model.get_submodule(layer).weight.detach()
            assert not weight.flatten(2)[~mask].any(), (name, layer)
            assert weight.isfinite().all() and weight.dtype == given[0].dtype
        for layer in untouched:
            if "d" not in name[:1]:  # DCP's stages train everything
                expected = start.get_submodule(layer).weight
                assert torch.equal(model.get_submodule(layer).weight, expected), (name, layer)
            assert layer not in plan.masks
