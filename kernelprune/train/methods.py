"""The pruning methods with one interface: what happens before, at and after the pruning step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.nn import functional

from kernelprune.data import Dataset, batches
from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.footprint import Footprint
from kernelprune.prune.batches import Loss
from kernelprune.prune.criteria import prune_channels, prune_connections, scale_penalty
from kernelprune.prune.criterion_options import ConnectionOptions, CriterionOptions
from kernelprune.prune.discrimination import DiscriminationAware
from kernelprune.prune.discrimination_options import DiscriminationOptions, StepOptions
from kernelprune.prune.distributed import is_first, own_part
from kernelprune.prune.layers import find_layers
from kernelprune.prune.masks import attach_masks, finalize_masks, masks_of
from kernelprune.prune.options import CoupledOptions, Options
from kernelprune.prune.plan import Plan, plan_of
from kernelprune.prune.reconstruction.options import DEFAULT_SAMPLES, SolverOptions
from kernelprune.prune.reconstruction.reconstruct import reconstruct
from kernelprune.prune.synaptic import SynapticStrength
from kernelprune.prune.synaptic_options import SynapticOptions
from kernelprune.prune.weights import masks_in
from kernelprune.train.checkpoint import Checkpoint
from kernelprune.train.loop import make_model
from kernelprune.train.options import GREEDY, PruneOptions, TrainOptions
from kernelprune.train.progress import PhaseProgress


class Samples:
    """Images and labels of a data set, in batches and always in the same order, so that a greedy
    choice compares like with like; each process has its part."""

    def __init__(self, dataset: Dataset, options: TrainOptions, seed: int):
        self.dataset, self.batch_size, self.seed = dataset, options.batch_size, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in batches(self.dataset, self.batch_size, seed=self.seed, epoch=0):
            yield own_part(images), own_part(labels)


def _with_budget(density: float, macs: float | None) -> float | None:
    """The density that holds together with a budget: 1 leaves the budget alone."""
    return None if macs is not None and density == 1 else density


class Method(ABC):
    """One way to prune ``model``. ``hold`` makes it ready for an optimiser, nothing dropped yet;
    ``prune`` may be called again with less. ``penalty`` and ``no_decay`` are for the training
    before (``sparsifies``) and after."""

    sparsifies = False
    penalty: Callable[[], torch.Tensor] | None = None
    no_decay: tuple[nn.Parameter, ...] = ()

    def __init__(self, model: nn.Module):
        self.model = model

    def hold(self, held: Checkpoint | None) -> None:  # noqa: B027 -- most have nothing to do
        """``held``: a checkpoint of the training after the pruning step that will be restored."""

    @abstractmethod
    def prune(self, density: float, macs: float | None) -> Plan:
        """Drops connections or channels, and says which are left."""

    def finalize(self) -> nn.Module:
        return finalize_masks(self.model)


class Synaptic(Method):
    sparsifies = True

    def __init__(self, model: nn.Module, example: torch.Tensor, options: PruneOptions):
        super().__init__(model)
        self.options = options
        self.pruner = SynapticStrength(
            model, example, ignore=options.ignore, **options.shared_with(SynapticOptions)
        )
        self.penalty = self.pruner.penalty
        self.no_decay = tuple(self.pruner.parameter_groups()[1]["params"])
        self.held: Checkpoint | None = None

    def hold(self, held: Checkpoint | None) -> None:
        self.held = held

    def prune(self, density: float, macs: float | None) -> Plan:
        limit = self.options.latency_ms
        if limit is None:
            return self.pruner.prune(density=_with_budget(density, macs), macs=macs)
        if self.held is not None:  # measured times are never the same twice
            return self.pruner.keep(masks_in(self.held.model))
        batch, threads = self.options.latency_batch, self.options.latency_threads
        return self.pruner.prune(latency_ms=limit, batch=batch, threads=threads)

    def finalize(self) -> nn.Module:
        return self.pruner.finalize()


class ByCriterion(Method):
    def __init__(
        self,
        model: nn.Module,
        example: torch.Tensor,
        options: PruneOptions,
        loader: Samples,
        loss: Loss,
    ):
        super().__init__(model)
        self.example, self.options = example, options
        if options.method == "slimming":
            self.sparsifies = True
            given = options.penalty
            self.penalty = scale_penalty(model, *([] if given is None else [given]))
        kind: type[Options] = CriterionOptions if options.by_channel else ConnectionOptions
        if options.method == "reconstruction":
            kind = StepOptions
        self.more: dict[str, Any] = {
            "criterion": options.method,
            "ignore": options.ignore,
            "loader": loader,
            "loss": loss,
            "hold": True,
            **options.shared_with(kind),
            **(options.shared_with(CoupledOptions) if options.by_channel else {}),
        }

    def hold(self, held: Checkpoint | None) -> None:
        if self.options.rounds > 1:
            self.prune(1.0, None)

    def prune(self, density: float, macs: float | None) -> Plan:
        share = _with_budget(density, macs)
        if not self.options.by_channel:
            return prune_connections(
                self.model, density=share, macs=macs, x=self.example, **self.more
            )
        ratio = None if share is None else 1 - share
        return prune_channels(self.model, self.example, ratio=ratio, macs=macs, **self.more)


class ByDiscrimination(Method):
    def __init__(
        self,
        model: nn.Module,
        example: torch.Tensor,
        options: PruneOptions,
        loader: Samples,
        loss: Loss,
        console: Console | None,
    ):
        super().__init__(model)
        self.options, self.console = options, console if is_first() else None
        self.held: Checkpoint | None = None
        self.pruner = DiscriminationAware(
            model,
            example,
            loader,
            granularity="channel" if options.method == "dcp" else "kernel",
            loss=loss,
            ignore=options.ignore,
            **options.shared_with(DiscriminationOptions),
        )

    def hold(self, held: Checkpoint | None) -> None:
        self.held = held

    def prune(self, density: float, macs: float | None) -> Plan:
        if self.held is not None:  # chosen before the interruption, and expensive to choose again
            attach_masks(self.model, masks_in(self.held.model))
            return self.pruner.left()
        with PhaseProgress(self.console) as progress:
            self.pruner.progress = progress
            adaptive = self.options.adaptive
            ratio = None if adaptive is not None else 1 - density
            return self.pruner.prune(ratio=ratio, adaptive=adaptive)


class ByReconstruction(Method):
    def __init__(self, model: nn.Module, options: PruneOptions, dataset: Dataset):
        super().__init__(model)
        self.options = options
        count = min(options.samples or DEFAULT_SAMPLES, len(dataset))
        # Of all of the data set: in a folder the images of one class follow each other. The same in
        # all processes, which so come to the same result.
        self.images = dataset.images[torch.linspace(0, len(dataset) - 1, count).long()]
        self.held: Checkpoint | None = None

    def hold(self, held: Checkpoint | None) -> None:
        self.held = held

    def prune(self, density: float, macs: float | None) -> Plan:
        options = self.options
        if self.held is not None:  # fitted before the interruption; the weights will be restored
            graph = trace(self.model, self.images[:1])
            layers = find_layers(self.model, graph, ignore=options.ignore)
            attach_masks(self.model, masks_in(self.held.model))
            return plan_of(
                layers, masks_of(self.model), method="reconstruct", scope="",
                footprint=Footprint(graph),
            )  # fmt: skip
        limit: dict[str, Any] = {"density": density}
        if options.latency_ms is not None:
            limit = {"latency_ms": options.latency_ms, "batch": options.latency_batch,
                     "threads": options.latency_threads}  # fmt: skip
        elif macs is not None:
            if density != 1:
                raise Error(f"method 'reconstruct' takes macs={macs} or a density, not both")
            limit = {"macs": macs}
        return reconstruct(
            self.model,
            self.images,
            ignore=options.ignore,
            hold=True,
            method=options.choice,
            **limit,
            **options.shared_with(SolverOptions),
        )


class FromScratch(Method):
    """The structure of the given network with new start weights: what the choice was worth without
    the weights that it was made on."""

    def __init__(
        self, model: nn.Module, example: torch.Tensor, train: TrainOptions, dataset: Dataset
    ):
        super().__init__(model)
        self.example = example
        self.layers = find_layers(model, trace(model, example, opaque=True))
        self.masks = {
            layer.name: layer.present()
            for layer in self.layers
            if layer.on_map or not bool(layer.present().all())
        }
        if all(bool(mask.all()) for mask in self.masks.values()):
            raise Error("'scratch' trains what a pruned network keeps, and this one is not pruned")
        self.fresh = make_model(train, len(dataset.classes), dataset.shape).state_dict()

    def prune(self, density: float, macs: float | None) -> Plan:
        self.model.load_state_dict(self.fresh)
        attach_masks(self.model, self.masks)
        prunable = {layer.name for layer in self.layers if layer.prunable}
        masks = {name: mask for name, mask in self.masks.items() if name in prunable}
        footprint = Footprint(trace(self.model, self.example, opaque=True))
        return plan_of(self.layers, masks, method="scratch", scope="", footprint=footprint)


def make_method(
    model: nn.Module,
    options: PruneOptions,
    train: TrainOptions,
    dataset: Dataset,
    console: Console | None,
    loss: Loss | None = None,
) -> Method:
    """The method that ``options`` name, on the images of ``dataset``; ``loss``: None is the cross
    entropy."""
    loss = functional.cross_entropy if loss is None else loss
    example = dataset.images[:2].clone()
    loader = Samples(dataset, train, options.seed)
    if options.method == "synaptic":
        return Synaptic(model, example, options)
    if options.method == "reconstruct":
        return ByReconstruction(model, options, dataset)
    if options.method == "scratch":
        return FromScratch(model, example, replace(train, seed=options.seed), dataset)
    if options.method in GREEDY:
        return ByDiscrimination(model, example, options, loader, loss, console)
    return ByCriterion(model, example, options, loader, loss)
