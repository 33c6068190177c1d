"""Which layers suffer from being quantised."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kernelprune.columns import Column, text_table
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.prune.batches import Inputs
from kernelprune.prune.progress import Progress
from kernelprune.quantization.comparison import decibel
from kernelprune.quantization.integers import choose_scales, with_integers
from kernelprune.quantization.observers import Observation
from kernelprune.quantization.options import QuantizeOptions
from kernelprune.quantization.placement import place
from kernelprune.quantization.prepare import Prepared

_IMAGES = 32


@dataclass(frozen=True)
class QuantizationSensitivity:
    """``values``: what was measured with that layer alone in int8, the most sensitive first;
    ``whole``: with none. ``measure``: "evaluate", or "SNR dB" of the network's outputs. ``print``
    shows a table."""

    measure: str
    whole: float
    values: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and dictionaries (json); an infinite ratio is None."""
        whole = None if math.isinf(self.whole) else self.whole
        return {"measure": self.measure, "whole": whole, "values": self.values}

    def __str__(self) -> str:
        rows = [*self.values.items(), ("none in int8", self.whole)]
        columns = [Column("layer alone in int8", "name"), Column(self.measure)]
        return text_table(columns, [(name, f"{value:.4g}") for name, value in rows])


def sensitivity_of(
    start: Prepared,
    options: QuantizeOptions,
    seen: dict[str, Observation],
    evaluate: Callable[[nn.Module], float] | None,
    tell: Progress,
) -> QuantizationSensitivity:
    """``seen``: of every value that is bytes when all layers are quantised."""
    measured = evaluate or _Ratio(start.graph, start.images[:_IMAGES])
    layers = place(start.graph, start.ignored).layers
    values = {}
    for position, name in enumerate(layers):
        tell("measuring layers", position / len(layers))
        others = {node.name for node in start.graph.nodes if node.has_weight()} - {name}
        placement = place(start.graph, start.ignored | others)
        scales = choose_scales(start.graph, placement, seen, options)
        graph = with_integers(start.graph, placement, scales, options)
        values[name] = float(measured(GraphModel(graph, start.source)))
    order = sorted(values, key=lambda name: values[name])
    whole = float(measured(GraphModel(start.graph, start.source)))
    kind = "SNR dB" if evaluate is None else "evaluate"
    return QuantizationSensitivity(kind, whole, {name: values[name] for name in order})


class _Ratio:
    """The signal-to-noise ratio of a model's outputs, against those of a graph."""

    def __init__(self, graph: Graph, images: list[Inputs]):
        self._images = tuple(torch.cat(parts) for parts in zip(*images, strict=True))
        self._wanted = self._outputs(GraphModel(graph))

    def __call__(self, model: nn.Module) -> float:
        pairs = list(zip(self._wanted, self._outputs(model), strict=True))
        ratios = [
            decibel(float(want.square().sum()), float((have - want).square().sum()))
            for want, have in pairs
        ]
        return min(ratios)

    def _outputs(self, model: nn.Module) -> list[torch.Tensor]:
        found = model(*self._images)
        return [x.double() for x in (found if isinstance(found, tuple) else (found,))]
