"""Where a network is cut into stages, and the auxiliary classifiers at the cuts.

Zhuang et al., "Discrimination-aware Channel Pruning for Deep Neural Networks", NeurIPS 2018
(arXiv 1810.11809): additional losses spread evenly over the depth. A cut is a value through which
everything passes, read at the input of the module after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kernelprune.graph.ir import Graph, Node
from kernelprune.prune.checks import check_number
from kernelprune.prune.layers import Layer

# Networks of at least this many blocks have three additional losses by default, others two (as in
# the paper: three for ResNet-50 with 16 blocks and ResNet-56 with 27, two for VGG and ResNet-18).
_DEEP = 16


@dataclass
class Stage:
    """``layers`` to prune, and the auxiliary classifier's place: the input ``[N, channels, H, W]``
    of the module ``cut``. The last stage has none (None and 0): the network itself classifies."""

    layers: list[Layer]
    cut: str | None
    channels: int


class AuxiliaryHead(nn.Module):
    """Batch norm, ReLU, global average pool, linear: ``[N, C, H, W] -> [N, classes]``."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.norm(x)).mean((2, 3)))


def find_stages(graph: Graph, layers: Sequence[Layer], losses: int | None = None) -> list[Stage]:
    """``losses + 1`` stages (fewer where the network has fewer blocks), in order.

    A block is what lies between two cuts and has something to prune. With n blocks and P losses,
    a loss sits after block ``min((n // (P + 1) + 1) * (i + 1), n - 1)``, the paper's rule.
    """
    if losses is not None:
        check_number("losses", losses, least=0, whole=True)
    blocks = _blocks(graph, layers)
    ends = pivots(len(blocks), losses)
    stages = []
    for start, end in zip([0, *ends], [*ends, len(blocks)], strict=True):
        chosen = [layer for block in blocks[start:end] for layer in block.layers]
        stages.append(Stage(chosen, blocks[end - 1].cut, blocks[end - 1].channels))
    stages[-1].cut, stages[-1].channels = None, 0
    return stages


def pivots(blocks: int, losses: int | None = None) -> list[int]:
    """After how many of the blocks the additional losses sit."""
    wanted = (3 if blocks >= _DEEP else 2) if losses is None else losses
    size = blocks // (wanted + 1) + 1
    return sorted({min(size * (i + 1), blocks - 1) for i in range(wanted)} - {0})


def _blocks(graph: Graph, layers: Sequence[Layer]) -> list[Stage]:
    # A layer that is called several times belongs to the stage that has seen all its calls.
    by_node = {id(layer.nodes[-1]): layer for layer in layers}
    last_use = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last_use.update((name, len(graph.nodes)) for name in graph.outputs)
    alive = {value.name for value in graph.inputs}
    blocks: list[Stage] = []
    current: list[Layer] = []
    for position, node in enumerate(graph.nodes):
        if id(node) in by_node:
            current.append(by_node[id(node)])
        alive = {name for name in alive | {node.output} if last_use.get(name, -1) > position}
        if current and alive == {node.output}:
            reader = _reader(graph, node)
            if reader is not None:
                blocks.append(Stage(current, reader.module, node.shape[0]))
                current = []
    if current:
        blocks.append(Stage(current, None, 0))
    return blocks


def _reader(graph: Graph, node: Node) -> Node | None:
    """A layer or batch norm whose module is called once, to read a map from."""
    for reader in graph.consumers(node.output):
        calls = sum(other.module == reader.module for other in graph.nodes)
        is_module = bool(reader.module) and calls == 1
        if len(node.shape) == 3 and is_module and reader.rule.module_classes():
            return reader
    return None
