"""rich tables. Every function takes data and returns a table; nobody here measures or prints.

Cells are texts, not markup: names and metadata of a file are shown as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from kernelprune.benchmarking import BenchmarkResult, BenchmarkRow
from kernelprune.format import Graph
from kernelprune.runtime import LayerProfile, Tuning
from kernelprune.text import plain


def count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def file_size(size: float) -> str:
    """1234567 -> '1.2 MB'."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def text(words: object, style: str = "") -> Text:
    """Words as they are: no markup, no control characters."""
    return Text(plain(words), style)


def add_row(table: Table, *cells: object) -> None:
    """A row of words; a cell may also be a ``Text`` of its own style."""
    table.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in cells))


def _table(title: str | None, *columns: str, left: int = 1, names: int = 0) -> Table:
    """The first ``left`` columns hold words, the others numbers. Names, in column ``names``, go on
    in another line where the terminal is too narrow: cut off, they would be lost."""
    heading = None if title is None else text(title, "table.title")
    table = Table(
        title=heading,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for position, column in enumerate(columns):
        words, wraps = position < left, position == names
        table.add_column(
            column,
            justify="left" if words else "right",
            no_wrap=not wraps,
            overflow="fold",
        )
    return table


def kernel_name(kernel: str) -> str:
    """``pad/avx512x16 + conv/avx512x16`` -> ``pad + conv, 16 lanes``."""
    parts = [part.partition("/") for part in kernel.split(" + ")]
    lanes = {target.rpartition("x")[2] for _, _, target in parts if target}
    names = " + ".join(name for name, _, _ in parts)
    return f"{names}, {'/'.join(sorted(lanes, key=int))} lanes" if lanes else names


def layer_table(
    layers: Sequence[LayerProfile], *, title: str | None = None, batch: int = 1
) -> Table:
    """One row per layer: shape, connections, density, multiply-adds, kernel; milliseconds and share
    of the FMA peak if they were measured (a last row sums up)."""
    measured = any(layer.milliseconds for layer in layers)
    columns = ["layer", "op", "output", "connections", "density", "MACs"]
    columns += ["ms", "of peak"] if measured else []
    table = _table(title, *columns, "kernel", left=2)
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    for layer in layers:
        has_weights = layer.all_connections > 0
        row = [
            layer.name,
            layer.op,
            "x".join(str(size) for size in layer.shape),
            f"{layer.connections:,}" if has_weights else "",
            f"{layer.density:.1%}" if has_weights else "",
            count(layer.macs) if has_weights else "",
        ]
        if measured:
            row.append(f"{layer.milliseconds:.3f}")
            row.append(f"{layer.peak_share:.0%}" if has_weights else "")
        add_row(table, *row, kernel_name(layer.kernel))
    kept = sum(layer.connections for layer in layers)
    total = sum(layer.all_connections for layer in layers)
    row = ["total", "", "", f"{kept:,}", f"{kept / max(total, 1):.1%}"]
    row.append(count(sum(layer.macs for layer in layers)))
    if measured:
        milliseconds = sum(layer.milliseconds for layer in layers)
        row += [f"{milliseconds:.3f}", f"batch {batch}"]
    table.add_section()
    add_row(table, *row, "")
    return table


def tuning_table(tuning: Tuning) -> Table:
    """Every layer that can be computed in several ways, mode by mode, and the whole network."""
    table = _table(None, "images", "layer", "default", "ms", "tuned", "ms", left=3, names=1)
    table.columns[4].justify = "left"
    for lanes, (before, after) in tuning.milliseconds.items():
        for layer in tuning.layers:
            if layer.lanes != lanes:
                continue
            row = [str(lanes), layer.layer, layer.default, f"{layer.default_milliseconds:.3f}"]
            changed = layer.chosen != layer.default
            row += [layer.chosen, f"{layer.milliseconds:.3f}"] if changed else ["", ""]
            add_row(table, *row)
        gain = f"{before / after:.2f}x"
        add_row(table, lanes, "network", "", f"{before:.3f}", gain, f"{after:.3f}")
        table.add_section()
    return table


def model_table(graph: Graph, metadata: Mapping[str, str], file_bytes: int) -> Table:
    """What a model file holds as a whole, and where it comes from."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    shapes = graph.shapes()
    kept, total = graph.kept_connections(), graph.all_connections()
    macs, dense = graph.macs(), graph.macs(dense=True)
    rows = {
        "inputs": ", ".join(f"{v.name} {list(v.shape)}" for v in graph.inputs),
        "outputs": ", ".join(f"{name} {list(shapes[name])}" for name in graph.outputs),
        "connections": f"{kept:,} of {total:,} ({kept / max(total, 1):.1%})",
        "multiply-adds": f"{count(macs)} of {count(dense)} per image ({macs / max(dense, 1):.1%})",
        "file size": file_size(file_bytes),
    }
    told = {key: words for key, words in sorted(metadata.items()) if key not in rows}
    for key, words in {**rows, **told}.items():
        add_row(table, key, words)
    return table


def benchmark_table(result: BenchmarkResult) -> Table:
    """Median, mean and tail of each candidate, and how many times faster the engine is."""
    facts = result.facts
    title = (
        f"{result.file} on {result.threads} thread{'s' if result.threads > 1 else ''}: "
        f"{count(facts['macs'])} of {count(facts['dense_macs'])} multiply-adds "
        f"(1/{result.reduction:.1f}); FMA peak {result.fma_peak / 1e9:.1f} GMAC/s per core"
    )
    columns = ("batch", "engine", "median ms", "mean", "p90", "p99", "min", "images/s", "speed-up")
    table = _table(title, *columns, left=0, names=1)
    table.columns[1].justify = "left"
    for row in _by_batch(table, result):
        timing = row.timing
        add_row(
            table,
            row.batch,
            _engine(row),
            f"{timing.median:.3f}",
            f"{timing.mean:.3f}",
            f"{timing.p90:.3f}",
            f"{timing.p99:.3f}",
            f"{timing.minimum:.3f}",
            f"{row.images_per_second:,.0f}",
            "" if row.name == "kernelprune" else f"{row.speed_up:.2f}x",
        )
    return table


def difference_line(result: BenchmarkResult) -> Text:
    """How far the outputs of each candidate that rounds are from float32, at the last batch."""
    found = [
        f"{row.name} {row.difference:.2g}"
        for row in result.rows
        if row.batch == result.batches[-1] and row.difference > 1e-4
    ]
    return text(f"relative L2 distance from float32: {', '.join(found)}")


def start_up_table(result: BenchmarkResult) -> Table | None:
    """What comes before the first answer, each in a process of its own; None if not measured."""
    if not any(row.start_up for row in result.rows):
        return None
    columns = ("batch", "engine", "load ms", "first inference ms", "memory growth", "own count")
    table = _table("start-up, each in a process of its own", *columns, left=0, names=1)
    table.columns[1].justify = "left"
    for row in _by_batch(table, result):
        if row.start_up is None:
            continue
        memory = row.start_up.memory
        add_row(
            table,
            row.batch,
            _engine(row),
            f"{row.start_up.load:.1f}",
            f"{row.start_up.first:.2f}",
            "" if memory is None else file_size(memory),
            "" if row.own_bytes is None else file_size(row.own_bytes),
        )
    table.caption = (
        "load: model file to ready, packages loaded. Memory growth: highest resident size over "
        "that before the load. Own count: weights as the engine keeps them, and activations."
    )
    table.caption_justify = "left"
    return table


def _engine(row: BenchmarkRow) -> Text:
    """Name and mode. A long name goes on in another line behind its hyphen: in 80 columns it would
    be broken anywhere."""
    first, hyphen, rest = row.name.partition("-")
    if not hyphen or len(row.name) <= 11:
        return text(f"{row.name} ({row.mode})")
    return text(first + hyphen) + Text("\n") + text(f"{rest} ({row.mode})")


def _by_batch(table: Table, result: BenchmarkResult) -> Iterator[BenchmarkRow]:
    """The rows, with a line in the table between batch sizes."""
    previous = None
    for row in result.rows:
        if previous not in (None, row.batch):
            table.add_section()
        previous = row.batch
        yield row


def machine_table(machine: Mapping[str, Any]) -> Table:
    """See :func:`kernelprune.benchmarking.describe_machine`."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, value in machine.items():
        if isinstance(value, Mapping):
            for name, version in value.items():
                add_row(table, name, "not installed" if version is None else version)
        else:
            listed = isinstance(value, (list, tuple))
            words = ", ".join(map(str, value)) if listed else value
            add_row(table, key.replace("_", " "), words)
    return table
