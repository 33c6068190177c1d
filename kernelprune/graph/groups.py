"""Groups in a pattern of connections. A file has none, every layer reads all inputs; what computes
layers densely wants those back that can be seen."""

from __future__ import annotations

import math

import numpy as np

from kernelprune.graph.ir import Graph, Node


def block_groups(node: Node) -> int:
    """The most groups that hold all kept connections of a layer."""
    kept = node.sparse()
    rows, columns = kept.rows(), kept.col.astype(np.int64)
    outputs, inputs = kept.out_channels, kept.in_channels
    most = math.gcd(outputs, inputs)
    for groups in range(most, 1, -1):
        if (
            most % groups == 0
            and (rows // (outputs // groups) == columns // (inputs // groups)).all()
        ):
            return groups
    return 1


def regroup(graph: Graph) -> Graph:
    """Gives layers that may have them, in place, the groups that their connections show: a weight
    ``[O, I/groups, ...]`` and ``params["groups"]``, as a traced graph has them."""
    for node in graph.nodes:
        known = "groups" in node.params  # a traced graph says so itself
        groups = block_groups(node) if node.rule.has_groups and not known else 1
        if groups > 1:
            kept = node.sparse()
            width = kept.in_channels // groups
            weight = np.zeros((kept.out_channels, width, *kept.weight.shape[1:]), kept.weight.dtype)
            weight[kept.rows(), kept.col.astype(np.int64) % width] = kept.weight
            node.weight = weight
            node.params["groups"] = groups
    return graph
