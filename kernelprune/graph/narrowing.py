"""Fewer channels where the model's code takes them to be in equal parts: chunks, shuffles, groups.

A file can have any channels; a torch model whose code says ``x.chunk(2, 1)`` cannot. What it can
have is told by running the code's operators on fewer channels (``Op.follow``), and comparing: a
class of channels of the narrow network can be a class of the given one that is alike
(``Coupling.kinds``). So a *level* of a part of the network is how many channels its layers write,
and how many classes of each kind are left then; which ones does not matter to the code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from kernelprune.errors import ShapeError
from kernelprune.graph.coupling import Coupling
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.ops.base import width_of

_MOST_LEVELS = 32  # each is a walk over the graph

Quotas = dict[int, int]  # by kind, how many classes


@dataclass
class Level:
    """``widths``: channels that each layer writes, by the node's name; ``quotas``: classes left."""

    widths: dict[str, int]
    quotas: Quotas


@dataclass
class Region:
    """Classes that keep their proportions. ``writers``: the layers that write them, by the node's
    name, and how many channels each; ``values``: what these write. ``levels``: ascending; the last
    one has all channels."""

    classes: np.ndarray
    writers: dict[str, int]
    values: dict[str, str]
    levels: list[Level] = field(default_factory=list)


class Narrowing:
    """The regions of a traced graph, and what it is with fewer channels in them."""

    def __init__(self, graph: Graph, coupling: Coupling):
        self.graph, self.coupling = graph, coupling
        self.kinds = coupling.kinds()
        self.of_class = _regions(coupling)  # int [classes], -1 where a class is in no region
        number = int(self.of_class.max(initial=-1)) + 1
        self.regions = [self._region(index) for index in range(number)]

    def _region(self, index: int) -> Region:
        nodes = [
            node
            for node in self.graph.nodes
            if node.has_weight()
            and node.name not in self.coupling.whole
            and (self.of_class[self.coupling.classes[node.output]] == index).all()
        ]
        writers = {node.name: width_of(node.shape) for node in nodes}
        classes = np.flatnonzero(self.of_class == index)
        everything = dict(Counter(self.kinds[classes].tolist()))
        values = {node.name: node.output for node in nodes}
        return Region(classes, writers, values, [Level(writers, everything)])

    def find_levels(self, needed: np.ndarray, regions: Set[int]) -> None:
        """Gives ``regions`` the levels that have room for all ``needed`` classes (bool)."""
        steps = {index: _steps(self.regions[index], self.coupling, needed) for index in regions}
        for place in range(max((len(each) for each in steps.values()), default=0)):
            wanted = {index: each[place] for index, each in steps.items() if place < len(each)}
            for index, level in self._levels(wanted).items():
                region = self.regions[index]
                least = Counter(self.kinds[region.classes[needed[region.classes]]].tolist())
                if all(level.quotas.get(kind, 0) >= count for kind, count in least.items()):
                    region.levels.insert(-1, level)

    def _levels(self, widths: dict[int, dict[str, int]]) -> dict[int, Level]:
        """By region, for the widths that its layers are to write; those that cannot be are left
        out."""
        widths = dict(widths)
        while widths:
            narrow, refused = self.narrowed(
                {k: v for each in widths.values() for k, v in each.items()}
            )
            if narrow is not None:
                break
            if refused not in widths:
                return {}
            del widths[refused]
        else:
            return {}
        coupling = Coupling(narrow, self.coupling.whole)
        home = dict(zip(self.kinds.tolist(), self.of_class.tolist(), strict=True))
        counts: dict[int, Quotas] = {index: {} for index in widths}
        for kind, count in Counter(coupling.kinds().tolist()).items():
            if kind not in home:
                for index in self._places(coupling, kind):
                    counts.pop(index, None)
            elif home[kind] in counts:
                counts[home[kind]][kind] = count
        return {
            index: Level(widths[index], quotas)
            for index, quotas in counts.items()
            if all(count <= self.regions[index].levels[-1].quotas[k] for k, count in quotas.items())
        }

    def _places(self, narrow: Coupling, kind: int) -> set[int]:
        """The regions of the values that hold classes which the given network does not have."""
        strange = np.flatnonzero(narrow.kinds() == kind)
        return {
            int(index)
            for name, classes in narrow.classes.items()
            if np.isin(classes, strange).any()
            for index in np.unique(self.of_class[self.coupling.classes[name]])
        }

    def narrowed(self, widths: Mapping[str, int]) -> tuple[Graph | None, int]:
        """The graph as the same code gives it when layers write ``widths`` channels; or None, and
        the region in which it cannot. Weights are what they were: shapes alone count."""
        graph = self.graph.copy()
        before, after = self.graph.shapes(), {v.name: v.shape for v in graph.inputs}
        for node in graph.nodes:
            own, now = ([shapes[i] for i in node.inputs] for shapes in (before, after))
            try:
                if node.has_weight():
                    node.shape = (self._written(node, now[0][0], widths), *node.shape[1:])
                elif own != now:
                    node.rule.follow(node, own, now)
            except ShapeError:
                found = self.of_class[self.coupling.classes[node.inputs[0]]]
                return None, int(found.max())
            after[node.output] = node.shape
        return graph, -1

    def _written(self, node: Node, inputs: int, widths: Mapping[str, int]) -> int:
        groups, outputs = int(node.params.get("groups", 1)), widths.get(node.name, node.shape[0])
        if node.name in self.coupling.whole:
            width, rows = node.in_channels() // groups, node.shape[0] // groups
            groups, outputs = inputs // width, inputs // width * rows
            node.params["groups"] = groups
        if inputs % groups or outputs % groups:
            raise ShapeError(f"{inputs} and {outputs} channels are not {groups} groups")
        return int(outputs)

    # ------------------------------------------------------------ which channel is which

    def fill(self, live: np.ndarray, chosen: Mapping[int, Level]) -> np.ndarray:
        """bool [classes]: ``live``, and so many others that every region in ``chosen`` has as many
        as its level says."""
        live = live.copy()
        for index, level in chosen.items():
            classes = self.regions[index].classes
            for kind, count in level.quotas.items():
                alike = classes[self.kinds[classes] == kind]
                rest = alike[~live[alike]]
                live[rest[: count - int(live[alike].sum())]] = True
        return live

    def orders(self, live: np.ndarray, chosen: Mapping[int, Level]) -> dict[str, np.ndarray]:
        """By value, the channels that the code has when the regions in ``chosen`` are at these
        levels, in the code's order, as channels of the given network. ``live``: bool [classes], as
        ``fill`` gives it. Raises ShapeError when the code cannot have them."""
        widths = {k: v for level in chosen.values() for k, v in level.widths.items()}
        graph, _ = self.narrowed(widths)
        if graph is None:
            raise ShapeError("these levels do not go together")
        narrow = Coupling(graph, self.coupling.whole)
        twin = self._twins(narrow, live, set(chosen))
        return {
            name: _matched(twin[classes], self.coupling.classes[name])
            for name, classes in narrow.classes.items()
        }

    def _twins(self, narrow: Coupling, live: np.ndarray, regions: set[int]) -> np.ndarray:
        """int [classes of ``narrow``]: the class of the given network that each is."""
        left = live | ~np.isin(self.of_class, list(regions))
        ours, theirs = np.flatnonzero(left), narrow.kinds()
        ours = ours[np.argsort(self.kinds[ours], kind="stable")]
        order = np.argsort(theirs, kind="stable")
        if not np.array_equal(self.kinds[ours], theirs[order]):
            raise ShapeError("the narrow network has channels that are like none of the given one")
        twin = np.empty(narrow.count, np.int64)
        twin[order] = ours
        return twin


