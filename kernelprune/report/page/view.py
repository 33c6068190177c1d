"""A page's words and charts, as its template takes them: everything is text here, or safe HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from kernelprune.format import Node
from kernelprune.report.page.charts import Bar, columns, meter
from kernelprune.report.page.facts import Facts
from kernelprune.report.page.matrices import block_densities, picture
from kernelprune.report.page.network import Row, drawing, pixels, rows_of, wires
from kernelprune.report.page.options import Strengths
from kernelprune.report.page.summary import cards, milliseconds, origin, percent, times_as
from kernelprune.report.tables import count, kernel_name
from kernelprune.runtime import LayerProfile
from kernelprune.runtime.candidates import LayerChoices

ACCENT = (30, 146, 134)  # between --accent of page.css for light and for dark pages
# Pixels of a matrix: many layers get smaller pictures, so that a page stays small.
_SIDES = ((32, 128), (80, 96), (200, 64), (600, 32))
_LEAST_SIDE = 16
_MOST_CHOICES = 6


def page(facts: Facts) -> dict[str, Any]:
    """What the template is filled with."""
    nodes = {node.name: node for node in facts.graph.nodes}
    weighted = [layer for layer in facts.layers if layer.all_connections]
    timed = facts.timing is not None
    return {
        "name": facts.name,
        "subtitle": _subtitle(facts),
        "cards": cards(facts),
        "strips": _strips(facts.layers, timed),
        "layers": [_layer(layer, nodes[layer.name], facts.layers) for layer in facts.layers],
        "total": _total(facts),
        "timed": timed,
        "batch": facts.options.batch,
        "network": _network(facts),
        "matrices": _matrices([nodes[layer.name] for layer in weighted]),
        "strengths": _strengths(facts.options.strengths),
        "kernels": _kernels(facts),
        "origin": origin(facts),
        "machine": _machine(facts.machine),
    }


def _subtitle(facts: Facts) -> str:
    kinds = {_kind(node) for node in facts.graph.nodes if node.has_weight()}
    words = " and ".join(sorted(kinds)) or "float32"
    engine = facts.engine
    threads = f"{engine['threads']} thread{'s' if engine['threads'] > 1 else ''}"
    return (
        f"{len(facts.graph.nodes):,} nodes, weights in {words}; runs with "
        f"{engine['instruction set']} on {threads}, batch {engine['batch']}"
    )


def _kind(node: Node) -> str:
    return "float32" if node.weight_scale is None else "int8"


def _shape(shape: Iterable[int]) -> str:
    return "×".join(str(size) for size in shape)


# --- layers --------------------------------------------------------------------------------------


def _strips(layers: Sequence[LayerProfile], timed: bool) -> list[dict[str, Any]]:
    """Charts one above the other, each with a bar for every node in the order of execution."""
    density = [
        _bar(x, x.density if x.all_connections else None, f"{percent(x.density)} kept")
        for x in layers
    ]
    strips = [_strip("Density in file", "100 %", density, "of layers with weights")]
    if timed:
        most = max((layer.milliseconds for layer in layers), default=0.0)
        times = [
            _bar(
                x,
                x.milliseconds / most if most else 0.0,
                f"{milliseconds(x.milliseconds, most)} ms",
            )
            for x in layers
        ]
        strips.append(
            _strip("Time", f"{milliseconds(most, most)} ms", times, "of each node, in order")
        )
        shares = [
            _bar(x, x.peak_share if x.macs else None, f"{percent(x.peak_share)} of peak")
            for x in layers
        ]
        note = "multiply-adds per second over the FMA peak of the threads in use"
        strips.append(_strip("Share of peak", "100 %", shares, note))
    return strips


def _bar(layer: LayerProfile, share: float | None, words: str) -> Bar:
    return Bar(share, f"{layer.name} ({layer.op}): {words}")


def _strip(name: str, top: str, bars: list[Bar], note: str) -> dict[str, Any]:
    return {
        "name": name,
        "top": top,
        "note": note,
        "chart": Markup(columns(bars, f"{name}: {note}")),
        "most": 100 * max(len(bars), 1),
    }


def _layer(layer: LayerProfile, node: Node, layers: Sequence[LayerProfile]) -> dict[str, Any]:
    """A row of the table of layers."""
    has_weights = layer.all_connections > 0
    slowest = max((each.milliseconds for each in layers), default=0.0)
    return {
        "name": layer.name,
        "op": layer.op,
        "kind": _kind(node) if has_weights else "",
        "shape": _shape(layer.shape),
        "connections": f"{layer.connections:,}" if has_weights else "",
        "of": f"{layer.connections:,} of {layer.all_connections:,} connections",
        "density": percent(layer.density) if has_weights else "",
        "density_bar": Markup(meter(layer.density)) if has_weights else "",
        "macs": count(layer.macs) if has_weights else "",
        "time": milliseconds(layer.milliseconds, slowest),
        "time_bar": Markup(meter(layer.milliseconds / slowest if slowest else 0.0)),
        "peak": f"{layer.peak_share:.0%}".replace("%", " %") if has_weights else "",
        "peak_bar": Markup(meter(layer.peak_share)) if has_weights else "",
        "kernel": kernel_name(layer.kernel),
    }


def _total(facts: Facts) -> dict[str, str]:
    kept = sum(layer.connections for layer in facts.layers)
    total = sum(layer.all_connections for layer in facts.layers)
    times = [layer.milliseconds for layer in facts.layers]
    return {
        "connections": f"{kept:,}",
        "density": percent(kept / max(total, 1)),
        "macs": count(sum(layer.macs for layer in facts.layers)),
        "time": milliseconds(sum(times), max(times, default=0.0)),
    }


# --- pictures ------------------------------------------------------------------------------------


def _network(facts: Facts) -> dict[str, Any]:
    rows = rows_of(facts.graph)
    found = wires(rows)
    return {
        "drawing": Markup(drawing(rows, found)),
        "indent": pixels(found.width),
        "rows": [_network_row(row) for row in rows],
    }


def _network_row(row: Row) -> dict[str, str]:
    node = row.node
    op = row.kind if node is None else node.op
    reads = f", reads {', '.join(row.reads)}" if row.reads else ""
    return {
        "name": row.name,
        "op": op,
        "shape": _shape(row.shape),
        "bytes": "int8" if node is not None and node.quantization is not None else "",
        "title": f"{row.name}: {op} {_shape(row.shape)}{reads}",
    }


def _matrices(nodes: Sequence[Node]) -> dict[str, Any]:
    side = next((side for most, side in _SIDES if len(nodes) <= most), _LEAST_SIDE)
    layers = [(node, node.sparse()) for node in nodes]
    return {
        "many": len(nodes) > _SIDES[0][0],
        "side": side,
        "reduced": any(max(each.out_channels, each.in_channels) > side for _, each in layers),
        "tiles": [
            {
                "name": node.name,
                "picture": picture(block_densities(each, side), ACCENT),
                "sizes": f"{each.in_channels} → {each.out_channels}",
                "density": percent(node.density()),
                "title": f"{node.name}: {each.in_channels:,} input channels from left to right, "
                f"{each.out_channels:,} output channels from top to bottom, "
                f"{each.count():,} connections",
            }
            for node, each in layers
        ],
    }


def _strengths(strengths: Strengths | None) -> list[dict[str, Any]]:
    """A histogram of all layers, and one for each."""
    if strengths is None:
        return []
    edges = strengths.edges
    names = list(strengths.counts)
    parts = [(name, strengths.counts[name], strengths.kept[name]) for name in names]
    sums = [
        [sum(row[place] for row in part) for place in range(len(edges) - 1)]
        for part in ([counts for _, counts, _ in parts], [kept for _, _, kept in parts])
    ]
    if len(parts) > 1:
        parts.insert(0, ("all layers", sums[0], sums[1]))
    found = []
    for name, counts, kept in parts:
        most, total = max(counts, default=0), sum(counts)
        bars = [
            Bar(number / max(most, 1), f"{low:.3g} to {high:.3g}: {number:,}, {left:,} kept",
                left / max(number, 1))
            for (low, high), number, left in zip(pairwise(edges), counts, kept, strict=True)
        ]  # fmt: skip
        found.append(
            {
                "name": name,
                "chart": Markup(columns(bars, f"strengths of {name}")),
                "kept": f"{sum(kept):,} of {total:,} kept",
                "low": f"≤ {edges[1]:.2g}",
                "high": f"{edges[-1]:.2g}",
            }
        )
    return found


# --- kernels and machine -------------------------------------------------------------------------


def _kernels(facts: Facts) -> list[dict[str, Any]]:
    """Each layer with what was considered for it, the cheapest first."""
    return [
        _considered(layer, facts.choices[layer.name], facts.options.batch)
        for layer in facts.layers
        if layer.name in facts.choices
    ]


def _considered(layer: LayerProfile, found: LayerChoices, batch: int) -> dict[str, Any]:
    taken = found.taken
    measured = layer.milliseconds * found.lanes / batch  # as expected: for those side by side
    shown = list(found.choices[:_MOST_CHOICES])
    if taken not in shown:
        shown.append(taken)
    most = max(choice.milliseconds for choice in shown)
    return {
        "name": layer.name,
        "chosen": taken.name,
        "images": "1 image" if found.lanes == 1 else f"{found.lanes} images",
        "expected": milliseconds(taken.milliseconds, taken.milliseconds),
        "measured": milliseconds(measured, measured) if measured else "",
        "number": len(found.choices),
        "left_out": len(found.choices) - len(shown),
        "choices": [
            {
                "name": choice.name,
                "kernels": " + ".join(choice.kernels),
                "expected": milliseconds(choice.milliseconds, most),
                "bar": Markup(meter(choice.milliseconds / most if most else 0.0)),
                "times": times_as(choice.milliseconds, taken.milliseconds),
                "chosen": choice is taken,
            }
            for choice in shown
        ],
    }


def _machine(machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in machine.items():
        if isinstance(value, Mapping):
            rows += [(name, version) for name, version in value.items() if version is not None]
        elif value is not None:
            listed = isinstance(value, (list, tuple))
            words = ", ".join(map(str, value)) if listed else str(value)
            words = f"{value:.2f}" if isinstance(value, float) else words
            rows.append((key.replace("_", " "), words))
    return rows
