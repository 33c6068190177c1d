"""A network as a list with its wires: one row for each node in the order of execution, and beside
the rows a line for each value from where it is written to where it is read, as in the histories of
version control. So a network of a thousand nodes is drawn as surely as one of ten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kernelprune.format import Graph, Node

ROW = 26  # pixels from one row to the next
_LANE = 14
_MOST_LANES = 48  # more values at once share the last line
_DOT = 4


@dataclass(frozen=True)
class Row:
    """An input, an output or a node: ``kind`` is "input", "output", "layer" (it has weights) or
    "other". ``reads`` and ``writes`` are names of values."""

    name: str
    kind: str
    reads: Sequence[str]
    writes: str | None
    node: Node | None = None
    shape: Sequence[int] = ()


@dataclass(frozen=True)
class Wires:
    """``lanes``: of each row, the column of its dot, from 0. ``edges``: from (lane, row) to
    (lane, row), one for each value and reader. ``width``: how many lanes there are."""

    lanes: list[int]
    edges: list[tuple[tuple[int, int], tuple[int, int]]]
    width: int


def rows_of(graph: Graph) -> list[Row]:
    """Inputs, nodes in the order of execution, outputs."""
    shapes = graph.shapes()
    rows = [Row(value.name, "input", (), value.name, shape=value.shape) for value in graph.inputs]
    for node in graph.nodes:
        kind = "layer" if node.has_weight() else "other"
        rows.append(Row(node.name, kind, node.inputs, node.output, node, node.shape))
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        rows.append(Row(name, "output", (value,), None, shape=shapes[value]))
    return rows


@dataclass
class _Lanes:
    """Which value runs down in which lane, while the rows are laid out."""

    held: list[str | None] = field(default_factory=list)

    def first_free(self) -> int:
        if None not in self.held:
            self.held.append(None)
        return self.held.index(None)


def wires(rows: Sequence[Row]) -> Wires:
    """A reader stands in the lane of a value that nobody reads after it, so a plain chain is one
    straight line, and what is skipped runs beside it."""
    last = {value: place for place, row in enumerate(rows) for value in row.reads}
    written: dict[str, tuple[int, int]] = {}
    lanes, places, edges = _Lanes(), [], []
    for place, row in enumerate(rows):
        values = list(dict.fromkeys(row.reads))
        ended = [written[value][0] for value in values if last[value] == place]
        for lane in ended:
            lanes.held[lane] = None
        own = min(ended) if ended else lanes.first_free()
        edges += [(written[value], (own, place)) for value in values]
        if row.writes is not None:
            written[row.writes] = own, place
            if row.writes in last:
                lanes.held[own] = row.writes
        places.append(own)
    return Wires(places, edges, max(places, default=0) + 1)


def pixels(lanes: int) -> int:
    """How wide so many lanes are drawn."""
    return (min(lanes, _MOST_LANES) + 1) * _LANE


def drawing(rows: Sequence[Row], found: Wires) -> str:
    """The wires as SVG: lines first, then a dot for each row."""

    def at(lane: int, place: int) -> tuple[int, int]:
        return (min(lane, _MOST_LANES - 1) + 1) * _LANE, place * ROW + ROW // 2

    lines: dict[str, None] = {}
    for (lane, start), (to_lane, end) in found.edges:
        x, y = at(lane, start)
        to_x, to_y = at(to_lane, end)
        if x == to_x:
            lines[f"M{x} {y}V{to_y}"] = None
            continue
        above, middle = to_y - ROW, to_y - ROW // 2
        down = f"M{x} {y}V{above}" if above > y else f"M{x} {above}"
        lines[f"{down}C{x} {middle} {to_x} {middle} {to_x} {to_y}"] = None
    dots = []
    for place, (row, lane) in enumerate(zip(rows, found.lanes, strict=True)):
        x, y = at(lane, place)
        dots.append(f'<circle class="{row.kind}" cx="{x}" cy="{y}" r="{_DOT}"/>')
    width, height = pixels(found.width), len(rows) * ROW
    return (
        f'<svg class="wires" width="{width}" height="{height}" aria-hidden="true">'
        f'<path d="{"".join(lines)}"/>{"".join(dots)}</svg>'
    )
