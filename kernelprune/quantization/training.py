"""Training a network for bytes, where rounding after training costs too much."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import Error
from kernelprune.graph.quantization import Quantization
from kernelprune.prune.masks import finalize_masks, remove_parametrisation
from kernelprune.prune.options import takes
from kernelprune.prune.progress import Progress, told
from kernelprune.prune.weights import check_model, copy_of, parametrisation
from kernelprune.quantization.fake import FakeBytes, FakeWeight
from kernelprune.quantization.integers import choose_scales, observe
from kernelprune.quantization.observers import covering
from kernelprune.quantization.options import QuantizeOptions
from kernelprune.quantization.placement import place
from kernelprune.quantization.post_training import QuantizedModel, quantize_prepared
from kernelprune.quantization.prepare import Selector, prepare

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import QuantizeKeywords

_NAME = "fake_quantization"  # of the part that a layer gets


class QuantizationAware:
    """Has a model, in place, compute with weights and layer inputs that are rounded to bytes, in
    train mode and in eval mode, so that training learns to live with it.

    ``calibration``, ``ignore`` and ``options`` are those of ``kernelprune.quantize``; the ranges
    begin as measured and learn. Begin from a trained model, with a small learning rate, and build
    the optimiser afterwards, from ``parameter_groups``. Masks and Synaptic Strength stay as they
    are: attach them first. ``kernelprune.export`` and every trace see the float32 network.

        with QuantizationAware(model, images) as aware:
            train(model, aware.parameter_groups(weight_decay=1e-4))
            quantised = aware.quantize()

    Convolutions and linear layers that are modules take part. Raises what ``quantize`` raises, and
    Error when there is no such layer, for ``equalize``, and for a model that was wrapped.
    """

    @takes(QuantizeOptions)
    def __init__(
        self,
        model: nn.Module,
        calibration: Any,
        *,
        ignore: Iterable[Selector] | Selector = (),
        progress: Progress | None = None,
        **options: Unpack[QuantizeKeywords],
    ):
        self.options = QuantizeOptions.from_dict(options)
        if self.options.equalize:
            raise Error("equalize changes the weights of a file, not those that train: leave it")
        check_model(model)
        self.model = model
        self._ignore = _as_names(model, ignore)
        start = prepare(model, calibration, ignore, self.options.samples)
        self._batches = start.batches
        graph, placement = start.graph, place(start.graph, start.ignored)
        with told(progress) as tell:
            seen = observe(graph, placement, start.batches, tell)
        scales = choose_scales(graph, placement, seen, self.options)
        given: dict[str, list[str]] = {}  # by module the values that its calls read
        for node in graph.nodes:
            if node.name in placement.layers and node.module is not None:
                given.setdefault(node.module, []).append(node.inputs[0])
        self._fakes: dict[str, FakeBytes] = {}
        shared: dict[tuple[str, ...], FakeBytes] = {}
        for name, values in given.items():
            module = model.get_submodule(name)
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                key = tuple(dict.fromkeys(values))
                if key not in shared:
                    shared[key] = FakeBytes(_together([scales[value] for value in key]))
                self._attach(name, module, shared[key])
        if not self._fakes:
            raise Error("no convolution or linear layer of the model is a module that can train")

    def _attach(self, name: str, module: nn.Module, fake: FakeBytes) -> None:
        if parametrisation(module, FakeWeight) is not None:
            raise Error(f"layer '{name}' trains for bytes already")
        fake = fake.to(module.weight.device)  # type: ignore[arg-type]
        module.add_module(_NAME, fake)
        module.register_forward_pre_hook(fake.before)
        parametrize.register_parametrization(module, "weight", FakeWeight(self.options.per_channel))
        self._fakes[name] = fake

    def parameter_groups(self, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Two groups for an optimiser: all other parameters, and the ranges' without decay. (Under
        Synaptic Strength take its own ``parameter_groups``, which has these among the others.)"""
        self._check()
        scales = list({id(fake): fake.growth for fake in self._fakes.values()}.values())
        own = {id(scale) for scale in scales}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in own]
        return [
            {"params": others, "weight_decay": weight_decay},
            {"params": scales, "weight_decay": 0.0},
        ]

    def ranges(self) -> dict[str, Quantization]:
        """By layer, what its input's bytes stand for now."""
        self._check()
        return {name: fake.quantization() for name, fake in self._fakes.items()}

    def quantize(
        self, calibration: Any = None, *, progress: Progress | None = None
    ) -> QuantizedModel:
        """The model as it is now, in bytes, with the ranges that were learned; other values are
        measured on ``calibration``, by default the images that this began with. Nothing is
        corrected towards the float32 network, which is not what was trained."""
        known = self.ranges()
        given = self._batches if calibration is None else calibration
        plain = finalize_masks(_without_fakes(copy_of(self.model), self._fakes))
        start = prepare(plain, given, self._ignore, self.options.samples)
        options = dataclasses.replace(self.options, bias_correction=False, rounding="nearest")
        with told(progress) as tell:
            return quantize_prepared(start, options, tell, known)

    def remove(self) -> nn.Module:
        """Takes away all that this has attached; returns the float32 model, with the weights that
        it has learned and the masks and strengths that it had."""
        self._check()
        _without_fakes(self.model, self._fakes)
        self._fakes = {}
        return self.model

    def __enter__(self) -> QuantizationAware:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fakes:
            self.remove()

    def _check(self) -> None:
        if not self._fakes:
            raise Error("this QuantizationAware was removed; construct a new one to train on")


def _as_names(model: nn.Module, ignore: Iterable[Selector] | Selector) -> list[Selector]:
    """Selectors that select the same in a copy of the model."""
    items = [ignore] if isinstance(ignore, (str, type, nn.Module)) else list(ignore)
    names = {id(module): name for name, module in model.named_modules()}
    return [names.get(id(each), each) if isinstance(each, nn.Module) else each for each in items]


def _without_fakes(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """The same model."""
    for name in names:
        module = model.get_submodule(name)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(getattr(hook, "__self__", None), FakeBytes):
                del module._forward_pre_hooks[key]
        delattr(module, _NAME)
        if parametrisation(module, FakeWeight) is not None:  # finalized masks took it away
            remove_parametrisation(module, FakeWeight)
    return model


def _together(scales: list[Quantization]) -> Quantization:
    """Of a module that is called with several values: the range that holds all."""
    if len(scales) == 1:
        return scales[0]
    return covering(min(each.low for each in scales), max(each.high for each in scales))
