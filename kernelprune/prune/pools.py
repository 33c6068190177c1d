"""What ``prune_channels`` chooses among: channels that go as a whole, with all that reads them.

A *unit* is what goes at once: a class of channels (see kernelprune.graph.coupling), or, where the
code cuts channels into equal parts, as many classes of each part. A *pool* holds the units that are
alike; at least one of each pool stays, so no path through the network is cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernelprune.graph.coupling import Coupling
from kernelprune.graph.footprint import Footprint, Size
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.narrowing import Narrowing, Region
from kernelprune.prune.layers import Layer
from kernelprune.prune.ties import PARTS, Ties, loses_inputs


@dataclass
class Pool:
    """``units``: classes that go together, by unit. ``reader``: the one layer whose connections go
    though the channels stay; None where all readers lose them, and with them the channels go.
    ``nested``: a unit goes only after those behind it."""

    name: str
    units: list[np.ndarray]
    reader: str | None = None
    nested: bool = False


class ChannelPools:
    """The channels of a network that may go, and what is known of the others.

    ``coupled``: so may the channels of sums (see Ties), and those that are read by layers alone
    which are not pruned for themselves.

    ``readers``: the layers that may lose inputs, at least one of them prunable for every channel
    that goes, unless these are coupled. ``tied``: by prunable layer how many of its input channels
    stay, by the reason.
    ``counted``: how many input channels the prunable layers have. ``inputs``: by layer that may
    lose some, the classes of its input channels. ``joined``: those of them that read a
    concatenation, or a map that one has too.
    """

    def __init__(self, graph: Graph, layers: Sequence[Layer], *, coupled: bool = False):
        self.coupling = Coupling(graph)
        self._narrowing = Narrowing(graph, self.coupling)
        able = [layer for layer in layers if loses_inputs(layer)]
        self.inputs = {
            layer.name: self.coupling.classes[layer.nodes[0].inputs[0]] for layer in able
        }
        ties = Ties(graph, self.coupling, layers, coupled=coupled)
        read = self._read_by([layer for layer in able if layer.prunable or coupled])
        self._narrow(ties)
        self._held = held = ties.held()
        self.free = read & ~held  # bool [classes]
        self.joined = {
            layer.name for layer in able if _beside_join(graph, layer.nodes[0].inputs[0])
        }
        # Connections of these go, though the channels stay.
        self._behind: dict[str, np.ndarray] = {}
        for layer in able:
            if layer.prunable and layer.name in self.joined:
                own = self.inputs[layer.name]
                self._behind[layer.name] = np.unique(own[held[own]])
        self.tied = {
            layer.name: _count(ties.reasons[self.inputs[layer.name]])
            for layer in able
            if layer.prunable and held[self.inputs[layer.name]].any()
        }
        self.counted = sum(len(self.inputs[layer.name]) for layer in able if layer.prunable)
        self.readers = [layer for layer in able if self._loses(layer.name)]

    def _read_by(self, layers: Sequence[Layer]) -> np.ndarray:
        found = np.zeros(self.coupling.count, bool)
        for layer in layers:
            found[self.inputs[layer.name]] = True
        return found

    def _narrow(self, ties: Ties) -> None:
        """Finds how far the parts of the network with equal parts can shrink. Where they cannot,
        their channels stay, for the reason that one of them has."""
        regions = self._narrowing.regions
        held = ties.held()
        some = {index for index, region in enumerate(regions) if not held[region.classes].all()}
        self._narrowing.find_levels(held, some)
        for region in regions:
            if len(region.levels) == 1:
                reasons = [reason for reason in ties.reasons[region.classes] if reason]
                free = region.classes[ties.reasons[region.classes] == ""]
                ties.reasons[free] = reasons[0] if reasons else PARTS

    def _loses(self, name: str) -> bool:
        return bool(self.goes(name).any())

    def told(self) -> str:
        """How many channels stay, and why, in a few words."""
        total: Counter[str] = Counter()
        for reasons in self.tied.values():
            total.update(reasons)
        parts = ", ".join(f"{reason}: {number:,}" for reason, number in total.items())
        layers = "1 layer" if len(self.tied) == 1 else f"{len(self.tied)} layers"
        stay = f"{total.total():,} of {self.counted:,} input channels stay"
        return f"{stay}, in {layers} ({parts})"

    def goes(self, name: str) -> np.ndarray:
        """bool [I]: may the layer lose this input channel?"""
        own = self.inputs[name]
        return np.asarray(self.free[own] | np.isin(own, self._behind.get(name, ())))

    @property
    def kinds(self) -> np.ndarray:
        """[classes]: equal for those that lie in the same values."""
        return self._narrowing.kinds

    def alone_classes(self) -> np.ndarray:
        """bool [classes]: may go, whatever happens to the others."""
        return self.free & (self._narrowing.of_class < 0)

    def alone(self, name: str) -> bool:
        """May the layer do without any of its input channels, whatever happens to the others?"""
        in_parts = self._narrowing.of_class[self.inputs[name]] >= 0
        return bool((self.goes(name) & ~in_parts).all())

    # ------------------------------------------------------------ units

    def pools(self, scores: ClassScores) -> list[Pool]:
        """All pools; the scores decide which classes make up a unit where parts have to stay equal,
        the lowest first."""
        found: list[Pool] = []
        taken = np.zeros(self.coupling.count, bool)
        ranked = np.where(self._held, np.inf, scores.whole)
        for region in self._narrowing.regions:
            taken[region.classes] = True
            if self.free[region.classes].any():
                units = _nested(region, self._narrowing.kinds, ranked)
                found.append(Pool("", units, nested=True))
        rest = np.flatnonzero(self.free & ~taken)
        found += [Pool("", list(classes[:, None])) for classes in self._alike(rest)]
        for name, behind in self._behind.items():
            found += [Pool("", list(own[:, None]), name) for own in self._alike(behind)]
        return self._named(found)

    def _alike(self, classes: np.ndarray) -> list[np.ndarray]:
        kinds = self._narrowing.kinds[classes]
        _, first = np.unique(kinds, return_index=True)
        return [classes[kinds == kinds[place]] for place in np.sort(first)]

    def _named(self, pools: list[Pool]) -> list[Pool]:
        """In the order of the layers, each named after the first one that loses its channels."""
        names = [layer.name for layer in self.readers]
        readers = {}
        for pool in pools:
            own = np.concatenate(pool.units)
            first = next(name for name in names if np.isin(self.inputs[name], own).any())
            readers[id(pool)] = pool.reader or first
        pools = sorted(pools, key=lambda pool: names.index(readers[id(pool)]))
        count: dict[str, int] = {}
        for pool in pools:
            name = readers[id(pool)]
            count[name] = count.get(name, 0) + 1
            pool.name = name if count[name] == 1 else f"{name}:{count[name]}"
        return pools

    # ------------------------------------------------------------ scores and masks

    def unit_scores(self, pools: Sequence[Pool], scores: ClassScores) -> dict[str, torch.Tensor]:
        """``[1, units]`` by pool: the mean over the classes of a unit; where parts have to stay
        equal, no unit scores less than those that go before it."""
        found = {}
        for pool in pools:
            whole = scores.whole if pool.reader is None else scores.of(pool.reader)
            own = np.array([whole[unit].mean() for unit in pool.units])
            if pool.nested:
                own = np.maximum.accumulate(own[::-1])[::-1]
            found[pool.name] = torch.from_numpy(own.copy())[None]
        return found

    def layer_masks(
        self, pools: Sequence[Pool], kept: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """bool ``[O, I/groups]`` by reader: what is left when of every pool the units stay that
        ``kept`` (bool ``[1, units]``) has."""
        gone = np.zeros(self.coupling.count, bool)
        alone: dict[str, np.ndarray] = {}
        for pool in pools:
            units = kept[pool.name].cpu().numpy()[0]
            lost = [unit for unit, stays in zip(pool.units, units, strict=True) if not stays]
            where = gone
            if pool.reader is not None:
                where = alone.setdefault(pool.reader, np.zeros(self.coupling.count, bool))
            where[np.concatenate([*lost, np.zeros(0, np.int64)])] = True
        masks = {}
        for layer in self.readers:
            own = self.inputs[layer.name]
            lost_here = gone | alone[layer.name] if layer.name in alone else gone
            left = torch.from_numpy(~lost_here[own]).to(layer.module.weight.device)
            masks[layer.name] = layer.mask_of(left)
        return masks

    def left_of(self, pools: Sequence[Pool], masks: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """bool ``[1, units]`` by pool: False for what all of ``masks`` (bool ``[O, I/groups]``, of
        layers that hold some) have dropped already."""
        found = {}
        columns = {
            layer.name: layer.inputs_of(masks[layer.name]).cpu().numpy()
            for layer in self.readers
            if layer.name in masks
        }
        for pool in pools:
            names = [each.name for each in self.readers if pool.reader in (None, each.name)]
            left = np.zeros(self.coupling.count, bool)
            for name in names:
                own = self.inputs[name]
                left[own[columns[name]] if name in columns else own] = True
            units = [bool(left[unit].any()) for unit in pool.units]
            found[pool.name] = torch.tensor([units])
        return found


class ClassScores:
    """What a criterion says of the channels that may go. ``scores``: by reader, ``[I]``, higher is
    kept; all readers of a channel count, by their sum or by their ``mean``. ``whole``: float64
    [classes]."""

    def __init__(self, channels: ChannelPools, scores: Mapping[str, torch.Tensor], *, mean: bool):
        self._channels, self._scores, self._mean = channels, scores, mean
        self.whole = self._over(list(scores))

    def of(self, reader: str) -> np.ndarray:
        """float64 [classes]: what this reader alone says, if it says anything."""
        return self._over([reader]) if reader in self._scores else self.whole

    def _over(self, names: Sequence[str]) -> np.ndarray:
        count = self._channels.coupling.count
        total, number = np.zeros(count), np.zeros(count)
        for name in names:
            own = self._channels.inputs[name]
            np.add.at(total, own, self._scores[name].detach().cpu().double().numpy())
            np.add.at(number, own, 1.0)
        return total / np.maximum(number, 1.0) if self._mean else total

    def unknown(self) -> str | None:
        """The first reader of a channel that may go of which nothing is said."""
        known = np.zeros(self._channels.coupling.count, bool)
        for name in self._scores:
            known[self._channels.inputs[name]] = True
        for layer in self._channels.readers:
            own = self._channels.inputs[layer.name]
            if not known[own][self._channels.goes(layer.name)].all():
                return layer.name
        return None


class PooledFootprint:
    """The footprint of a network by what is left of its pools, for ``budget.choose``."""

    def __init__(self, footprint: Footprint, units: ChannelPools, pools: Sequence[Pool]):
        self._footprint, self._units, self._pools = footprint, units, pools
        self.dense = footprint.dense

    def size(self, kept: Mapping[str, torch.Tensor] | None = None) -> Size:
        if kept is None:
            return self._footprint.size()
        everything = {p.name: torch.ones(1, len(p.units), dtype=torch.bool) for p in self._pools}
        return self._footprint.size(self._units.layer_masks(self._pools, {**everything, **kept}))

    def cut_off(self, kept: Mapping[str, torch.Tensor]) -> list[str]:
        return self._footprint.cut_off(self._units.layer_masks(self._pools, kept))

    def backbone(self, scores: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, int]:
        """Nothing has to be held: every pool keeps a unit, which all of its readers read."""
        return {}


def _beside_join(graph: Graph, value: str) -> bool:
    """Are channels of a concatenation read there, or of a map that one has too? Looked for back to
    the layer that writes the map, through what makes channel c of channel c of one input."""
    while True:
        if any(_joins(node) for node in graph.consumers(value)):
            return True
        producer = graph.producer(value)
        if producer is None or _joins(producer):
            return producer is not None
        if producer.has_weight():
            depthwise = producer.params.get("groups", 1) == producer.shape[0]
            passes_on = depthwise and producer.shape[0] > 1
        else:
            by_channel = producer.rule.channelwise or producer.rule.elementwise
            passes_on = by_channel and len(producer.inputs) == 1
        if not passes_on:
            return False
        value = producer.inputs[0]


def _joins(node: Node) -> bool:
    return len(node.inputs) > 1 and node.rule.rearranges


def _count(reasons: np.ndarray) -> dict[str, int]:
    names, counts = np.unique(reasons[reasons != ""].astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _nested(region: Region, kinds: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    """The units of a region, the one that goes last in front: between two levels the classes with
    the lowest scores of those kinds of which fewer are left."""
    by_kind = {}
    for kind in np.unique(kinds[region.classes]).tolist():
        own = region.classes[kinds[region.classes] == kind]
        by_kind[kind] = own[np.argsort(-scores[own], kind="stable")]
    units: list[np.ndarray] = []
    before = region.levels[-1].quotas
    for level in region.levels[-2::-1]:
        if any(level.quotas.get(kind, 0) > count for kind, count in before.items()):
            continue
        lost = [by_kind[k][level.quotas.get(k, 0) : count] for k, count in before.items()]
        units.append(np.concatenate(lost))
        before = level.quotas
    units.append(np.concatenate([by_kind[kind][:count] for kind, count in before.items()]))
    return units[::-1]
