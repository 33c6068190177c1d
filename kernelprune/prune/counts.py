"""How large a model is: connections, parameters, multiply-adds, dense and kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.footprint import Footprint
from kernelprune.prune.strength import Strength


@dataclass(frozen=True)
class Counts:
    """``connections``, ``macs`` (multiply-adds per image) and ``parameters`` of the dense model,
    and the same of what is left. Connections and multiply-adds are those of the exported network,
    where channels that nobody reads or writes are gone with their connections, and a batch norm
    that folds into no layer is one connection a channel. A parameter is gone when its kernel is
    zero. A layer that is called twice counts twice in connections and multiply-adds, once in
    parameters."""

    connections: int
    connections_kept: int
    macs: int
    macs_kept: int
    parameters: int
    parameters_kept: int

    @property
    def density(self) -> float:
        return self.connections_kept / self.connections if self.connections else 1.0


def count(model: nn.Module, x: torch.Tensor) -> Counts:
    """Counts of all layers with connections of ``model`` for an input like ``x``.

    ``x``: ``[N, C, H, W]``. Parameters include biases and batch norms; those that only Synaptic
    Strength adds while it trains do not count. Raises UnsupportedOperator as
    :func:`kernelprune.frontends.torch.trace`.
    """
    footprint = Footprint(trace(model, x))
    dense, left = footprint.dense, footprint.size()
    strengths = {id(part.strength) for part in model.modules() if isinstance(part, Strength)}
    parameters = sum(p.numel() for p in model.parameters() if id(p) not in strengths)
    gone = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and isinstance(weight, torch.Tensor):
            kernels = weight.detach().reshape(*weight.shape[:2], -1)
            gone += int(kernels.eq(0).all(dim=2).sum()) * kernels.shape[2]
    return Counts(
        connections=dense.connections,
        connections_kept=left.connections,
        macs=dense.macs,
        macs_kept=left.macs,
        parameters=parameters,
        parameters_kept=parameters - gone,
    )
