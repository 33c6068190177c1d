"""How important a connection or a channel is: the only place where scores are computed.

A new criterion is one row of ``CRITERIA``: a function from a layer's ``Connections`` to scores
``[O, I/groups]``, higher is kept. A channel's score is the sum over the connections that read it,
unless ``CHANNEL_CRITERIA`` has a row of that name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import eval_mode
from kernelprune.prune.batches import Loss, compute, device_of, labelled, loss_of
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.distributed import sum_over_ranks
from kernelprune.prune.layers import Layer
from kernelprune.prune.weights import kernels_of, raw_weight


@dataclass
class Gradients:
    """dL/dW of all ``layers``, mean over the samples of all processes; measured when first asked
    for, in eval mode. ``loader`` gives (images, targets); None is an Error then."""

    model: nn.Module
    layers: Sequence[Layer]
    loader: Iterable[Any] | None
    samples: int | None
    loss: Loss
    found: dict[str, torch.Tensor] = field(default_factory=dict)

    def of(self, name: str) -> torch.Tensor:
        if not self.found:
            self._measure()
        return self.found[name]

    def _measure(self) -> None:
        if self.loader is None:
            raise Error(
                "this criterion needs gradients: say loader=, which gives (images, targets)"
            )
        weights = [raw_weight(layer.module) for layer in self.layers]
        trained = [weight.requires_grad for weight in weights]
        sums = [torch.zeros_like(weight) for weight in weights]
        images_seen = torch.zeros((), device=device_of(self.model))
        with eval_mode(self.model), torch.enable_grad():
            try:
                for weight in weights:
                    weight.requires_grad_(True)
                for images, targets in labelled(self.loader, self.samples, device_of(self.model)):
                    outputs = compute(self.model, images)
                    loss = loss_of(self.loss, outputs, targets) * len(images[0])
                    for total, gradient in zip(
                        sums, torch.autograd.grad(loss, weights, allow_unused=True), strict=True
                    ):
                        if gradient is not None:
                            total += gradient
                    images_seen += len(images[0])
            finally:
                for weight, trains in zip(weights, trained, strict=True):
                    weight.requires_grad_(trains)
        images_seen = sum_over_ranks(images_seen)
        for layer, total in zip(self.layers, sums, strict=True):
            self.found[layer.name] = layer.kernels(sum_over_ranks(total) / images_seen)


@dataclass
class Connections:
    """What a criterion sees of one layer: weight ``[O, I/groups, kh, kw]`` (made of the ``[O, I]``
    of a linear layer), a generator of its own (it depends on the seed and the layer's name alone),
    the gradient of the loss by the weight, and the scales ``[I]`` of the batch norm that the input
    comes from (None without one)."""

    name: str
    weight: torch.Tensor
    seed: int
    gradients: Gradients
    scales: torch.Tensor | None = None
    groups: int = 1

    def __post_init__(self) -> None:
        self.weight = kernels_of(self.weight)

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed ^ zlib.crc32(self.name.encode()))

    @property
    def gradient(self) -> torch.Tensor:
        return self.gradients.of(self.name)


def kernel_norms(kernels: torch.Tensor) -> torch.Tensor:
    """Frobenius norms ``[O, I, kh, kw] -> [O, I]`` in float64, where the squares of half-precision
    weights do not underflow."""
    return kernels.double().square().sum((2, 3)).sqrt()


CRITERIA: dict[str, Callable[[Connections], torch.Tensor]] = {
    "l1": lambda layer: layer.weight.abs().sum((2, 3)),
    "l2": lambda layer: kernel_norms(layer.weight),
    "random": lambda layer: torch.rand(
        layer.weight.shape[:2], generator=layer.generator, dtype=torch.float64
    ),
    # How much the loss changes to first order when a weight goes (Molchanov et al., ICLR 2017).
    "taylor": lambda layer: (layer.gradient * layer.weight).abs().sum((2, 3)),
    "gradient": lambda layer: kernel_norms(layer.gradient),
}


# Those that a factor on the weight changes, and a batch norm behind the layer takes out again.
WEIGHT_NORMS = ("l1", "l2")


def _slimming(layer: Connections) -> torch.Tensor | None:
    return None if layer.scales is None else layer.scales.abs()


# Scores ``[I]``, or None for what the layer does not know of its input channels; another layer that
# reads the same ones may. Slimming: |gamma| of the batch norm before (Liu et al., ICCV 2017).
CHANNEL_CRITERIA: dict[str, Callable[[Connections], torch.Tensor | None]] = {"slimming": _slimming}


# The score of a group of connections, ``[O, I/groups] -> [R, C]``: of sums (l1, taylor) the mean
# over its connections, of norms that of all its kernels over the root of their number.
_OF_GROUPS: dict[str, Callable[[ConnectionGroups, torch.Tensor], torch.Tensor]] = {
    "l2": ConnectionGroups.root_mean_squares,
    "gradient": ConnectionGroups.root_mean_squares,
    "random": ConnectionGroups.firsts,  # a mean of several is less random, and small groups differ
}


def connection_scores(
    criterion: str, layer: Connections, groups: ConnectionGroups | None = None
) -> torch.Tensor:
    """``[O, I/groups]``, or ``[R, C]`` of the layer's groups of connections. Raises Error for an
    unknown criterion."""
    if criterion not in CRITERIA:
        raise Error(f"criterion '{criterion}': must be one of {', '.join(CRITERIA)}")
    scores = CRITERIA[criterion](layer)
    if groups is None:
        return scores
    return _OF_GROUPS.get(criterion, ConnectionGroups.means)(groups, scores)


def channel_scores(criterion: str, layer: Connections) -> torch.Tensor | None:
    """``[I]``, None where ``CHANNEL_CRITERIA`` say nothing. Raises Error for an unknown
    criterion."""
    if criterion in CHANNEL_CRITERIA:
        return CHANNEL_CRITERIA[criterion](layer)
    if criterion not in CRITERIA:
        names = ", ".join([*CRITERIA, *CHANNEL_CRITERIA])
        raise Error(f"criterion '{criterion}': must be one of {names}")
    connections = CRITERIA[criterion](layer)  # [O, I/groups]
    return connections.reshape(layer.groups, -1, connections.shape[1]).sum(1).reshape(-1)


def row_scores(criterion: str, layer: Connections) -> torch.Tensor:
    """``[O]``: of each output channel the sum over the connections that write it."""
    return CRITERIA[criterion](layer).sum(1)