def _matched(wanted: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """For each class in ``wanted`` a channel of that class; several of one class in their order."""
    channels = np.flatnonzero(np.isin(classes, wanted))
    found = np.empty(len(wanted), np.int64)
    found[np.argsort(wanted, kind="stable")] = channels[
        np.argsort(classes[channels], kind="stable")
    ]
    return found


def _regions(coupling: Coupling) -> np.ndarray:
    """int [classes]: rigid sets that share a class are one region; -1 for classes in none."""
    home = np.full(coupling.count, -1)
    merged: list[set[int]] = []
    for classes in coupling.rigid:
        own = {
            index for index, other in enumerate(merged) if not other.isdisjoint(classes.tolist())
        }
        union = set(classes.tolist()).union(*(merged[index] for index in own))
        merged = [other for index, other in enumerate(merged) if index not in own] + [union]
    for index, union in enumerate(merged):
        home[list(union)] = index
    return home


def _steps(region: Region, coupling: Coupling, needed: np.ndarray) -> Sequence[dict[str, int]]:
    """Widths of the region's layers, ascending up to all but the last step, all by the same factor
    and such that every part of every value is a whole number of channels. The first has the
    channels of each layer that are ``needed``, if there are more of them than can be looked at some
    are left out after it."""
    unit = math.gcd(*region.writers.values()) if region.writers else 1
    least, step = 1, 1
    for name, width in region.writers.items():
        own = int(needed[coupling.classes[region.values[name]]].sum())
        least = max(least, -(-own * unit // width))
    for (value, parts), classes in zip(coupling.parts, coupling.rigid, strict=True):
        if classes[0] in region.classes:
            step = math.lcm(
                step, parts * unit // math.gcd(coupling.classes[value].size, parts * unit)
            )
    steps = np.arange(-(-least // step) * step, unit, step)
    if len(steps) > _MOST_LEVELS:
        steps = steps[np.linspace(0, len(steps) - 1, _MOST_LEVELS).astype(int)]
    return [{name: w * int(k) // unit for name, w in region.writers.items()} for k in steps]
