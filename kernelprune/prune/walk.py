"""A network node by node over all calibration images: what a layer is changed by is what it will
really get, changes of the layers before included."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.graph.ops.base import elements
from kernelprune.prune.batches import Inputs

_LEAST_IMAGES = 8


class Walk:
    """One network. Before ``advance(position)`` ``values`` has what the step there reads and what
    later ones do, batch by batch; they lie where the images do."""

    def __init__(self, model: GraphModel, batches: Sequence[Inputs]):
        self._model = model
        given = [model.given(batch) for batch in batches]
        self.values = {name: [batch[name] for batch in given] for name in given[0]}

    def advance(self, position: int) -> list[torch.Tensor]:
        """Computes the step there; returns its output, batch by batch."""
        columns = [self.values[name] for name in self._model.read_by(position)]
        output = self._model.steps[position].output
        found = [self._model.compute(position, list(row)) for row in zip(*columns, strict=True)]
        self.values[output] = found
        for name in self._model.done_after(position):
            self.values.pop(name, None)
        return found


def affordable(graph: Graph, batches: Sequence[Inputs], numbers: int) -> list[Inputs]:
    """As many batches as let a walk hold at most so many ``numbers`` at once, cut where one is too
    many; at least 8 images."""
    left = max(numbers // max(_peak(graph), 1), _LEAST_IMAGES)
    found = []
    for batch in batches:
        if left <= 0:
            break
        found.append(tuple(x[:left] for x in batch))
        left -= len(batch[0])
    return found


def _peak(graph: Graph) -> int:
    """The most numbers of one image that are held at once."""
    shapes = graph.shapes()
    last = {name: at for at, node in enumerate(graph.nodes) for name in node.inputs}
    live = sum(elements(value.shape) for value in graph.inputs)
    most = live
    for at, node in enumerate(graph.nodes):
        live += elements(node.shape)
        most = max(most, live)
        live -= sum(elements(shapes[name]) for name in set(node.inputs) if last[name] == at)
    return most
