"""Which channels can go only together: the channels that one layer makes and others read, through
all that lies between them.

Every channel of every value belongs to one *class*. An op that makes output channel c of input
channel c (an activation, a gate's product, a concatenation, a slice, a sum) puts both into one
class, and so does a depthwise convolution. A class goes when every layer that reads it does without
it.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from kernelprune.graph.channels import links
from kernelprune.graph.ir import Graph, Node, Shape
from kernelprune.graph.ops.base import width_of
from kernelprune.graph.ops.layer import whole_groups

Pairs = list[tuple[np.ndarray, np.ndarray]]


class Coupling:
    """``classes[v]``: int [C], the class of every channel of value v; they are numbered in the
    order in which they appear first. ``count``: how many there are.

    ``rigid``: the classes (int arrays) that keep their proportions as long as the model's code is
    what it is: those of a value that the code cuts into equal parts, or that a convolution with
    groups has. (The operators of a file know no such bounds.) ``parts``: for each of them the
    value, and into how many parts it is cut.
    """

    def __init__(self, graph: Graph, whole: Set[str] | None = None):
        """``whole``: names of the convolutions whose groups go as a whole; None asks their
        shapes."""
        shapes = graph.shapes()
        widths = {name: width_of(shape) for name, shape in shapes.items()}
        ends = np.cumsum([0, *widths.values()])
        first = dict(zip(widths, ends.tolist(), strict=False))
        pairs: Pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        self.parts: list[tuple[str, int]] = []
        self.whole: set[str] = set()
        cells: Pairs = []  # channels of a value, and in which group each of them is
        for node in graph.nodes:
            source = node.inputs[0] if node.inputs else node.output
            if not node.has_weight():
                pairs += _linked(node, shapes, first)
                number = node.rule.parts(node, [shapes[name] for name in node.inputs])
                if number > 1:
                    self.parts.append((source, number))
                continue
            number = int(node.params.get("groups", 1))
            width, rows = widths[source] // number, widths[node.output] // number
            if whole_groups(number, width, rows) if whole is None else node.name in whole:
                self.whole.add(node.name)
                outputs = first[node.output] + np.arange(number * rows).reshape(number, rows, 1)
                inputs = first[source] + np.arange(number * width).reshape(number, 1, width)
                outputs, inputs = np.broadcast_arrays(outputs, inputs)
                pairs.append((outputs.ravel(), inputs.ravel()))
            elif number > 1:
                for value in (source, node.output):
                    channels = first[value] + np.arange(widths[value])
                    cells.append((channels, np.arange(number).repeat(widths[value] // number)))
                    self.parts.append((value, number))
        roots = _smallest(
            int(ends[-1]), *(np.concatenate(side) for side in zip(*pairs, strict=True))
        )
        _, found = np.unique(roots, return_inverse=True)
        self.classes = {
            name: found[start:stop]
            for name, start, stop in zip(widths, ends, ends[1:], strict=False)
        }
        self.count = int(found.max(initial=-1)) + 1
        self.rigid = [np.unique(self.classes[value]) for value, _ in self.parts]
        self._places = [
            (found, np.arange(len(widths)).repeat(list(widths.values()))),
            *((found[channels], groups) for channels, groups in cells),
        ]

    def kinds(self) -> np.ndarray:
        """uint64 [classes]: equal for classes that are alike, with as many channels in every value
        and in every group of a convolution. Two graphs of one topology have the same numbers for
        the same."""
        tokens = np.random.default_rng(0)  # a sum of random numbers tells multisets apart
        total = np.zeros(self.count, np.uint64)
        for classes, places in self._places:
            drawn = tokens.integers(1 << 63, size=int(places.max(initial=-1)) + 1, dtype=np.uint64)
            np.add.at(total, classes, drawn[places])
        return total


def _linked(node: Node, shapes: dict[str, Shape], first: dict[str, int]) -> Pairs:
    """Channels (their numbers among all) that an op puts into one class."""
    found = []
    for link in links(node, shapes):
        repeated = width_of(shapes[link.value]) == 1 < width_of(node.shape)
        if repeated and not link.tied:
            continue  # one channel for all: it stays as long as one of them does
        for outputs, sources in link.pairs:
            found.append((first[node.output] + outputs, first[link.value] + sources))
    return found


def _smallest(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int [count]: the smallest number that each is connected to by the pairs (left, right)."""
    root = np.arange(count)
    while True:
        least = np.minimum(root[left], root[right])
        if np.array_equal(root[left], root[right]):
            return root
        for side in (left, right):
            np.minimum.at(root, root[side], least)
        while not np.array_equal(root[root], root):
            root = root[root]
