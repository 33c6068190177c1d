"""Which values of a graph become bytes, and which of them share a scale.

An op that the engine computes on bytes wants its inputs as bytes; what it makes becomes bytes where
a reader wants that. So numbers stay numbers at the graph's outputs and between ops that compute
with numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from kernelprune.graph.ir import Graph, Node
from kernelprune.quantization.observers import Observation


@dataclass(frozen=True)
class Placement:
    """``values``: those that become bytes, in the graph's order; ``layers``: the names of the nodes
    that get integer weights."""

    values: tuple[str, ...]
    layers: tuple[str, ...]


def place(graph: Graph, ignored: Set[str] = frozenset()) -> Placement:
    """``ignored``: names of nodes that compute with numbers."""
    wanted: set[str] = set()
    layers = []
    constants = {node.output for node in graph.nodes if not node.inputs}
    for node in reversed(graph.nodes):
        if node.name in ignored or not node.rule.quantizable(node):
            continue
        others = node.inputs
        if node.has_weight():
            layers.append(node.name)
            wanted.add(node.inputs[0])
            others = node.inputs[1:]
        if node.output in wanted and not constants & {*node.inputs}:
            wanted.update(name for name in others if name not in graph.outputs)
    named = [value.name for value in graph.inputs] + [node.output for node in graph.nodes]
    return Placement(tuple(name for name in named if name in wanted), tuple(reversed(layers)))


class Sharing:
    """Sets of values that have one scale and zero point, with what was seen of each set."""

    def __init__(self, graph: Graph, seen: Mapping[str, Observation]):
        """``seen``: of every value that becomes bytes, one for its set as well as for itself."""
        self._graph = graph
        self._parent = {name: name for name in seen}
        self.seen = dict(seen)
        joins = []
        for node in graph.nodes:
            if self._moves_bytes(node):
                if len(node.inputs) == 1:
                    self._join(node.inputs[0], node.output)
                else:
                    joins.append(node)
        for node in joins:
            for name in node.inputs:
                if self._costs_nothing(name, node.output):
                    self._join(name, node.output)

    def set_of(self, value: str) -> str:
        """The value that stands for the set."""
        while self._parent[value] != value:
            value = self._parent[value]
        return value

    def _moves_bytes(self, node: Node) -> bool:
        values = [*node.inputs, node.output]
        known = all(name in self._parent for name in values)
        return known and node.rule.keeps_quantization(node)

    def _join(self, a: str, b: str) -> None:
        a, b = self.set_of(a), self.set_of(b)
        if a != b:
            self._parent[a] = b
            self.seen[b] = self.seen[b].merged(self.seen.pop(a))

    def _costs_nothing(self, value: str, joined: str) -> bool:
        """Of the input of a concat: does it lose less than a bit of precision, or is it read by
        nobody who would see the loss?"""
        own, other = (self.seen[self.set_of(name)] for name in (value, joined))
        wide = max(own.high, other.high, 0) - min(own.low, other.low, 0)
        if max(own.high, 0) - min(own.low, 0) >= 0.5 * wide:
            return True
        inside = {self.set_of(value), self.set_of(joined)}
        members = [name for name in self._parent if self.set_of(name) == self.set_of(value)]
        readers = [node for name in members for node in self._graph.consumers(name)]
        return all(
            self._moves_bytes(node) and self.set_of(node.output) in inside for node in readers
        )
