"""Groups that a pattern of connections shows."""

from __future__ import annotations

import numpy as np
import pytest

from kernelprune.format import Graph, Node, Value
from kernelprune.graph.connections import Connections
from kernelprune.graph.groups import block_groups, regroup

PARAMS = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}


def layer(weight: np.ndarray) -> Node:
    node = Node(
        "conv2d", "c", ["x"], "y", (weight.shape[0], 2, 2), {**PARAMS, "activation": "none"}
    )
    node.weight = weight
    return node


@pytest.mark.parametrize(
    ("outputs", "inputs", "groups"), [(6, 6, 6), (8, 4, 4), (4, 8, 2), (6, 4, 1)]
)
def test_finds_the_groups(outputs: int, inputs: int, groups: int) -> None:
    """If this fails, a depthwise layer is computed as a dense one, or a group is cut off."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(1, 2, (outputs, inputs // groups, 1, 1))
    node = layer(np.zeros((outputs, inputs, 1, 1)))
    node.set_sparse(Connections.from_groups(weight, groups))
    assert block_groups(node) == groups
    graph = regroup(Graph([Value("x", (inputs, 2, 2))], ["y"], [node]))
    (found,) = graph.nodes
    assert np.array_equal(found.weight, weight)
    assert found.params.get("groups", 1) == groups


def test_dropped_connections() -> None:
    """If this fails, pruning hides the groups that are left, or makes up some."""
    weight = np.zeros((4, 4, 1, 1))
    weight[[0, 1, 2], [1, 0, 2]] = 1
    assert block_groups(layer(weight)) == 2
    weight[3, 0] = 1
    assert block_groups(layer(weight)) == 1
    assert block_groups(layer(np.zeros((4, 2, 1, 1)))) == 2  # nothing is in the way
