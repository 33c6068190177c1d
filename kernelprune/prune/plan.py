"""The dry run: what pruning would keep, layer by layer, without changing anything."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kernelprune.columns import RULE, Column, text_table
from kernelprune.graph.footprint import Footprint
from kernelprune.prune.budget import Sizes, choose
from kernelprune.prune.connection_groups import GroupedFootprint, Grouping
from kernelprune.prune.group_options import group_size
from kernelprune.prune.histogram import Histogram, histogram
from kernelprune.prune.layers import Layer
from kernelprune.prune.pools import ChannelPools, ClassScores, PooledFootprint
from kernelprune.text import plain

_THIN = 0.01  # a layer below this density gets a warning
_COLUMNS = (
    Column("layer", "name"),
    Column("in", spare=6),
    Column("out", spare=6),
    Column("kernel", spare=7),
    Column("map", spare=8),
    Column("connections", spare=3),
    Column("kept"),
    Column("density"),
    Column("exported", spare=4),
    Column("MACs", spare=5),
    Column("exported MACs"),
    Column("", "words"),
)


@dataclass
class LayerPlan:
    """One layer. ``kept``: connections that pruning leaves; ``exported``: those of them that the
    exported network has, without dead channels. ``macs`` and ``macs_kept``: multiply-adds per
    image, dense and of what is exported. They, ``exported`` and ``map_size`` (of the output) are
    None when no example input was given; ``prunable`` is False for a layer that is kept whole;
    ``milliseconds`` per batch were measured if the plan is for a time limit. ``residual``: of a
    layer that was fitted to the dense network, the mean squared error of its outputs in parts of
    their variance, with the kept weights as they were and as fitted."""

    name: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    map_size: tuple[int, int] | None
    connections: int
    kept: int
    macs: int | None
    macs_kept: int | None
    prunable: bool
    milliseconds: float | None = None
    exported: int | None = None
    residual: tuple[float, float] | None = None

    @property
    def density(self) -> float:
        return self.kept / self.connections

    @property
    def thin(self) -> bool:
        return self.prunable and self.density < _THIN


@dataclass
class Plan:
    """Result of a dry run or of pruning; ``print(plan)`` shows it as a table.

    ``masks``: bool ``[O, I/groups]`` per prunable layer, True where a connection is kept.
    ``connections``, ``kept``, ``density`` count the layers; ``macs`` and ``macs_kept`` the whole
    network as exported, with ``unfolded`` (dense and kept): batch norms that fold into no layer,
    and layers without a module.
    ``prunable_density`` counts the layers that may be pruned, as the argument ``density`` does.
    ``notes``: what should be known of the choice, a line each.
    ``group``: how many neighbouring connections are kept or dropped together (the option).
    ``tied``: of pruned channels, by layer how many input channels stay in any case, by the reason.
    ``histogram``: how the scores are spread and what is kept of them; ``print`` it too.
    ``milliseconds``: of the whole network per batch, as measured, if the plan is for a time limit.
    """

    rows: list[LayerPlan]
    masks: dict[str, torch.Tensor] = field(repr=False, default_factory=dict)
    method: str = ""
    scope: str = ""
    histogram: Histogram | None = field(repr=False, default=None)
    milliseconds: float | None = None
    unfolded: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)
    tied: dict[str, dict[str, int]] = field(repr=False, default_factory=dict)
    group: int | tuple[int, int] = 1

    @property
    def connections(self) -> int:
        return sum(row.connections for row in self.rows)

    @property
    def kept(self) -> int:
        return sum(row.kept for row in self.rows)

    @property
    def density(self) -> float:
        return self.kept / self.connections

    @property
    def prunable_connections(self) -> int:
        return sum(row.connections for row in self.rows if row.prunable)

    @property
    def prunable_kept(self) -> int:
        return sum(row.kept for row in self.rows if row.prunable)

    @property
    def prunable_density(self) -> float:
        return self.prunable_kept / self.prunable_connections

    @property
    def macs(self) -> int | None:
        """Multiply-adds per image of the dense network as exported; None when no example input was
        given."""
        return _sum([*(row.macs for row in self.rows), self.unfolded[0]])

    @property
    def macs_kept(self) -> int | None:
        """Multiply-adds per image of the exported network, without dead channels."""
        return _sum([*(row.macs_kept for row in self.rows), self.unfolded[1]])

    @property
    def exported(self) -> int | None:
        """Connections of the layers in the exported network."""
        return _sum([row.exported for row in self.rows])

    @property
    def macs_density(self) -> float | None:
        """Multiply-adds of the exported network / those of the dense one."""
        if self.macs is None or self.macs_kept is None:
            return None
        return self.macs_kept / self.macs

    @property
    def warnings(self) -> list[str]:
        """The notes, and one line per layer that keeps less than 1 % of its connections."""
        return self.notes + [
            f"layer '{row.name}' keeps {row.kept} of {row.connections} connections "
            f"({row.density:.2%}): it may be cut off in effect"
            for row in self.rows
            if row.thin
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the masks, as plain numbers, strings and lists (json)."""
        names = ["connections", "kept", "density", "prunable_connections", "prunable_kept"]
        names += ["prunable_density", "exported", "macs", "macs_kept", "macs_density"]
        names += ["milliseconds"]
        return {
            "method": self.method,
            "scope": self.scope,
            "group": list(self.group) if isinstance(self.group, tuple) else self.group,
            "totals": {name: getattr(self, name) for name in names},
            "layers": [
                {
                    "name": row.name,
                    "in_channels": row.in_channels,
                    "out_channels": row.out_channels,
                    "kernel": list(row.kernel),
                    "map_size": None if row.map_size is None else list(row.map_size),
                    "connections": row.connections,
                    "kept": row.kept,
                    "density": row.density,
                    "exported": row.exported,
                    "macs": row.macs,
                    "macs_kept": row.macs_kept,
                    "milliseconds": row.milliseconds,
                    "residual": None if row.residual is None else list(row.residual),
                    "prunable": row.prunable,
                }
                for row in self.rows
            ],
            "warnings": self.warnings,
            "tied": self.tied,
            "histogram": None if self.histogram is None else self.histogram.to_dict(),
        }

    def __str__(self) -> str:
        unfolded = [*[""] * 8, *map(_count, self.unfolded)]
        rows = [_cells(row) for row in self.rows]
        rows += [["unfolded batch norms", *unfolded, ""]] if self.unfolded[0] else []
        prunable = [row for row in self.rows if row.prunable]
        totals = [_total("prunable layers", prunable)]
        totals.append(_total("whole model", self.rows, self.unfolded))
        columns = list(_COLUMNS)
        for own, of_layers, of_totals in self._measured():
            columns.insert(-1, own)
            cells = of_layers + [""] * (len(rows) - len(of_layers)) + of_totals
            for row, cell in zip(rows + totals, cells, strict=True):
                row.insert(-1, cell)
        table = text_table(columns, [RULE, *rows, RULE, *totals])
        words = (self.method, self.scope and f"({self.scope})", _grouped(self.group))
        title = " ".join(word for word in words if word)
        warnings = [f"warning: {plain(warning)}" for warning in self.warnings]
        return "\n".join([*([title] if title else []), table, *warnings])

    def _measured(self) -> Iterator[tuple[Column, list[str], list[str]]]:
        """Columns that only some plans have, with the cells of layers and of the two totals."""
        if self.milliseconds is not None:
            times = ["" if r.milliseconds is None else f"{r.milliseconds:.3f}" for r in self.rows]
            prunable = sum(row.milliseconds or 0.0 for row in self.rows if row.prunable)
            yield Column("ms"), times, [f"{prunable:.3f}", f"{self.milliseconds:.3f}"]
        if any(row.residual is not None for row in self.rows):
            for place, head in enumerate(("error", "fitted")):
                errors = [row.residual[place] if row.residual else None for row in self.rows]
                cells = ["" if error is None else f"{error:.3f}" for error in errors]
                yield Column(head, spare=2 - place), cells, ["", ""]


