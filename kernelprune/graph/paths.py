"""Which layers lie on a path from the network's input to its output, by its connections alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from kernelprune.graph.channels import Link, links
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.ops.base import width_of

Kept = Mapping[str, np.ndarray]  # bool [O, I] by the name of a node with weights


def between(graph: Graph, kept: Kept) -> dict[str, bool]:
    """By node with weights: does one of its connections lie on such a path?"""
    reached = {value.name: np.ones(value.shape[0], bool) for value in graph.inputs}
    linked = _links(graph)
    for node in graph.nodes:
        _forward(node, reached, kept.get(node.name), linked.get(node.name, []))
    needed = _needed(graph, kept, linked)
    return {
        node.name: bool(kept[node.name][needed[node.output]][:, reached[node.inputs[0]]].any())
        for node in graph.nodes
        if node.has_weight()
    }


def spine(graph: Graph, kept: Kept, scores: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """For every node of ``scores`` (``[O, I]``, or ``[1, I]`` for whole input channels) one kept
    connection (row, column) whose input is reached through the ones chosen before: the one with the
    highest score, of those that read what a chosen connection writes and no other reads yet, if
    there are any. Layers without scores hand on through all their connections. A node that nothing
    reaches is left out."""
    reached = {value.name: np.ones(value.shape[0], bool) for value in graph.inputs}
    # By channel the chosen nodes whose output it carries, as bits.
    carried = {value.name: np.zeros(value.shape[0], object) for value in graph.inputs}
    chosen: dict[str, tuple[int, int]] = {}
    taken: dict[str | None, tuple[int, int]] = {}
    calls = Counter(node.module for node in graph.nodes if node.name in scores)
    unread = 0
    linked = _links(graph)
    for node in graph.nodes:
        pattern = kept.get(node.name)
        own = 0
        if node.name in scores and pattern is not None:
            source, usable = carried[node.inputs[0]], pattern & reached[node.inputs[0]]
            if calls[node.module] > 1:
                usable = _again(usable, taken.get(node.module))
            best = _best(scores[node.name], usable, (source & unread) != 0)
            if best is not None:
                row, column = chosen[node.name] = taken[node.module] = best
                own = 1 << len(chosen)
                unread = (unread & ~source[column]) | own
                whole_channel = scores[node.name].shape[0] != pattern.shape[0]
                pattern = _only(pattern, slice(None) if whole_channel else row, column)
        own_links = linked.get(node.name, [])
        _forward(node, reached, pattern, own_links)
        carried[node.output] = _carry(node, carried, pattern, own, own_links)
        carried[node.output] *= reached[node.output]
    return chosen


def _links(graph: Graph) -> dict[str, list[Link]]:
    shapes = graph.shapes()
    return {node.name: links(node, shapes) for node in graph.nodes if not node.has_weight()}


def _again(usable: np.ndarray, taken: tuple[int, int] | None) -> np.ndarray:
    """Of a module that is called more than once: the connection of an earlier call; for the first
    one those from a channel to itself, since a call may read what another writes."""
    found = np.zeros_like(usable)
    if taken is not None:
        found[taken] = usable[taken]
    else:
        np.fill_diagonal(found, usable.diagonal())
    return found if found.any() else usable


def _best(score: np.ndarray, usable: np.ndarray, fresh: np.ndarray) -> tuple[int, int] | None:
    if score.shape[0] != usable.shape[0]:
        usable = np.asarray(usable.any(axis=0, keepdims=True))
    wanted = usable & fresh.astype(bool)
    usable = wanted if wanted.any() else usable
    if not usable.any():
        return None
    row, column = np.unravel_index(np.argmax(np.where(usable, score, -np.inf)), usable.shape)
    return int(row), int(column)


def _carry(
    node: Node,
    carried: dict[str, np.ndarray],
    pattern: np.ndarray | None,
    own: int,
    linked: list[Link],
) -> np.ndarray:
    width = width_of(node.shape)
    if pattern is not None:
        inputs = [carried[name] for name in node.inputs]
        found = np.full(width, own, object)
        if not own and pattern.sum(axis=1).max() <= 1:  # depthwise
            found = inputs[0][pattern.argmax(axis=1)]
        elif not own:
            found = np.full(width, np.bitwise_or.reduce(inputs[0]), object)
        return np.asarray(np.bitwise_or.reduce([found, *inputs[1:]]))
    found = np.zeros(width, object)
    for link in linked:
        bits = carried[link.value]
        if link.mixed:
            found |= np.bitwise_or.reduce(bits)
        for outputs, sources in link.pairs:
            found[outputs] |= bits[sources]
    return found


def _only(pattern: np.ndarray, rows: slice | int, column: int) -> np.ndarray:
    single = np.zeros_like(pattern)
    single[rows, column] = pattern[rows, column]
    return single


def _forward(
    node: Node, reached: dict[str, np.ndarray], pattern: np.ndarray | None, linked: list[Link]
) -> None:
    if pattern is not None:
        found = np.asarray(pattern[:, reached[node.inputs[0]]].any(axis=1))
        for residual in node.inputs[1:]:
            found = found | reached[residual]
    else:
        found = np.full(width_of(node.shape), not node.inputs)  # a constant needs no path
        for link in linked:
            mask = reached[link.value]
            if link.mixed:
                found |= mask.any()
            for outputs, sources in link.pairs:
                found[outputs] |= mask[sources]
    reached[node.output] = found


def _needed(graph: Graph, kept: Kept, linked: Mapping[str, list[Link]]) -> dict[str, np.ndarray]:
    needed = {name: np.zeros(width_of(shape), bool) for name, shape in graph.shapes().items()}
    for name in graph.outputs:
        needed[name][:] = True
    for node in reversed(graph.nodes):
        out = needed[node.output]
        if node.name in kept:
            needed[node.inputs[0]] |= kept[node.name][out].any(axis=0)
            for name in node.inputs[1:]:
                needed[name] |= out
        for link in linked.get(node.name, []):
            source = needed[link.value]
            if link.mixed:
                source |= out.any()
            for outputs, sources in link.pairs:
                source[sources[out[outputs]]] = True
    return needed
