"""Baselines: prune connections or input channels by a criterion, once and without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from kernelprune.errors import Error
from kernelprune.graph.footprint import Footprint
from kernelprune.graph.ir import Graph
from kernelprune.prune.batches import Loss
from kernelprune.prune.channels import input_scales
from kernelprune.prune.checks import check_number
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.coupled import coupled_scores
from kernelprune.prune.criterion_options import (
    SLIMMING_PENALTY,
    ConnectionOptions,
    CriterionOptions,
)
from kernelprune.prune.discrimination import DiscriminationAware
from kernelprune.prune.layers import Layer, Selector, read_graph, read_layers
from kernelprune.prune.masks import apply_masks, attach_masks
from kernelprune.prune.options import takes
from kernelprune.prune.plan import Plan, make_plan, plan_channels, warned
from kernelprune.prune.pools import ChannelPools, ClassScores
from kernelprune.prune.scores import (
    CHANNEL_CRITERIA,
    CRITERIA,
    Connections,
    Gradients,
    channel_scores,
    connection_scores,
)
from kernelprune.prune.ties import has_plain_weight
from kernelprune.prune.weights import Masked, parametrisation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kernelprune.keywords import ConnectionKeywords, CriterionKeywords

__all__ = [
    "CHANNEL_CRITERIA",
    "CRITERIA",
    "prune_channels",
    "prune_connections",
    "scale_penalty",
]


@takes(ConnectionOptions)
def prune_connections(
    model: nn.Module,
    *,
    density: float | None = None,
    x: torch.Tensor | tuple[torch.Tensor, ...] | None = None,
    loader: Iterable[Any] | None = None,
    loss: Loss = functional.cross_entropy,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    macs: float | None = None,
    hold: bool = False,
    **options: Unpack[ConnectionKeywords],
) -> Plan:
    """Prunes connections of ``model`` in place and returns what was kept.

    ``options``: those of ``ConnectionOptions``, by name. The criteria "taylor" and "gradient" look
    at the images of ``loader``, which gives ``(images, labels)``, with ``loss``.
    ``density``: kept share of the connections of all prunable layers; ``macs``: at most this share
    of the multiply-adds that the dense network has, both as exported: dead channels gone, batch
    norms folded (needs ``x``, an example input ``[N, C, H, W]``, or a tuple for several inputs).
    ``scope``: see ``threshold.comparable``; raw norms (``"global"``) of weights that no penalty has
    trained empty late layers at low densities. Without ``x`` the first convolution is the first one
    among the modules, the plan has no multiply-adds, and a layer may be cut off, which else is
    prevented. ``ignore`` and ``include`` as for Synaptic Strength.

    The weights of dropped connections are set to zero **once**: training on revives them. With
    ``hold=True`` they are held at zero by masks (``attach_masks``; build the optimiser afterwards)
    until ``finalize_masks(model)``; connections that masks already hold at zero stay dropped.

    Warns of layers that end under 1 %. Raises Error for an unknown criterion or scope, when density
    and macs cannot both hold, and for a weight that is made anew at every call (by a hook or a
    parametrisation); the model is then as it was.
    """
    chosen = ConnectionOptions.from_dict(options)
    graph, layers = read_layers(model, x, ignore=ignore, include=include, masked=True)
    prunable = [layer for layer in layers if layer.prunable]
    gradients = Gradients(model, prunable, loader, chosen.samples, loss)
    scores = {
        layer.name: connection_scores(
            chosen.criterion,
            Connections(layer.name, layer.module.weight.detach(), chosen.seed, gradients),
            ConnectionGroups.of(layer, chosen.group),
        )
        for layer in prunable
    }
    plan = make_plan(
        layers,
        scores,
        density=density,
        macs=macs,
        scope=chosen.scope or "global-normalised",
        method=chosen.criterion,
        kept=_held(prunable),
        footprint=None if graph is None else Footprint(graph),
        group=chosen.group,
    )
    (attach_masks if hold else apply_masks)(model, plan.masks)
    return warned(plan)


@takes(CriterionOptions)
def prune_channels(
    model: nn.Module,
    x: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    ratio: float | None = None,
    loader: Iterable[Any] | None = None,
    loss: Loss = functional.cross_entropy,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    macs: float | None = None,
    hold: bool = False,
    **options: Unpack[CriterionKeywords],
) -> Plan:
    """Prunes channels of ``model`` in place: all layers that read a channel lose their connections
    to it, so that ``kp.compact`` can make the model smaller and a file lacks the channel.

    A channel is followed through whatever makes channel c of channel c: batch norms, activations,
    pools, resizing, depthwise convolutions, gates (squeeze-and-excitation), concatenations, slices,
    shuffles. Where the code cuts channels into equal parts (a chunk, a shuffle, the groups of a
    convolution), as many of each part go at once. Channels stay that a sum of two values has
    (residuals), that the model gives, or that a layer reads which is kept whole; ``plan.tied`` says
    which and why. Of such channels in a concatenation the connections go all the same.

    ``coupled``: channels of residual sums and inputs of the classifier may go too. A channel of a
    sum goes in all layers that write it or read it at once, and all of them score it (see
    ``kernelprune.prune.coupled``). What the model gives or takes, what an operator mixes and what
    ``ignore`` names reads stays.

    ``ratio``: share of all channels that may go that does; what goes at once counts once.
    ``criterion``: as for
    ``prune_connections``, summed over the connections that read the channel; "slimming" (|gamma| of
    the batch norm before); or "reconstruction", the greedy choice of ``DiscriminationAware``
    without classification (as ThiNet): it needs ``loader`` and ``ratio``, takes the same share from
    each layer, trains the weights that it keeps, and has the options of ``DiscriminationOptions``.
    The other arguments are those of ``prune_connections``; afterwards ``kp.compact`` makes the
    model smaller.

    Raises Error as ``prune_connections``, and for "slimming" where there is no batch norm.
    """
    if options.get("criterion") == "reconstruction":
        return _reconstruct(
            model, x, ratio, macs, hold, loader=loader, loss=loss, ignore=ignore, include=include,
            **options,
        )  # fmt: skip
    settings = CriterionOptions.from_dict(options)
    if ratio is not None:
        check_number("ratio", ratio, least=0, below=1)
    coupled = settings.coupled
    graph, layers = read_graph(
        model, x, ignore=ignore, include=include, masked=True, coupled=coupled
    )
    channels = ChannelPools(graph, layers, coupled=coupled)
    if not channels.readers:
        why = f": {channels.told()}" if channels.tied else ""
        raise Error(f"{type(model).__name__} has no layer whose input channels may go{why}")
    for layer in layers:
        layer.prunable = layer in channels.readers
    counted = list(filter(has_plain_weight, layers)) if coupled else channels.readers
    gradients = Gradients(model, counted, loader, settings.samples, loss)
    scores: ClassScores
    if coupled:
        scores = coupled_scores(
            graph, channels, layers, settings.criterion, settings.seed, gradients
        )
    else:
        scores = _class_scores(graph, channels, settings, gradients)
    plan = plan_channels(
        layers,
        channels,
        scores,
        Footprint(graph),
        density=None if ratio is None else 1 - ratio,
        macs=macs,
        scope=settings.scope or "layer",
        held=_held(channels.readers),
    )
    plan.method = f"{settings.criterion} of channels"
    (attach_masks if hold else apply_masks)(model, plan.masks)
    return warned(plan)


def scale_penalty(model: nn.Module, factor: float = SLIMMING_PENALTY) -> Callable[[], torch.Tensor]:
    """``factor * sum |gamma|`` over all batch norms, to be added to the loss before pruning by
    "slimming" (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming",
    ICCV 2017). Raises Error when no batch norm has a gamma."""
    scales = [
        norm.weight for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.affine
    ]
    if not scales:
        raise Error(f"{type(model).__name__} has no batch norm with scales")

    def penalty() -> torch.Tensor:
        return factor * torch.stack([scale.abs().sum() for scale in scales]).sum()

    return penalty


def _held(layers: list[Layer]) -> dict[str, torch.Tensor]:
    """Masks that are attached already."""
    found = {layer.name: parametrisation(layer.module, Masked) for layer in layers}
    return {name: held.mask for name, held in found.items() if held is not None}


def _class_scores(
    graph: Graph, channels: ChannelPools, settings: CriterionOptions, gradients: Gradients
) -> ClassScores:
    """Raises Error for a channel of which no layer that reads it knows anything."""
    found = {}
    for layer in channels.readers:
        seen = Connections(
            layer.name,
            layer.module.weight.detach(),
            settings.seed,
            gradients,
            input_scales(graph, layer),
            layer.groups,
        )
        scores = channel_scores(settings.criterion, seen)
        if scores is not None:
            found[layer.name] = scores
    classes = ClassScores(channels, found, mean=settings.criterion in CHANNEL_CRITERIA)
    unknown = classes.unknown()
    if unknown is not None:
        raise Error(f"criterion '{settings.criterion}': layer '{unknown}' reads no batch norm")
    return classes


def _reconstruct(
    model: nn.Module,
    x: torch.Tensor | tuple[torch.Tensor, ...],
    ratio: float | None,
    macs: float | None,
    hold: bool,
    *,
    loader: Iterable[Any] | None,
    criterion: str,
    scope: str | None = "layer",
    **options: Any,
) -> Plan:
    if loader is None or ratio is None or macs is not None or scope != "layer":
        raise Error(
            f"criterion '{criterion}' needs loader= and ratio=, and takes the same share from "
            "each layer: no macs=, scope='layer'"
        )
    greedy = DiscriminationAware(
        model, x, loader, **{"discrimination": 0.0, "stage_epochs": 0, **options}
    )
    plan = greedy.prune(ratio=ratio)
    if not hold:
        greedy.finalize()
    return plan