def _grouped(group: int | tuple[int, int]) -> str:
    inputs, outputs = group_size(group)
    if inputs == outputs == 1:
        return ""
    return f"in groups of {inputs} inputs" + (f" by {outputs} outputs" if outputs > 1 else "")


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _sides(sides: tuple[int, int] | None) -> str:
    return "-" if sides is None else f"{sides[0]}x{sides[1]}"


def _cells(row: LayerPlan) -> list[str]:
    note = "" if row.prunable else "kept whole"
    return [
        row.name,
        str(row.in_channels),
        str(row.out_channels),
        _sides(row.kernel),
        _sides(row.map_size),
        _count(row.connections),
        _count(row.kept),
        f"{row.density:.1%}",
        _count(row.exported),
        _count(row.macs),
        _count(row.macs_kept),
        "under 1 %" if row.thin else note,
    ]


def _total(label: str, rows: Sequence[LayerPlan], unfolded: tuple[int, int] = (0, 0)) -> list[str]:
    connections, kept = sum(row.connections for row in rows), sum(row.kept for row in rows)
    exported = _sum([row.exported for row in rows])
    dense = _sum([*(row.macs for row in rows), unfolded[0]])
    remaining = _sum([*(row.macs_kept for row in rows), unfolded[1]])
    share = "" if dense is None or remaining is None else f"{remaining / dense:.2%} of the MACs"
    numbers = [_count(connections), _count(kept), f"{kept / connections:.1%}", _count(exported)]
    return [label, "", "", "", "", *numbers, _count(dense), _count(remaining), share]


