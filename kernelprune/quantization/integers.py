"""From what was measured to a graph with bytes and integer weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from kernelprune.errors import Error
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.graph.quantization import Quantization
from kernelprune.prune.batches import Inputs
from kernelprune.prune.progress import Progress
from kernelprune.quantization.observers import Observation, quantization_of
from kernelprune.quantization.options import QuantizeOptions
from kernelprune.quantization.placement import Placement, Sharing
from kernelprune.quantization.weights import make_integer


def observe(
    graph: Graph, placement: Placement, batches: Sequence[Inputs], tell: Progress
) -> dict[str, Observation]:
    """Of every value that becomes bytes, and of the output of every layer. Raises Error for numbers
    that are not finite."""
    names = [*placement.values, *(node.output for node in graph.nodes if node.has_weight())]
    seen = {name: Observation() for name in names}

    def see(name: str, numbers: torch.Tensor) -> None:
        if name not in seen:
            return
        if not bool(torch.isfinite(numbers).all()):
            raise Error(f"value '{name}' is not finite for the images of the calibration")
        seen[name].see(numbers)

    twin = GraphModel(graph)
    for position, batch in enumerate(batches):
        tell("measuring", position / len(batches))
        twin.run(batch, see)
    return seen


def choose_scales(
    graph: Graph,
    placement: Placement,
    seen: dict[str, Observation],
    options: QuantizeOptions,
    known: Mapping[str, Quantization] | None = None,
) -> dict[str, Quantization]:
    """Of every value that becomes bytes. ``known``: of some, by the module of a layer that reads
    the value."""
    sharing = Sharing(graph, {name: seen[name] for name in placement.values})
    scales = {name: quantization_of(own, options) for name, own in sharing.seen.items()}
    for node in reversed(graph.nodes):
        if node.name in placement.layers and node.module in (known or {}):
            assert known is not None and node.module is not None
            scales[sharing.set_of(node.inputs[0])] = known[node.module]
    for value in graph.inputs:
        if value.dtype == "u8" and value.name in placement.values:
            scales[sharing.set_of(value.name)] = Quantization(1.0, 0)  # they are bytes as given
    return {name: scales[sharing.set_of(name)] for name in placement.values}


def with_integers(
    graph: Graph,
    placement: Placement,
    scales: Mapping[str, Quantization],
    options: QuantizeOptions,
) -> Graph:
    """A copy whose values of ``placement`` are bytes and whose layers have integer weights."""
    found = graph.copy()
    for value in found.inputs:
        value.quantization = scales.get(value.name)
    for node in found.nodes:
        node.quantization = scales.get(node.output)
        if node.name in placement.layers:
            make_integer(node, scales[node.inputs[0]], per_channel=options.per_channel)
    return found
