"""Discrimination-aware pruning (DCP): channels chosen one by one, by what the losses ask for.

Zhuang et al., "Discrimination-aware Channel Pruning for Deep Neural Networks", NeurIPS 2018
(arXiv 1810.11809), and its form for kernels (DKP, arXiv 2001.01050). docs/PRUNING.md has the
formulas; ``selection.py`` chooses the channels of one layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import eval_mode, trace
from kernelprune.graph.footprint import Footprint
from kernelprune.prune.batches import (
    Inputs,
    Loss,
    check_loader,
    compute,
    describe,
    device_of,
    differentiate,
    labelled,
    recalibrate,
)
from kernelprune.prune.budget import cut_off_line
from kernelprune.prune.candidates import CoupledChannels, CoupledSet, kept_number
from kernelprune.prune.channels import Follower, channel_readers, coupled_sets
from kernelprune.prune.checks import check_number
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.discrimination_options import GRANULARITIES, DiscriminationOptions
from kernelprune.prune.distributed import (
    average_gradients,
    same_on_all,
    sum_over_ranks,
    synchronised_norms,
    world_size,
)
from kernelprune.prune.layers import Layer, Selector, read_graph
from kernelprune.prune.masks import (
    attach_masks,
    finalize_masks,
    masks_of,
    unchanged_on_failure,
)
from kernelprune.prune.options import takes
from kernelprune.prune.plan import Plan, plan_of, warned
from kernelprune.prune.selection import Greedy, Objective
from kernelprune.prune.stages import AuxiliaryHead, find_stages
from kernelprune.prune.weights import copy_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import DiscriminationKeywords

# Called as (phase, steps done, steps in all, loss).
Progress = Callable[[str, int, int, float], None]


class DiscriminationAware:
    """Chooses the input channels (or the connections) of every layer greedily.

    The network is cut into stages, with an auxiliary classifier at the end of each but the last.
    For each stage in order: the whole network is fine-tuned on the auxiliary and on the final loss;
    then each layer of the stage starts with nothing and takes the channel with the largest gradient
    of ``reconstruction + discrimination * classification`` again and again, the weights that are
    there being trained after every step. Reconstruction is the mean squared distance of the layer's
    output to that of the network as it was given, classification the loss at the end of the stage.

    ``x``: an example input ``[N, C, H, W]``, or a tuple for several inputs. ``loader``: gives
    ``(images, targets)``, is read many times; for several inputs the images are a tuple. With
    ``discrimination=0`` nobody looks at targets or outputs: these may be anything (maps, tuples,
    dictionaries), and the loader may give images alone.
    ``granularity``: "channel" prunes whole input channels of the layers that ``channel_readers``
    gives (``kp.compact`` then removes them; with ``coupled`` the channels of ``coupled_sets``,
    chosen for all layers that read them at once), "kernel" connections of all prunable layers
    without groups, and of those with groups that ``include`` names. Layers whose weight does not
    train (``requires_grad``) are left alone. ``loss``: a function of the model's outputs (and the
    classifiers' scores) and the targets, for any task. ``progress``: called as ``Progress`` says.
    ``options``: those of ``DiscriminationOptions``, by name.

    Under torch.distributed each process has its part of the data; all choose the same.

    ``history`` holds one entry per pruned layer (of coupled ones the first): the losses and numbers
    chosen, step by step.
    Raises Error for options out of range, unknown selectors, a loader that can be read only once,
    weights that are parametrised or made by a hook, and when there is nothing to prune.
    """

    @takes(DiscriminationOptions)
    def __init__(
        self,
        model: nn.Module,
        x: torch.Tensor | tuple[torch.Tensor, ...],
        loader: Iterable[Any],
        *,
        granularity: str = "channel",
        loss: Loss = functional.cross_entropy,
        progress: Progress | None = None,
        ignore: Iterable[Selector] | Selector = (),
        include: Iterable[Selector] | Selector = (),
        **options: Unpack[DiscriminationKeywords],
    ):
        if granularity not in GRANULARITIES:
            raise Error(f"granularity '{granularity}': must be one of {', '.join(GRANULARITIES)}")
        self.options = chosen = DiscriminationOptions.from_dict(options)
        chosen.check_step(granularity)
        if chosen.group != 1 and granularity != "kernel":
            raise Error(f"group={chosen.group}: only with granularity='kernel'")
        if chosen.coupled and granularity != "channel":
            raise Error("coupled=True: only with granularity='channel'")
        check_loader(loader, again=True)
        self.model, self.loader = model, loader
        self.granularity = granularity
        self.progress = progress
        self._example = x
        graph, self.layers = read_graph(
            model, x, ignore=ignore, include=include, coupled=chosen.coupled
        )
        self._footprint = Footprint(graph)  # as it was given
        if chosen.epochs_of_a_stage and not any(p.requires_grad for p in model.parameters()):
            raise Error("no parameter of the model is trained: stages cannot be fine-tuned")
        self.followers: dict[str, list[Follower]] = {}
        # By the name of the layer that reads them last.
        self.coupled: dict[str, CoupledSet] = {}
        if chosen.coupled:
            self.coupled = {each.last.name: each for each in coupled_sets(graph, self.layers)}
            able = [each.last for each in self.coupled.values()]
        elif granularity == "channel":
            readers = channel_readers(graph, self.layers)
            able, self.followers = readers.layers, readers.followers
        else:
            able = [layer for layer in self.layers if layer.prunable]
            able = [layer for layer in able if layer.groups == 1 or layer.named]
        self.chosen = [layer for layer in able if layer.module.weight.requires_grad]
        if able and not self.chosen:
            raise Error("all layers that may go are frozen (requires_grad is False): nothing to do")
        if not self.chosen:
            raise Error(f"{type(model).__name__} has no layer whose {granularity}s may go")
        self.followers = {
            name: [each for each in found if each.layer.module.weight.requires_grad]
            for name, found in self.followers.items()
            if name in {layer.name for layer in self.chosen}
        }
        led = {each.layer.name for found in self.followers.values() for each in found}
        led |= {layer.name for each in self.coupled.values() for layer in each.layers}
        for layer in self.layers:
            layer.prunable = layer in self.chosen or layer.name in led
        # Without classification only the last stage matters: there is nothing to cut for.
        cuts = chosen.losses if chosen.discrimination else 0
        self.stages = find_stages(graph, self.chosen, cuts)
        self.history: list[dict[str, Any]] = []
        teacher = copy_of(model).eval().requires_grad_(False)
        heads, scores = self._make_heads(x if isinstance(x, tuple) else (x,), teacher)
        self.objectives = [
            Objective(
                model,
                teacher,
                loader,
                chosen.samples,
                loss,
                chosen.discrimination,
                stage.cut,
                head,
                scores,
            )
            for stage, head in zip(self.stages, heads, strict=True)
        ]
        self._pruned = False

    def _make_heads(
        self, given: Inputs, teacher: nn.Module
    ) -> tuple[list[AuxiliaryHead | None], bool]:
        """The classifiers of the stages, and whether the model gives one tensor."""
        parameter = next(self.model.parameters())
        with torch.no_grad():
            found = compute(
                teacher,
                tuple(
                    x.to(parameter.device, parameter.dtype if x.is_floating_point() else x.dtype)
                    for x in given
                ),
            )
        single = isinstance(found, torch.Tensor)
        if all(stage.cut is None for stage in self.stages):
            return [None] * len(self.stages), single
        if not single or found.dim() != 2:
            raise Error(
                f"the model gives {describe(found)}, not scores [N, classes], which auxiliary "
                "classifiers need: say losses=0 with a loss=, a function of (outputs, targets), or "
                "discrimination=0 to choose by the reconstruction alone"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            heads = [
                None if stage.cut is None else AuxiliaryHead(stage.channels, found.shape[1])
                for stage in self.stages
            ]
        return [
            None if head is None else head.to(parameter.device, parameter.dtype) for head in heads
        ], single

    # ------------------------------------------------------------ pruning

    def plan(self, ratio: float) -> Plan:
        """How many channels (connections) ``prune(ratio=ratio)`` would keep; changes nothing.

        Which ones is known after the selection only, so the plan has no masks, and counts what is
        exported for channels (connections) drawn at random: exact where every map has one reader,
        an estimate after concatenations and for connections. DCP-Adapt's numbers cannot be
        predicted.
        """
        check_number("ratio", ratio, least=0, below=1)
        drawn: dict[str, torch.Tensor] = {}
        for layer in self.chosen:
            if layer.name in self.coupled:
                drawn |= self._drawn(self.coupled[layer.name], ratio)
                continue
            number = kept_number(self._available(layer), ratio)
            groups = self._groups(layer)
            shape = (1, layer.shape[1]) if groups is None else groups.shape
            order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(0))
            if groups is None:
                drawn[layer.name] = (order < number).reshape(shape).expand(layer.shape)
            else:
                free = torch.ones(shape, dtype=torch.bool)
                drawn[layer.name] = groups.expand(groups.best(-order.reshape(shape), number, free))
            drawn |= self._led(layer, drawn[layer.name])
        plan = self._plan_of(drawn, self._footprint)
        plan.masks.clear()
        return plan

    def left(self) -> Plan:
        """What the masks leave, of the network as it is now."""
        masks = self.masks()
        plan = self._plan_of(masks, Footprint(trace(self.model, self._example, opaque=True)))
        plan.notes = [cut_off_line(name) for name in self._footprint.cut_off(masks)]
        return plan

    def _plan_of(self, masks: Mapping[str, torch.Tensor], footprint: Footprint) -> Plan:
        plan = plan_of(
            self.layers, masks, method=self._method(), scope=self.granularity, footprint=footprint
        )
        plan.group = self.options.group
        return plan

    def prune(self, ratio: float | None = None, adaptive: float | None = None) -> Plan:
        """Fine-tunes and selects, stage by stage; dropped connections stay zero from then on.

        ``ratio``: share of the input channels (connections) that each layer loses, rounded down.
        ``adaptive`` (DCP-Adapt): a layer stops taking channels when a step lowers its loss by no
        more than this share of the loss at the start; the paper has 0.001.
        Raises Error unless exactly one is given, when a loss or a gradient is not finite, and when
        the loader gives what the model or the loss cannot take. The model is then as it was.
        """
        if (ratio is None) == (adaptive is None):
            raise Error("say ratio= or adaptive=, one of them")
        if ratio is not None:
            check_number("ratio", ratio, least=0, below=1)
        if adaptive is not None:
            check_number("adaptive", adaptive, above=0)
        if self._pruned:
            raise Error("this DiscriminationAware has pruned; finalize and construct a new one")
        same_on_all(self.model)
        self.history.clear()
        heads = [objective.head for objective in self.objectives if objective.head is not None]
        with unchanged_on_failure(self.model, *heads), torch.enable_grad():
            for position, stage in enumerate(self.stages):
                objective = self.objectives[position]
                title = f"stage {position + 1}/{len(self.stages)}"
                self._finetune(objective, title)
                for layer in stage.layers:
                    self._select(objective, layer, title, ratio, adaptive)
        self._pruned = True
        return warned(self.left())

    def masks(self) -> dict[str, torch.Tensor]:
        """bool ``[O, I]`` by pruned layer: True where a connection is left."""
        names = {layer.name for layer in self.layers if layer.prunable}
        return {name: mask for name, mask in masks_of(self.model).items() if name in names}

    def finalize(self) -> nn.Module:
        """Turns the model back into a plain one with zeroed kernels and returns it."""
        return finalize_masks(self.model)

    def _method(self) -> str:
        name = "DCP" if self.granularity == "channel" else "DKP"
        return name if self.options.discrimination else f"{name}, reconstruction only"

    # ------------------------------------------------------------ one stage

    def _finetune(self, objective: Objective, title: str) -> None:
        """Per batch one step on the auxiliary loss and one on the final loss."""
        options, epochs = self.options, self.options.epochs_of_a_stage
        if not epochs:
            return
        final = replace(objective, cut=None, head=None)
        losses = [final] if objective.head is None else [objective, final]
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        parameters += [] if objective.head is None else list(objective.head.parameters())
        optimiser = torch.optim.SGD(parameters, lr=options.stage_learning_rate, **options.sgd)
        with eval_mode(self.model), synchronised_norms(self.model, objective.head):
            self.model.train()
            if objective.head is not None:
                objective.head.train()
            for epoch in range(epochs):
                done = epoch / epochs
                factor = 1 if done < 0.4 else 0.1 if done < 0.6 else 0.01
                optimiser.param_groups[0]["lr"] = options.stage_learning_rate * factor
                value = 0.0
                for images, targets in labelled(self.loader, None, device_of(self.model)):
                    for part in losses:
                        loss = part.classification(images, targets)
                        value = float(sum_over_ranks(loss.detach().clone())) / world_size()
                        if not value < float("inf"):
                            raise Error(
                                f"{title}: the loss became {value}; lower stage_learning_rate"
                            )
                        optimiser.zero_grad(set_to_none=True)
                        differentiate(loss)
                        average_gradients(parameters)
                        optimiser.step()
                self._show(f"{title}: fine-tune", epoch + 1, epochs, value)
        optimiser.zero_grad(set_to_none=True)
        same_on_all(self.model)  # to the last bit
        if objective.head is not None:
            same_on_all(objective.head.eval())

    def _select(
        self,
        objective: Objective,
        layer: Layer,
        title: str,
        ratio: float | None,
        adaptive: float | None,
    ) -> None:
        coupled = self.coupled.get(layer.name)
        groups = self._groups(layer)
        rows = 1 if groups is None else layer.shape[0]
        greedy = Greedy(
            groups,
            max(round(self.options.channels_per_step * rows), 1),
            self.options.select_epochs,
            {"lr": self.options.select_learning_rate, **self.options.sgd},
        )
        name = layer.name if coupled is None else coupled.name

        def show(taken: int, wanted: int, loss: float) -> None:
            self._show(f"{title}: {name}", taken, wanted, loss)

        if coupled is None:
            number = None if ratio is None else kept_number(self._available(layer), ratio)
            found = greedy.choose(objective, layer, number, adaptive, show)
            found.masks.update(self._led(layer, found.mask))
        else:
            quotas = None if ratio is None else coupled.quotas(ratio)
            number = None if quotas is None else sum(quotas.values())
            candidates = CoupledChannels(coupled, quotas)
            found = greedy.choose_among(objective, candidates, number, adaptive, show)
        self.history.append({"layer": name, "taken": found.taken, "losses": found.losses})
        attach_masks(self.model, found.masks)
        if groups is not None:
            # Few connections leave maps of another mean and variance, which batch norms in eval
            # mode would pass on to later layers, each less like the network as it was given.
            images = ((images,) for images, _ in objective.batches())
            recalibrate(self.model, images)

    def _groups(self, layer: Layer) -> ConnectionGroups | None:
        """None where whole channels go."""
        if self.granularity == "channel":
            return None
        return ConnectionGroups.of(layer, self.options.group)

    def _led(self, layer: Layer, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Masks of the layers that lose the channels which ``layer`` does."""
        return {each.layer.name: each.mask(mask) for each in self.followers.get(layer.name, [])}

    def _drawn(self, coupled: CoupledSet, ratio: float) -> dict[str, torch.Tensor]:
        """Masks of the set's layers, for channels drawn at random."""
        order = torch.randperm(len(coupled.pools), generator=torch.Generator().manual_seed(0))
        kept = torch.zeros(len(coupled.pools), dtype=torch.bool)
        for pool, quota in coupled.quotas(ratio).items():
            of_pool = torch.from_numpy(coupled.pools == pool)
            kept[order[of_pool[order]][:quota]] = True
        names = [layer.name for layer in coupled.layers]
        return dict(zip(names, coupled.masks(kept), strict=True))

    def _available(self, layer: Layer) -> int:
        rows, columns = layer.shape
        return columns if self.granularity == "channel" else rows * columns

    def _show(self, phase: str, done: int, total: int, loss: float) -> None:
        if self.progress is not None:
            self.progress(phase, done, total, loss)