def make_plan(
    layers: Sequence[Layer],
    scores: Mapping[str, torch.Tensor],
    *,
    density: float | None,
    macs: float | None,
    scope: str,
    method: str,
    kept: Mapping[str, torch.Tensor] | None = None,
    footprint: Footprint | None = None,
    group: int | tuple[int, int] = 1,
) -> Plan:
    """What to keep of ``layers`` by ``scores`` (``[O, I/groups]`` per prunable layer, or ``[R, C]``
    where connections go by ``group``).

    ``density``: kept share of the connections of all prunable layers. ``macs``: at most this share
    of the multiply-adds of the dense network, both as exported. ``kept``: bool ``[O, I/groups]``,
    what is left of layers. ``footprint``: of the model; None where there was no example input.
    Raises Error as ``budget.choose``.
    """
    grouping = None if group == 1 else Grouping(layers, group, kept or {})
    sizes: Sizes | None = footprint
    if grouping is not None and footprint is not None:
        sizes = GroupedFootprint(footprint, grouping)
    chosen, notes = choose(
        layers,
        scores,
        density=density,
        macs=macs,
        scope=scope,
        kept=kept if grouping is None else grouping.left,
        footprint=sizes,
        units=None if grouping is None else grouping.units,
    )
    masks = chosen if grouping is None else grouping.masks(chosen)
    plan = plan_of(layers, masks, method=method, scope=scope, footprint=footprint)
    plan.histogram = histogram(scores, chosen, scope)
    plan.notes, plan.group = notes, group
    return plan


def plan_channels(
    layers: Sequence[Layer],
    channels: ChannelPools,
    scores: ClassScores,
    footprint: Footprint,
    *,
    density: float | None,
    macs: float | None,
    scope: str,
    held: Mapping[str, torch.Tensor],
) -> Plan:
    """Which channels to keep.

    ``density``: kept share of what may go; ``macs``: as ``make_plan``; ``held``: masks that some
    layers have already. Raises Error as ``budget.choose``.
    """
    pools = channels.pools(scores)
    compared = channels.unit_scores(pools, scores)
    kept, notes = choose(
        layers,
        compared,
        density=density,
        macs=macs,
        scope=scope,
        kept=channels.left_of(pools, held),
        footprint=PooledFootprint(footprint, channels, pools),
    )
    masks = channels.layer_masks(pools, kept)
    masks = {name: mask & held[name] if name in held else mask for name, mask in masks.items()}
    plan = plan_of(layers, masks, method="", scope=scope, footprint=footprint)
    plan.histogram = histogram(compared, kept, scope)
    plan.tied = channels.tied
    plan.notes = notes
    if density is not None and density < 1 and channels.tied:
        plan.notes.append(f"whatever the ratio, {channels.told()}; plan.tied has them by layer")
    return plan


def plan_of(
    layers: Sequence[Layer],
    masks: Mapping[str, torch.Tensor],
    *,
    method: str,
    scope: str,
    footprint: Footprint | None,
) -> Plan:
    """What is kept, by layer, with masks ``[O, I/groups]``, and what of it ``footprint`` says will
    be exported (None where there was no example input)."""
    plan = Plan(
        [_row(layer, masks.get(layer.name)) for layer in layers], dict(masks), method, scope
    )
    if footprint is None:
        return plan
    dense, left = footprint.dense, footprint.size(masks)
    for row in plan.rows:
        row.macs, row.macs_kept = (size.layer_macs.get(row.name, 0) for size in (dense, left))
        row.exported = left.layer_connections.get(row.name, 0)
    plan.unfolded = (
        dense.macs - sum(row.macs or 0 for row in plan.rows),
        left.macs - sum(row.macs_kept or 0 for row in plan.rows),
    )
    return plan


def _row(layer: Layer, mask: torch.Tensor | None) -> LayerPlan:
    return LayerPlan(
        name=layer.name,
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel=layer.kernel,
        map_size=layer.map_size,
        connections=math.prod(layer.shape),
        kept=int((layer.present() if mask is None else mask).sum()),
        macs=None,
        macs_kept=None,
        prunable=layer.prunable,
    )


def warned(plan: Plan) -> Plan:
    """Gives the warnings of a plan that was carried out to whoever called the method for it."""
    found = plan.warnings
    if found:
        more = f" (and {len(found) - 1} more: see plan.warnings)" if len(found) > 1 else ""
        warnings.warn(found[0] + more, UserWarning, stacklevel=3)
    return plan
