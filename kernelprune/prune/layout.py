"""Which channels a torch model can do without, its code being what it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn
from torch.nn.utils import parametrize

from kernelprune.errors import ShapeError
from kernelprune.graph.channels import Channels, analyse, movable, moved_bias
from kernelprune.graph.coupling import Coupling
from kernelprune.graph.ir import Graph, Node, Shape
from kernelprune.graph.narrowing import Level, Narrowing
from kernelprune.graph.ops.base import uniform


@dataclass
class Layout:
    """``channels``: which stay, and which are constant. ``orders``: of some values, their channels
    in the order that the code puts them into when others are gone; ascending for the rest.
    ``pinned``: names of nodes all of whose channels stay."""

    channels: Channels
    pinned: set[str]
    orders: dict[str, np.ndarray] = field(default_factory=dict)

    def left(self, value: str) -> np.ndarray:
        """int [channels that stay], in the order of the smaller model."""
        live = self.channels.live[value]
        order = self.orders.get(value)
        return np.flatnonzero(live) if order is None else order[live[order]]


def layouts(graph: Graph, modules: Mapping[str, nn.Module]) -> Iterator[Layout]:
    """Layouts for a model with these modules, smallest first: the last one is safe.

    What numbers in the code mean the traced program does not tell. A number of features in a
    reshape may come from ``x.size()`` (then it follows the smaller model) or be written there (then
    it breaks), and so may the places of a slice. So whoever asks has to try.
    """
    shapes = graph.shapes()
    literal = {node.name for node in graph.nodes if _counts_channels(node, shapes)}
    numbered = {
        node.name
        for node in graph.nodes
        if node.tensors and not node.has_weight() and not node.rule.module_classes()
    }
    fixed = _not_sliceable(graph, modules)
    finder = _Finder(graph)
    found: list[Layout] = []
    for parts in (True, False):
        for more in ({*()}, literal | numbered):
            # One number for all channels may be one in the code too, or a tensor of equal ones.
            layout = finder.find(fixed | more, parts, alike=not more)
            if layout is not None and not any(_same(layout, other) for other in found):
                found.append(layout)
                yield layout


def _same(one: Layout, other: Layout) -> bool:
    live, others = one.channels.live, other.channels.live
    return one.pinned == other.pinned and all(np.array_equal(live[v], others[v]) for v in live)


class _Finder:
    """Finds layouts for one graph."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.coupling = Coupling(graph)
        shapes = graph.shapes()
        # Nodes that stand for code which cuts channels into equal parts.
        self.cutting = {
            node.name
            for node in graph.nodes
            if not node.has_weight() and node.rule.parts(node, [shapes[i] for i in node.inputs]) > 1
        }

    def find(self, pinned: set[str], parts: bool, alike: bool) -> Layout | None:
        """The smallest layout in which the nodes of ``pinned`` keep all channels; without ``parts``
        so do those that need equal parts, without ``alike`` those with a number for each channel,
        be it the same for all. None where parts cannot be equal."""
        pinned = set(pinned)
        if not parts:
            pinned |= self.cutting | {
                node.name
                for node in self.graph.nodes
                if node.params.get("groups", 1) > 1 and node.name not in self.coupling.whole
            }
        while True:
            channels = analyse(self.graph, pinned)
            live = np.zeros(self.coupling.count, bool)
            for name, mask in channels.live.items():
                live[self.coupling.classes[name][mask]] = True
            layout = Layout(channels, pinned)
            try:
                live = self._in_parts(live, layout)
            except ShapeError:
                return None
            channels.live = {name: live[own] for name, own in self.coupling.classes.items()}
            changed = _changed(self.graph, channels, pinned | self.cutting, alike)
            changed |= _uneven(self.graph, channels, pinned)
            if not changed:
                return layout
            pinned |= changed

    def _in_parts(self, live: np.ndarray, layout: Layout) -> np.ndarray:
        """``live`` and what has to stay beside it, so that parts stay equal."""
        if all(live[classes].all() for classes in self.coupling.rigid):
            return live
        narrowing = Narrowing(self.graph, self.coupling)
        regions = {
            index
            for index, region in enumerate(narrowing.regions)
            if not live[region.classes].all()
        }
        narrowing.find_levels(live, regions)
        chosen: dict[int, Level] = {i: narrowing.regions[i].levels[0] for i in regions}
        live = narrowing.fill(live, chosen)
        layout.orders = narrowing.orders(live, chosen)
        return live


def _not_sliceable(graph: Graph, modules: Mapping[str, Any]) -> set[str]:
    return {
        node.name
        for node in graph.nodes
        if node.rule.module_classes() and not _is_sliceable(node, modules)
    }


def _is_sliceable(node: Node, modules: Mapping[str, Any]) -> bool:
    """One module is this node and nothing else: a plain layer, all of whose tensors are read by
    this node alone."""
    module: Any = modules.get(node.module) if node.module else None
    classes = (nn.ConvTranspose2d,) if node.phases else node.rule.module_classes()
    if not isinstance(module, classes):
        return False
    if parametrize.is_parametrized(module):  # type: ignore[arg-type]
        return False
    for role in node.rule.module_roles:
        owned = node.parameters.get(role) == f"{node.module}.{role}"
        if getattr(module, role) is not None and not owned:
            return False
    return True


def _uneven(graph: Graph, channels: Channels, known: set[str]) -> set[str]:
    """Transposed convolutions where the constants of removed channels add up to another number at
    each place of a block, which is no bias."""
    found = set()
    for node in graph.nodes:
        if node.phases > 1 and node.name not in known:
            constant = channels.constant[node.inputs[0]]
            removed = movable(node, constant) & ~channels.live[node.inputs[0]]
            blocks = moved_bias(node, removed, constant).reshape(-1, node.phases)
            if not np.allclose(blocks, blocks[:, :1], rtol=1e-12, atol=0):
                found.add(node.name)
    return found


def _counts_channels(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Does the call that a node stands for say how many channels its result has?"""
    if node.literal or node.params.get("literal"):
        return True
    if node.has_weight() or not node.shape:
        return False
    more = (node.shape[0] + 1, *node.shape[1:])
    try:
        own = [shapes[name] for name in node.inputs]
        return node.rule.infer(own, node.params, more) == more
    except ShapeError:
        return False


def _changed(graph: Graph, channels: Channels, known: set[str], alike: bool) -> set[str]:
    """Nodes with numbers or tensors that depend on the channels that are left. They are written in
    the model's code, or lie in no module that can be sliced."""
    found = set()
    for node in graph.nodes:
        if node.has_weight() or node.rule.module_classes() or node.name in known:
            continue
        live = [channels.live[name] for name in node.inputs]
        if channels.live[node.output].all() and all(mask.all() for mask in live):
            continue
        twin = copy.copy(node)
        twin.params, twin.tensors = copy.deepcopy(node.params), dict(node.tensors)
        twin.shape = (int(channels.live[node.output].sum()), *node.shape[1:])
        twin.rule.shrink(twin, live, channels.live[node.output])
        same = all(
            (alike and uniform(array)) or np.array_equal(twin.tensors[role], array)
            for role, array in node.tensors.items()
        )
        if twin.op != node.op or twin.params != node.params or not same:
            found.add(node.name)
    return found
