"""Baselines: prune connections by a criterion on the weights alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from kernelprune.capture.trace import trace
from kernelprune.errors import Error
from kernelprune.prune.layers import Selector, find_layers
from kernelprune.prune.masks import Mask, apply_masks, attach_masks, parametrisation
from kernelprune.prune.plan import Plan, make_plan


@dataclass
class Connections:
    """What a criterion sees of one layer: weight ``[O, I/groups, kh, kw]`` and a generator of its
    own, which depends on the seed and the layer's name alone."""

    name: str
    weight: torch.Tensor
    generator: torch.Generator


# Scores ``[O, I/groups]``, higher is kept. A new criterion is one row.
CRITERIA: dict[str, Callable[[Connections], torch.Tensor]] = {
    "l1": lambda layer: layer.weight.abs().sum((2, 3)),
    "l2": lambda layer: layer.weight.square().sum((2, 3)).sqrt(),
    "random": lambda layer: torch.rand(
        layer.weight.shape[:2], generator=layer.generator, dtype=torch.float64
    ),
}


def prune_connections(
    model: nn.Module,
    *,
    density: float | None = None,
    criterion: str = "l1",
    scope: str = "global",
    x: torch.Tensor | None = None,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    macs: float | None = None,
    hold: bool = False,
    seed: int = 0,
) -> Plan:
    """Prunes connections of ``model`` in place and returns what was kept.

    ``criterion``: "l1" or "l2" norm of the kernel, or "random" (from ``seed``). ``density``: kept
    share of the connections of all prunable layers; ``macs``: at most this share of the dense
    model's multiply-adds (needs ``x``, an example input ``[N, C, H, W]``). ``scope``: see
    ``threshold.comparable``. Without ``x`` the first convolution is the first one among the
    modules, and the plan has no multiply-adds. ``ignore`` and ``include`` as for Synaptic Strength.

    The weights of dropped connections are set to zero **once**: training on revives them. With
    ``hold=True`` they are held at zero by masks (``attach_masks``; build the optimiser afterwards)
    until ``finalize_masks(model)``; connections that masks already hold at zero stay dropped.

    Raises Error for an unknown criterion or scope, and when density and macs cannot both hold.
    """
    if criterion not in CRITERIA:
        raise Error(f"criterion '{criterion}': must be one of {', '.join(CRITERIA)}")
    graph = None if x is None else trace(model, x, opaque=True)
    layers = find_layers(model, graph, ignore=ignore, include=include)
    scores, kept = {}, {}
    for layer in layers:
        if not layer.prunable:
            continue
        generator = torch.Generator().manual_seed(seed ^ zlib.crc32(layer.name.encode()))
        connections = Connections(layer.name, layer.module.weight.detach(), generator)
        scores[layer.name] = CRITERIA[criterion](connections)
        held = parametrisation(layer.module, Mask)
        if held is not None:
            kept[layer.name] = held.mask
    plan = make_plan(
        layers, scores, density=density, macs=macs, scope=scope, method=criterion, kept=kept
    )
    (attach_masks if hold else apply_masks)(model, plan.masks)
    return plan
