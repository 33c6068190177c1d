"""How large a model is: connections, parameters, multiply-adds, dense and kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from kernelprune.capture.trace import trace
from kernelprune.prune.strength import Strength


@dataclass(frozen=True)
class Counts:
    """``connections``, ``macs`` (multiply-adds per image) and ``parameters`` of the dense model,
    and the same of what is left: a connection is gone when all its weights are zero. A layer that
    is called twice counts twice in connections and multiply-adds, once in parameters."""

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
    """Counts of all convolutions and linear layers of ``model`` for an input like ``x``.

    ``x``: ``[N, C, H, W]``. Parameters include biases and batch norms; those that only Synaptic
    Strength adds while it trains do not count. Raises UnsupportedOperator as ``capture.trace``.
    """
    graph = trace(model, x)
    strengths = {id(part.strength) for part in model.modules() if isinstance(part, Strength)}
    parameters = sum(p.numel() for p in model.parameters() if id(p) not in strengths)
    gone = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and isinstance(weight, torch.Tensor):
            kernels = weight.detach().reshape(*weight.shape[:2], -1)
            gone += int(kernels.eq(0).all(dim=2).sum()) * kernels.shape[2]
    return Counts(
        connections=graph.all_connections(),
        connections_kept=graph.kept_connections(),
        macs=graph.macs(dense=True),
        macs_kept=graph.macs(),
        parameters=parameters,
        parameters_kept=parameters - gone,
    )
