"""Synaptic Strength: train a strength per connection, drop the weak ones, fine-tune.

Lin, Zhong, Wu, Yan, "Synaptic Strength for Convolutional Neural Network", NeurIPS 2018
(arXiv 1811.02454). docs/PRUNING.md has the formulas and how to use this in a training loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import eval_mode, trace
from kernelprune.graph.footprint import Footprint
from kernelprune.graph.ir import Graph
from kernelprune.prune.batches import Inputs, compute, inputs
from kernelprune.prune.budget import connected
from kernelprune.prune.connection_groups import ConnectionGroups, GroupedFootprint, Grouping
from kernelprune.prune.distributed import as_first_has
from kernelprune.prune.histogram import histogram
from kernelprune.prune.latency import (
    LayerTimes,
    engine_measure,
    layer_times,
    select_within_time,
)
from kernelprune.prune.layers import Layer, Selector, read_graph
from kernelprune.prune.masks import make_plain, masks_of, unchanged_on_failure
from kernelprune.prune.options import takes
from kernelprune.prune.plan import Plan, make_plan, plan_of, warned
from kernelprune.prune.sources import find_rescalings, rescale
from kernelprune.prune.strength import Strength, channels_second, start
from kernelprune.prune.synaptic_options import LatencyOptions, SynapticOptions
from kernelprune.prune.threshold import select
from kernelprune.prune.weights import parametrisation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import SynapticKeywords

DEFAULT_SCOPE = "global"


def default_penalty(connections: int) -> float:
    """``0.1 / sqrt(connections)``. One factor does not serve all sizes: the sum of the strengths
    grows with the network while the loss of its images does not. docs/ACCURACY.md has what this
    was measured on."""
    return 0.1 / math.sqrt(connections)


class SynapticStrength:
    """Reparametrises every prunable layer of ``model``, in place and exactly: convolutions, and
    linear layers on maps.

    ``model`` computes the same function before and after (to float rounding); build the optimiser
    afterwards, from ``parameter_groups``. ``x``: an example input ``[N, C, H, W]``, or a tuple for
    several inputs; the shapes are what counts. ``options``: those of ``SynapticOptions``, by name;
    for ``scope`` see ``threshold.comparable``.

    ``scale="auto"`` moves |gamma| of the batch norm before a convolution into the strengths where
    that is exact, and elsewhere takes the measured root mean square of the input map, a running
    average over training batches; "measured" always measures, "kernel" takes the kernel norm
    alone. The first convolutions, the classifier and depthwise convolutions are left out;
    ``ignore`` leaves out more, ``include`` takes in again (names, patterns, types, modules).

    All state (strengths, masks, scales) is in the model's own state dict: construct this on a
    fresh model, then load a checkpoint into the model, and training goes on where it stopped. A
    copy of the model, such as a moving average of it, made after this, becomes a plain module by
    ``finalize_masks``.

    Raises Error for wrong options, a selector that selects nothing, a convolution whose weight is
    parametrised or made by a hook, a model that is wrapped (DDP, torch.compile), and when there is
    nothing to prune.
    """

    @takes(SynapticOptions)
    def __init__(
        self,
        model: nn.Module,
        x: torch.Tensor | tuple[torch.Tensor, ...],
        *,
        ignore: Iterable[Selector] | Selector = (),
        include: Iterable[Selector] | Selector = (),
        **options: Unpack[SynapticKeywords],
    ):
        self.options = SynapticOptions.from_dict(options)
        self.model = model
        self.scope = self.options.scope or DEFAULT_SCOPE
        graph, self.layers = read_graph(model, x, ignore=ignore, include=include)
        self._parts: dict[str, Strength] = {}
        given = x if isinstance(x, tuple) else (x,)
        self._example = tuple(tensor[:1].detach().clone() for tensor in given)
        self._times: dict[tuple[int, int], LayerTimes] = {}
        with unchanged_on_failure(model):
            self._begin(graph, self.options.scale)
            self._first_measurement(given)
        connections = sum(int(part.mask.sum()) for part in self._parts.values())
        given_penalty = self.options.penalty
        self.penalty_factor = (
            default_penalty(max(connections, 1)) if given_penalty is None else given_penalty
        )

    def _begin(self, graph: Graph, scale: str) -> None:
        """Moves what scales can be moved into the readers, and makes their strengths parameters."""
        prunable = [layer for layer in self.layers if layer.prunable]
        scales = {layer.name: torch.ones(layer.in_channels) for layer in prunable}
        measured = {
            layer.name: torch.full((layer.in_channels,), scale != "kernel") for layer in prunable
        }
        frozen: list[tuple[str, nn.Module, bool]] = []
        for rescaling in find_rescalings(self.model, graph, self.layers) if scale == "auto" else []:
            trained = rescaling.norm.weight.requires_grad
            _, alive = rescale(rescaling)
            for reading in rescaling.readers:
                name = reading.layer.name
                own = slice(reading.first, reading.first + len(alive))
                scales[name][own] = alive.to(scales[name])
                measured[name][own] = False
                frozen.append((name, rescaling.norm, trained))
        for layer in prunable:
            self._reparametrise(layer, scales[layer.name], measured[layer.name])
        for name, norm, trained in frozen:
            self._parts[name].frozen.append((norm, trained))

    def _reparametrise(self, layer: Layer, scale: torch.Tensor, measured: torch.Tensor) -> None:
        module = layer.module
        with torch.no_grad():
            direction, norm, mask = start(module.weight)
            module.weight.copy_(direction)
            groups = ConnectionGroups.of(layer, self.options.group)
            if not groups.single:
                norm = groups.sums(norm.double().square()).sqrt().to(norm)
            part = Strength(
                norm, mask, scale.to(norm), layer.groups, measured.to(norm.device), groups
            )
            part.strength.requires_grad_(module.weight.requires_grad)
            if layer.kernel == (1, 1) and groups.single:  # a number has no direction to learn
                module.weight.requires_grad_(False)
        parametrize.register_parametrization(module, "weight", part)
        part.watch(module)
        self._parts[layer.name] = part

    def _first_measurement(self, given: Inputs) -> None:
        """Something to go by until the first training batch replaces it."""
        if not any(part.is_measured() for part in self._parts.values()):
            return
        parameter = next(self.model.parameters())
        floating = (x.to(parameter.dtype) if x.is_floating_point() else x for x in given)
        self.measure([(tuple(floating),)])
        for part in self._parts.values():
            part.batches.zero_()

    def measure(self, loader: Iterable[Any], batches: int | None = None) -> None:
        """Measures the input maps of convolutions without a usable batch norm from data.

        Only needed to prune a trained model without training it with the strengths: training
        measures as it goes. ``loader`` gives inputs, or tuples that start with the input (a model
        of several inputs takes that many).
        Raises Error when it gives none, or what the model cannot compute.
        """
        measured = {name: part for name, part in self._parts.items() if part.is_measured()}
        before = [(part, part.scale.clone(), part.batches.clone()) for part in measured.values()]
        seen = 0
        with ExitStack() as stack:
            stack.enter_context(eval_mode(self.model))
            stack.enter_context(torch.no_grad())
            for name, part in measured.items():

                def see(module: nn.Module, args: tuple[Any, ...], part: Strength = part) -> None:
                    part.observe(channels_second(module, args[0]), images=args[0].shape[0])

                hook = self.model.get_submodule(name).register_forward_pre_hook(see)
                stack.callback(hook.remove)
            try:
                for given in inputs(loader, batches, self.model):
                    if not seen:
                        for part in measured.values():
                            part.batches.zero_()
                    compute(self.model, given)
                    seen += 1
                if not seen:
                    raise Error("measure: the loader gave no batch")
                if not all(bool(torch.isfinite(part.scale).all()) for part in measured.values()):
                    raise Error("measure: the maps are not finite; are there NaN in the images?")
            except BaseException:
                for part, scale, batches_seen in before:
                    part.scale.copy_(scale)
                    part.batches.copy_(batches_seen)
                raise

    # ------------------------------------------------------------ training

    def penalty(self) -> torch.Tensor:
        """``penalty * sum |s_ij|`` over all connections that are left; add it to the loss."""
        self._check()
        total = sum(part.total() for part in self._parts.values())
        assert isinstance(total, torch.Tensor)
        return self.penalty_factor * total

    def parameter_groups(self, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Two groups for an optimiser: all other parameters, and the strengths without decay."""
        self._check()
        strengths = [part.strength for part in self._parts.values()]
        own = {id(parameter) for parameter in strengths}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in own]
        return [
            {"params": others, "weight_decay": weight_decay},
            {"params": strengths, "weight_decay": 0.0},
        ]

    def strengths(self) -> dict[str, torch.Tensor]:
        """``|s_ij|`` as ``[O, I/groups]`` by layer, or ``[R, C]``, one number a group. 0 where
        pruned, and where the input map is constant because its gamma was 0 (such connections go
        first)."""
        self._check()
        return {name: part.strengths().detach() for name, part in self._parts.items()}

    # ------------------------------------------------------------ pruning

    def plan(
        self,
        density: float | None = None,
        macs: float | None = None,
        scope: str | None = None,
        *,
        latency_ms: float | None = None,
        batch: int = 1,
        threads: int = 1,
    ) -> Plan:
        """What ``prune`` would keep; changes nothing.

        ``density``: kept share of the connections of all prunable layers. ``macs``: at most this
        share of the multiply-adds that the dense network has, both as exported.
        ``latency_ms``: at most so many milliseconds of the engine for ``batch`` images on
        ``threads`` threads of this machine; layers are exported and measured at a few densities
        (once for each batch and threads), and so is the choice. Raises Error when the limits cannot
        all hold; ``macs`` and ``latency_ms`` exclude each other.
        """
        scope = self.scope if scope is None else scope
        strengths = self.strengths()
        kept = {name: part.mask for name, part in self._parts.items()}
        footprint = self._footprint()
        if latency_ms is None:
            return make_plan(
                self.layers,
                strengths,
                density=density,
                macs=macs,
                scope=scope,
                method="Synaptic Strength",
                kept=kept,
                footprint=footprint,
                group=self.options.group,
            )
        if macs is not None:
            raise Error(f"latency_ms={latency_ms}: only without macs=")
        LatencyOptions(latency_ms=latency_ms, latency_batch=batch, latency_threads=threads)
        measure_masks = engine_measure(
            self.model, self._example, self.layers, _prune_copy,
            batch=batch, threads=threads,
        )  # fmt: skip
        grouping = Grouping(self.layers, self.options.group, kept)
        units = None if self.options.group == 1 else grouping.units
        left = grouping.left

        def measure(groups: Mapping[str, torch.Tensor]) -> tuple[dict[str, float], float]:
            return measure_masks(grouping.masks(groups))

        def at_density(share: float) -> dict[str, torch.Tensor]:
            return select(strengths, density=share, scope="layer", kept=left, units=units)

        if (batch, threads) not in self._times:
            self._times[batch, threads] = layer_times(measure, at_density)
        found: dict[str, float] = {}
        rest = 0.0

        def pick(forced: Mapping[str, int] | None) -> dict[str, torch.Tensor]:
            nonlocal found, rest
            groups, found, rest = select_within_time(
                strengths,
                self._times[batch, threads],
                latency_ms,
                measure,
                scope=scope,
                density=density,
                kept=left,
                forced=forced,
                units=units,
            )
            return as_first_has(groups)

        sizes = GroupedFootprint(footprint, grouping)
        chosen, notes = connected(pick, strengths, scope, left, sizes)
        plan = self._plan_of(grouping.masks(chosen), scope, footprint)
        plan.notes = notes
        plan.histogram = histogram(strengths, chosen, scope)
        plan.milliseconds = rest + sum(found.values())
        for row in plan.rows:
            row.milliseconds = found.get(row.name)
        return plan

    def prune(
        self,
        density: float | None = None,
        macs: float | None = None,
        scope: str | None = None,
        *,
        latency_ms: float | None = None,
        batch: int = 1,
        threads: int = 1,
    ) -> Plan:
        """Drops the weakest connections for good: they stay zero in all further training.

        Arguments and errors as ``plan``. May be called again with a lower density. Warns of what
        ``plan.warnings`` has.
        """
        plan = self.plan(density, macs, scope, latency_ms=latency_ms, batch=batch, threads=threads)
        self._drop(plan.masks)
        return warned(plan)

    def keep(self, masks: Mapping[str, torch.Tensor]) -> Plan:
        """Drops for good what ``masks`` (bool ``[O, I/groups]`` by layer) leave out, such as those
        of a saved plan; says what is left. Raises Error for an unknown layer, another shape, and
        masks that divide a group; then nothing has changed."""
        self._check()
        for name, mask in masks.items():
            part = self._parts.get(name)
            if part is None or mask.shape != part.mask.shape:
                wanted = "no such layer" if part is None else f"shape {list(part.mask.shape)}"
                raise Error(f"mask for '{name}' {list(mask.shape)}: the model has {wanted}")
            part.whole_groups(mask.to(part.dropped.device))
        self._drop(masks)
        return self._plan_of(self.masks(), self.scope, self._footprint())

    def _drop(self, masks: Mapping[str, torch.Tensor]) -> None:
        for name, mask in masks.items():
            self._parts[name].prune(mask)

    def _footprint(self) -> Footprint:
        """Of the network with the weights that it has now."""
        return Footprint(trace(self.model, self._example, opaque=True))

    def _plan_of(self, masks: Mapping[str, torch.Tensor], scope: str, footprint: Footprint) -> Plan:
        plan = plan_of(
            self.layers, masks, method="Synaptic Strength", scope=scope, footprint=footprint
        )
        plan.group = self.options.group
        return plan

    def masks(self) -> dict[str, torch.Tensor]:
        """bool ``[O, I/groups]`` by layer: True where a connection is left."""
        self._check()
        return {name: mask for name, mask in masks_of(self.model).items() if name in self._parts}

    def finalize(self) -> nn.Module:
        """Turns the model back into a plain one with zeroed kernels and returns it.

        Same function, no parametrisations or hooks, the state dict has the keys it had at first.
        Build a new optimiser if you train on; this object is of no more use.
        """
        self._check()
        for name in self._parts:
            make_plain(self.model.get_submodule(name))
        self._parts = {}
        return self.model

    def _check(self) -> None:
        if not self._parts:
            raise Error("this SynapticStrength is finalized; construct a new one to prune on")
        for name, part in self._parts.items():
            if parametrisation(self.model.get_submodule(name), Strength) is not part:
                raise Error(f"layer '{name}': its strengths were removed or replaced elsewhere")


def _prune_copy(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    for name, mask in masks.items():
        parametrisation(model.get_submodule(name), Strength).prune(mask)
