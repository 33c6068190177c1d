"""The dry run: what pruning would keep, layer by layer, without changing anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kernelprune.errors import Error
from kernelprune.prune.checks import check_number
from kernelprune.prune.histogram import Histogram, histogram
from kernelprune.prune.layers import Layer
from kernelprune.prune.threshold import select
from kernelprune.text import plain

_THIN = 0.01  # a layer below this density gets a warning


@dataclass
class LayerPlan:
    """One layer. ``map_size`` (of the output) and the multiply-adds per image are None when no
    example input was given; ``prunable`` is False for a layer that is kept whole;
    ``milliseconds`` per batch were measured if the plan is for a time limit."""

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
    ``connections``, ``kept``, ``density``, ``macs``, ``macs_kept`` count the whole model;
    ``prunable_density`` counts the layers that may be pruned, as the argument ``density`` does.
    ``histogram``: how the scores are spread and what is kept of them; ``print`` it too.
    ``milliseconds``: of the whole network per batch, as measured, if the plan is for a time limit.
    """

    rows: list[LayerPlan]
    masks: dict[str, torch.Tensor] = field(repr=False, default_factory=dict)
    method: str = ""
    scope: str = ""
    histogram: Histogram | None = field(repr=False, default=None)
    milliseconds: float | None = None

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
        """Multiply-adds per image of the dense model; None when no example input was given."""
        return _sum([row.macs for row in self.rows])

    @property
    def macs_kept(self) -> int | None:
        return _sum([row.macs_kept for row in self.rows])

    @property
    def macs_density(self) -> float | None:
        """Kept multiply-adds / those of the dense model."""
        if self.macs is None or self.macs_kept is None:
            return None
        return self.macs_kept / self.macs

    @property
    def warnings(self) -> list[str]:
        """One line per layer that keeps less than 1 % of its connections."""
        return [
            f"layer '{row.name}' keeps {row.kept} of {row.connections} connections "
            f"({row.density:.2%}): it may be cut off in effect"
            for row in self.rows
            if row.thin
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the masks, as plain numbers, strings and lists (json)."""
        names = ["connections", "kept", "density", "prunable_connections", "prunable_kept"]
        names += ["prunable_density", "macs", "macs_kept", "macs_density", "milliseconds"]
        return {
            "method": self.method,
            "scope": self.scope,
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
                    "macs": row.macs,
                    "macs_kept": row.macs_kept,
                    "milliseconds": row.milliseconds,
                    "prunable": row.prunable,
                }
                for row in self.rows
            ],
            "warnings": self.warnings,
            "histogram": None if self.histogram is None else self.histogram.to_dict(),
        }

    def __str__(self) -> str:
        head = ["layer", "in", "out", "kernel", "map", "connections", "kept", "density"]
        head += ["MACs", "kept MACs", *(["ms"] if self.milliseconds is not None else []), ""]
        table = [head, *(_cells(row) for row in self.rows)]
        prunable = [row for row in self.rows if row.prunable]
        table.append(_total("prunable layers", prunable))
        table.append(_total("whole model", self.rows))
        if self.milliseconds is not None:
            rest = self.milliseconds - sum(row.milliseconds or 0.0 for row in prunable)
            times = [row.milliseconds for row in self.rows]
            times += [self.milliseconds - rest, self.milliseconds]
            for line, value in zip(table[1:], times, strict=True):
                line.insert(-1, "" if value is None else f"{value:.3f}")
        widths = [max(len(line[column]) for line in table) for column in range(len(head))]
        lines = [_line(line, widths) for line in table]
        rule = "-" * max(len(line) for line in lines)
        lines = [lines[0], rule, *lines[1:-2], rule, *lines[-2:]]
        title = " ".join(word for word in (self.method, self.scope and f"({self.scope})") if word)
        warnings = [f"warning: {plain(warning)}" for warning in self.warnings]
        return "\n".join([*([title] if title else []), *lines, *warnings])


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
        plain(row.name),
        str(row.in_channels),
        str(row.out_channels),
        _sides(row.kernel),
        _sides(row.map_size),
        _count(row.connections),
        _count(row.kept),
        f"{row.density:.4f}",
        _count(row.macs),
        _count(row.macs_kept),
        "under 1 %" if row.thin else note,
    ]


def _total(label: str, rows: Sequence[LayerPlan]) -> list[str]:
    connections, kept = sum(row.connections for row in rows), sum(row.kept for row in rows)
    dense, remaining = _sum([row.macs for row in rows]), _sum([row.macs_kept for row in rows])
    share = "" if dense is None or remaining is None else f"{remaining / dense:.2%} of the MACs"
    numbers = [_count(connections), _count(kept), f"{kept / connections:.4f}"]
    return [label, "", "", "", "", *numbers, _count(dense), _count(remaining), share]


def _line(cells: list[str], widths: list[int]) -> str:
    last = len(cells) - 1
    aligned = [
        cell.ljust(width) if column in (0, last) else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def make_plan(
    layers: Sequence[Layer],
    scores: Mapping[str, torch.Tensor],
    *,
    density: float | None,
    macs: float | None,
    scope: str,
    method: str,
    kept: Mapping[str, torch.Tensor] | None = None,
    channels: bool = False,
) -> Plan:
    """What to keep of ``layers`` by ``scores`` (``[O, I/groups]`` per prunable layer).

    ``density``: kept share of the connections of all prunable layers. ``macs``: kept share of
    the multiply-adds of the whole dense model, layers that are kept whole included. ``channels``:
    whole input channels are kept or dropped, ``scores`` are ``[1, I]`` and ``density`` counts them.
    Raises Error as ``threshold.select``, and when ``macs`` is given without a traced input.
    """
    budget, costs = None, None
    if macs is not None:
        check_number("macs", macs, above=0, most=1)
        if any(layer.cost is None for layer in layers):
            raise Error("macs= needs an example input x: without it the map sizes are unknown")
        costs = {layer.name: layer.cost or 0 for layer in layers}
        dense = sum(math.prod(layer.shape) * costs[layer.name] for layer in layers)
        fixed = sum(
            int(layer.present().sum()) * costs[layer.name] for layer in layers if not layer.prunable
        )
        if fixed > macs * dense:
            raise Error(
                f"macs={macs}: the layers that are kept whole take {fixed / dense:.1%} of the "
                "multiply-adds already; raise the budget or include= them"
            )
        budget = int(macs * dense) - fixed
    if channels:
        rows = {layer.name: layer.out_channels for layer in layers}
        costs = None if costs is None else {n: cost * rows[n] for n, cost in costs.items()}
        kept = {name: mask.any(0, keepdim=True) for name, mask in (kept or {}).items()}
    masks = select(scores, density=density, scope=scope, macs=budget, costs=costs, kept=kept)
    spread = histogram(scores, masks, scope)
    if channels:
        masks = {name: mask.repeat(rows[name], 1) for name, mask in masks.items()}
    plan = plan_of(layers, masks, method=method, scope=scope)
    plan.histogram = spread
    return plan


def plan_of(
    layers: Sequence[Layer], kept: Mapping[str, torch.Tensor | int], *, method: str, scope: str
) -> Plan:
    """What is kept, by layer: a mask ``[O, I/groups]``, or a number where no choice was made."""
    rows = [_row(layer, kept.get(layer.name)) for layer in layers]
    masks = {name: mask for name, mask in kept.items() if isinstance(mask, torch.Tensor)}
    return Plan(rows, masks, method, scope)


def _row(layer: Layer, chosen: torch.Tensor | int | None) -> LayerPlan:
    connections = math.prod(layer.shape)
    if not isinstance(chosen, int):
        chosen = int((layer.present() if chosen is None else chosen).sum())
    kept = chosen
    return LayerPlan(
        name=layer.name,
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel=layer.kernel,
        map_size=layer.map_size,
        connections=connections,
        kept=kept,
        macs=None if layer.cost is None else connections * layer.cost,
        macs_kept=None if layer.cost is None else kept * layer.cost,
        prunable=layer.prunable,
    )
