"""What an exported network will have, told without exporting it; and which connections hold it
together."""

from __future__ import annotations

import numpy as np
import pytest
from frontends.torch.networks import NETWORKS, traced

from kernelprune.format import Graph
from kernelprune.graph.footprint import Footprint
from kernelprune.graph.passes import run_all


def masked(graph: Graph, masks: dict[str, np.ndarray]) -> Graph:
    """The graph with zero kernels where a layer's mask [O, I/groups] (or [1, I]) is False."""
    found = graph.copy()
    for node in found.nodes:
        if node.module in masks and node.weight is not None:
            mask = masks[node.module]
            node.weight = node.weight * mask.reshape(*mask.shape, *[1] * (node.weight.ndim - 2))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_those_of_the_export(name: str) -> None:
    """A budget or a plan counts something else than the file will have: dead channels, constants
    behind padding, groups, batch norms that fold nowhere, modules that are called twice."""
    graph = traced(name)
    footprint = Footprint(graph)
    dense = graph.copy()
    for node in dense.nodes:
        if node.weight is not None:
            node.weight = np.ones_like(node.weight)
    run_all(dense, keep_dead=True)
    assert (footprint.dense.connections, footprint.dense.macs) == (
        dense.kept_connections(),
        dense.macs(),
    )
    generator = np.random.default_rng(5)
    layers = {n.module: n.weight for n in graph.nodes if n.op == "conv2d" and n.module}
    for density in (0.9, 0.4, 0.15, 0.05):
        for whole_channels in (False, True):
            masks = {}
            for layer, weight in layers.items():
                single = all(n.params["groups"] == 1 for n in graph.nodes if n.module == layer)
                rows = 1 if whole_channels and single else weight.shape[0]
                masks[layer] = generator.random((rows, weight.shape[1])) < density
            exported = run_all(masked(graph, masks))
            size = footprint.size(masks)
            assert size.connections == exported.kept_connections()
            assert size.macs == exported.macs() == sum(size.layer_macs.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_backbone_holds_the_network_together(name: str) -> None:
    """One connection of every layer is not enough: they do not meet, and the output is constant."""
    graph = traced(name)
    footprint = Footprint(graph)
    generator = np.random.default_rng(5)
    scores = {
        node.module: generator.random(node.weight.shape[:2])
        for node in graph.nodes
        if node.op == "conv2d" and node.module
    }
    everything = {layer: np.ones(score.shape, bool) for layer, score in scores.items()}
    assert footprint.cut_off(everything) == []
    nothing = {layer: np.zeros(score.shape, bool) for layer, score in scores.items()}
    assert footprint.cut_off(nothing) == list(scores)
    backbone = footprint.backbone(scores, everything)
    assert set(backbone) == set(scores)
    held = {}
    for layer, score in scores.items():
        held[layer] = np.zeros(score.size, bool)
        held[layer][backbone[layer]] = True
        held[layer] = held[layer].reshape(score.shape)
    assert footprint.cut_off(held) == []
    if name != "functional":  # whose first layer is called twice
        first = next(iter(scores))
        assert np.array_equal(held[first], scores[first] == scores[first].max())
