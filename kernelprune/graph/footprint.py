"""How large the exported network will be, for any choice of connections, without exporting it.

The graph is lowered once as export does it (batch norms folded, groups as patterns); a count is
then an analysis of its dead channels for other patterns of connections, with no weights copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelprune.graph import passes
from kernelprune.graph.channels import analyse, expand_groups, movable, reads
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.paths import between, spine

# bool [O, I/groups] by the layer's name, True where a connection is kept; [1, I] for whole input
# channels; [I, O/groups] of a transposed convolution, as its weight. Arrays or torch tensors.
Masks = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """``connections`` and multiply-adds per image (``macs``) of the network, and of each module
    that is a layer of it: convolutions, linear layers, and batch norms that fold into none of them
    (a diagonal of connections). Of a module that is called more than once ``connections`` has the
    call that keeps most; ``macs`` and the totals add the calls up."""

    connections: int
    macs: int
    layer_connections: dict[str, int]
    layer_macs: dict[str, int]


class Footprint:
    """Counts what a network will have when it is exported.

    ``dense``: with all connections that its layers can have. Depthwise and grouped layers have
    those of their groups.
    """

    def __init__(self, graph: Graph):
        """``graph``: as traced; it stays as it is. Opaque nodes keep all their channels."""
        layers = {node.name: node for node in graph.nodes if node.has_weight()}
        self.graph = passes.run_all(graph.copy(), keep_dead=True)
        self._nodes = [node for node in self.graph.nodes if node.has_weight()]
        self._groups = {
            # A batch norm that became a layer is a depthwise one.
            node.name: layers[node.name].params.get("groups", 1)
            if node.name in layers
            else node.shape[0]
            for node in self._nodes
        }
        self._present = {node.name: reads(node) for node in self._nodes}
        self.dense = self._size(
            {
                node.name: node.shape[0] * node.in_channels() // self._groups[node.name]
                for node in self._nodes
            }
        )

    def size(self, masks: Masks | None = None) -> Size:
        """What is exported when the layers of ``masks`` lose what these leave out, and with it
        every channel that nobody reads or that is a constant."""
        kept = self._patterns(masks or {})
        channels = analyse(self.graph, kept=kept)
        counts = {}
        for node in self._nodes:
            pattern, source = kept[node.name], node.inputs[0]
            outputs = channels.live[node.output]
            inputs = channels.live[source] & ~movable(node, channels.constant[source])
            pattern = pattern if outputs.all() else pattern[outputs]
            pattern = pattern if inputs.all() else pattern[:, inputs]
            counts[node.name] = int(np.count_nonzero(pattern))
        return self._size(counts)

    def cut_off(self, masks: Masks) -> list[str]:
        """Layers of ``masks`` none of whose connections lies on a path from the network's input to
        its output any more, though without the masks one does."""
        before = between(self.graph, self._patterns({}))
        after = between(self.graph, self._patterns(masks))
        names = {node.module or "": False for node in self._nodes if node.module in masks}
        for node in self._nodes:
            if node.module in names:
                names[node.module] |= before[node.name] and not after[node.name]
        return [name for name, cut in names.items() if cut]

    def backbone(self, scores: Mapping[str, Any], kept: Masks) -> dict[str, int]:
        """One connection of every layer of ``scores`` (arrays of the shape of its mask), as its
        index in the flattened mask, such that they lie on paths through the network: the one with
        the highest score among those whose input is reached by the ones chosen before."""
        table = {name: np.asarray(_numpy(score), np.float64) for name, score in scores.items()}
        expanded = {
            node.name: self._expand(node, table[node.module or ""])
            for node in self._nodes
            if node.module in table
        }
        chosen = spine(self.graph, self._patterns(kept), expanded)
        found: dict[str, int] = {}
        for node in self._nodes:
            if node.name in chosen and node.module not in found:
                row, column = chosen[node.name]
                found[node.module or ""] = self._flat_index(
                    node, table[node.module or ""].shape, row, column
                )
        return found

    def _flat_index(self, node: Node, shape: tuple[int, ...], row: int, column: int) -> int:
        whole_channels = shape[0] == 1 and node.shape[0] != 1
        if whole_channels:
            return column
        width = node.in_channels() // self._groups[node.name]
        return row * width + column % width

    def _patterns(self, masks: Masks) -> dict[str, np.ndarray]:
        kept = dict(self._present)
        for node in self._nodes:
            mask = masks.get(node.module or "")
            if mask is not None:
                kept[node.name] = kept[node.name] & self._expand(node, _numpy(mask))
        return kept

    def _expand(self, node: Node, values: np.ndarray) -> np.ndarray:
        groups = self._groups[node.name]
        if node.phases:  # [I, O/groups] -> [O * phases, I/groups]
            by_group = values.reshape(groups, -1, values.shape[1]).transpose(0, 2, 1)
            values = by_group.reshape(-1, by_group.shape[2]).repeat(node.phases, axis=0)
        return expand_groups(values, groups) if groups > 1 else values

    def _size(self, counts: Mapping[str, int]) -> Size:
        connections: dict[str, int] = {}
        macs: dict[str, int] = {}
        for node in self._nodes:
            count = counts[node.name]
            name = node.name if node.module is None else node.module
            connections[name] = max(connections.get(name, 0), count)
            macs[name] = macs.get(name, 0) + count * node.macs_of_connection()
        return Size(sum(counts.values()), sum(macs.values()), connections, macs)


def _numpy(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
