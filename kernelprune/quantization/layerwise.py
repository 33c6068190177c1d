"""Both networks, the float32 and the quantised one, node by node over all images: what is done to
a layer is done with the inputs that it will really get, errors of the layers before included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from kernelprune.frontends.torch.byte_steps import Bytes, Step
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.prune.batches import Inputs
from kernelprune.prune.progress import Progress
from kernelprune.prune.walk import Walk, affordable

_MAX_NUMBERS = 1 << 28  # that are held at once: 1 GiB for each network


@dataclass
class LayerInputs:
    """An integer layer in its place. ``exact`` and ``rounded``: the step of either network, with
    grouped weights. ``source``: what the bytes of its input stand for. ``pairs``: of every batch
    the input, as numbers of the float32 network and as bytes of the other."""

    exact: Step
    rounded: Step
    source: Bytes
    pairs: list[tuple[torch.Tensor, torch.Tensor]]


Adjust = Callable[[LayerInputs], None]


@torch.no_grad()
def adjusted(
    graph: Graph,
    quantised: Graph,
    batches: Sequence[Inputs],
    adjust: Adjust,
    tell: Progress,
) -> Graph:
    """``quantised`` after ``adjust`` was called for each of its integer layers, in order, and has
    replaced arrays of its rounded step."""
    exact, rounded = GraphModel(graph), GraphModel(quantised)
    batches = affordable(graph, batches, _MAX_NUMBERS)
    walks = [Walk(model, batches) for model in (exact, rounded)]
    for position, steps in enumerate(zip(exact.steps, rounded.steps, strict=True)):
        tell("adjusting layers", position / len(exact.steps))
        step = steps[1]
        if step.is_integer_layer:
            name = step.inputs[0]
            source = rounded.bytes_of(name)
            assert source is not None
            pairs = list(zip(*(walk.values[name] for walk in walks), strict=True))
            adjust(LayerInputs(steps[0], step, source, pairs))
        for walk in walks:
            walk.advance(position)
    return rounded.graph


def batches_of_pairs(layer: LayerInputs) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of every batch the layer's output before residual and activation, in either network."""
    for numbers, given in layer.pairs:
        yield layer.exact.linear(numbers, None), layer.rounded.linear(given, layer.source)


def correct_bias(layer: LayerInputs) -> None:
    """Moves each output channel's bias by what its mean has moved over all images."""
    moved = torch.zeros(())
    places = 0
    for exact, rounded in batches_of_pairs(layer):
        axes = [axis for axis in range(exact.dim()) if axis != 1]
        moved = moved + (exact.double() - rounded.double()).sum(axes)
        places += exact.numel() // exact.shape[1]
    step = layer.source.wide() * layer.rounded.weight_scale.double()
    bias = layer.rounded.bias + torch.round(moved / places / step)
    layer.rounded.replace(bias=_bounded(bias, layer.rounded.weight))


def _bounded(bias: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Within what leaves the sums 32 bits."""
    room = (1 << 31) - 1 - 255 * weight.abs().flatten(1).sum(1).double()
    return torch.minimum(torch.maximum(bias, -room), room)
