"""What a criterion says of coupled channels: those that a network has in several layers at once, so
that they go in all of them or in none.

Which channels these are, a dependency graph tells (Fang et al., "DepGraph: Towards Any Structural
Pruning", CVPR 2023); kernelprune.graph.coupling is ours. As there, all layers of a set have a say:
each *member* scores the channels that it has, and its scores are divided by their mean, so that no
layer counts for more because its weights are large. A channel's score is the mean over its members.
(A mean, not a sum: within a set they order alike, and of sets of different sizes a sum would keep
the one with most members, however weak its channels.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kernelprune.errors import Error
from kernelprune.graph.ir import Graph, Node
from kernelprune.prune.layers import Layer
from kernelprune.prune.pools import ChannelPools, ClassScores
from kernelprune.prune.scores import (
    CHANNEL_CRITERIA,
    WEIGHT_NORMS,
    Connections,
    Gradients,
    channel_scores,
    row_scores,
)
from kernelprune.prune.ties import has_plain_weight


@dataclass
class Member:
    """``classes``: int ``[C]``, those of the channels that a layer has; ``scores``: float64
    ``[C]``. ``reader``: the layer's name where it reads them, else it writes them or scales
    them."""

    classes: np.ndarray
    scores: np.ndarray
    reader: str | None = None

    def normalised(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(classes, scores): each class once, with the sum over its channels (a flattened map has
        several of one class) in parts of the mean."""
        total = np.bincount(self.classes, self.scores, count)
        own = np.unique(self.classes)
        mean = total[own].mean()
        return own, total[own] / mean if mean > 0 else np.zeros(len(own))


class CoupledScores(ClassScores):
    """The mean over the members of a class. Raises Error where a class has none."""

    def __init__(self, channels: ChannelPools, members: list[Member], criterion: str):
        count = channels.coupling.count
        total, number = np.zeros(count), np.zeros(count)
        self._of_reader: dict[str, np.ndarray] = {}
        for member in members:
            own, scores = member.normalised(count)
            total[own] += scores
            number[own] += 1
            if member.reader is not None:
                self._of_reader[member.reader] = np.zeros(count)
                self._of_reader[member.reader][own] = scores
        self.whole = total / np.maximum(number, 1)
        for layer in channels.readers:
            goes = channels.inputs[layer.name][channels.goes(layer.name)]
            if not number[goes].all():
                raise Error(f"criterion '{criterion}': layer '{layer.name}' reads no batch norm")

    def of(self, reader: str) -> np.ndarray:
        return self._of_reader.get(reader, self.whole)


def coupled_scores(
    graph: Graph,
    channels: ChannelPools,
    layers: list[Layer],
    criterion: str,
    seed: int,
    gradients: Gradients,
) -> CoupledScores:
    """Members are the layers that read a channel (the columns of their weights), those that write
    it (the rows; so also depthwise ones), and for criteria of channels the batch norms. Norms of
    rows are those of the weights that a batch norm right behind them makes, as it takes any other
    factor out of a row. Raises Error for an unknown criterion, and for one that says nothing of a
    channel."""
    classes = channels.coupling.classes
    members = []
    if criterion in CHANNEL_CRITERIA:
        members = list(_norms(graph, classes))
    else:
        for layer in filter(has_plain_weight, layers):
            seen = Connections(
                layer.name,
                layer.kernels(layer.module.weight.detach()),
                seed,
                gradients,
                groups=layer.groups,
            )
            if layer.name in channels.inputs:
                found = channel_scores(criterion, seen)
                assert found is not None
                own = channels.inputs[layer.name]
                members.append(Member(own, _numpy(found), layer.name))
            members += _writers(
                graph, layer, _numpy(row_scores(criterion, seen)), classes, criterion
            )
    return CoupledScores(channels, members, criterion)


def _writers(
    graph: Graph,
    layer: Layer,
    rows: np.ndarray,
    classes: Mapping[str, np.ndarray],
    criterion: str,
) -> Iterator[Member]:
    """One for each call of the layer; ``rows``: float64 ``[O]``."""
    for node in layer.nodes:
        own = classes[node.output][:: node.phases or 1]  # places of a block are of one class
        scores = rows
        norm = _norm_behind(graph, node) if criterion in WEIGHT_NORMS else None
        if norm is not None:
            scores = rows * np.abs(norm)
        yield Member(own, scores)


def _norm_behind(graph: Graph, node: Node) -> np.ndarray | None:
    """The factor ``[O]`` of the batch norm that alone reads what a layer writes."""
    readers = graph.consumers(node.output)
    if len(readers) != 1 or readers[0].rule.learned_scale(readers[0]) is None:
        return None
    found = readers[0].rule.scale_and_shift(readers[0])
    return None if found is None else found[0]


def _norms(graph: Graph, classes: Mapping[str, np.ndarray]) -> Iterator[Member]:
    """Those of which slimming asks: abs(gamma) of every batch norm."""
    for node in graph.nodes:
        scale = node.rule.learned_scale(node)
        if scale is not None and len(scale) == len(classes[node.output]):
            yield Member(classes[node.output], np.abs(scale).astype(np.float64))


def _numpy(scores: torch.Tensor) -> np.ndarray:
    return np.asarray(scores.detach().cpu().double().numpy())
