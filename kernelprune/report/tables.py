"""Tables for a terminal. Every function takes data and returns what rich prints; nobody here
measures or prints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from kernelprune.benchmarking import BenchmarkResult, BenchmarkRow
from kernelprune.columns import Column
from kernelprune.errors import FormatError
from kernelprune.format import Graph
from kernelprune.report.fitted import FittedTable, add_row, text
from kernelprune.runtime import LayerProfile, Tuning
from kernelprune.runtime.preprocessing import labels_from_json

_MOST_LABELS = 6
_SHOWN = 40  # characters of one of them

_LAYER_COLUMNS = (
    Column("layer", "name"),
    Column("op", "words", spare=5),
    Column("output", spare=4),
    Column("connections", spare=3),
    # Not the density that pruning speaks of: dead channels are gone, so that it is higher.
    Column("density in file"),
    Column("MACs"),
)
_TUNING_COLUMNS = (
    Column("images"),
    Column("layer", "name"),
    Column("default", "name", least=12),
    Column("ms"),
    Column("tuned", "name", least=12),
    Column("ms"),
)
_BENCHMARK_COLUMNS = (
    Column("batch"),
    Column("engine", "name", least=14),
    Column("median ms"),
    Column("mean", spare=4),
    Column("p90", spare=3),
    Column("p99", spare=2),
    Column("min", spare=1),
    Column("images/s"),
    Column("speed-up"),
)
_START_UP_COLUMNS = (
    Column("batch"),
    Column("engine", "name", least=14),
    Column("load ms"),
    Column("first inference ms"),
    Column("memory growth"),
    Column("own count"),
)


def count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def file_size(size: float) -> str:
    """1234567 -> '1.2 MB'."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def kernel_name(kernel: str) -> str:
    """``pad/avx512x16 + conv/avx512x16`` -> ``pad + conv, 16 lanes``."""
    parts = [part.partition("/") for part in kernel.split(" + ")]
    names = " + ".join(name for name, _, _ in parts)
    lanes = {target.rpartition("x")[2] for _, _, target in parts}
    lanes = {number for number in lanes if number.isdecimal()}  # GPUs have none
    return f"{names}, {'/'.join(sorted(lanes, key=int))} lanes" if lanes else names


def layer_table(
    layers: Sequence[LayerProfile], *, title: str | None = None, batch: int = 1
) -> FittedTable:
    """One row per layer: shape, connections, density, multiply-adds, kernel; milliseconds and share
    of the FMA peak if they were measured (a last row sums up)."""
    measured = any(layer.milliseconds for layer in layers)
    times = [Column("ms"), Column("of peak", spare=1)] if measured else []
    table = FittedTable(title, [*_LAYER_COLUMNS, *times, Column("kernel", "words", spare=2)])
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
        table.add(*row, kernel_name(layer.kernel))
    kept = sum(layer.connections for layer in layers)
    total = sum(layer.all_connections for layer in layers)
    row = [f"total, batch {batch}" if measured else "total", "", "", f"{kept:,}"]
    row += [f"{kept / max(total, 1):.1%}", count(sum(layer.macs for layer in layers))]
    if measured:
        row += [f"{sum(layer.milliseconds for layer in layers):.3f}", ""]
    table.add_section()
    table.add(*row, "")
    return table


def tuning_table(tuning: Tuning) -> FittedTable:
    """Every layer that can be computed in several ways, mode by mode, and the whole network."""
    table = FittedTable(None, _TUNING_COLUMNS)
    for lanes, (before, after) in tuning.milliseconds.items():
        for layer in tuning.layers:
            if layer.lanes != lanes:
                continue
            row = [str(lanes), layer.layer, layer.default, f"{layer.default_milliseconds:.3f}"]
            changed = layer.chosen != layer.default
            row += [layer.chosen, f"{layer.milliseconds:.3f}"] if changed else ["", ""]
            table.add(*row)
        gain = f"{before / after:.2f}x"
        table.add(lanes, "network", "", f"{before:.3f}", gain, f"{after:.3f}")
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
    in_file = f"{kept:,} of {total:,} ({kept / max(total, 1):.1%})"
    of_model = connections_of_model(metadata, kept)
    more = f"{count(macs)} of {count(dense)} per image ({macs / max(dense, 1):.1%})"
    rows = {
        "inputs": ", ".join(f"{v.name} {list(v.shape)}" for v in graph.inputs),
        "outputs": ", ".join(f"{name} {list(shapes[name])}" for name in graph.outputs),
        "connections": in_file,
    }
    if of_model > total:  # what pruning counts; dead channels are no longer in the file
        rows["connections"] = f"{kept:,} of {of_model:,} ({kept / of_model:.1%})"
        rows["connections in file"] = in_file
        rows["multiply-adds in file"] = more
    else:
        rows["multiply-adds"] = more
    rows["file size"] = file_size(file_bytes)
    told = {key: words for key, words in sorted(metadata.items()) if key not in rows}
    if of_model:
        told.pop("density", None)  # the same again
    if "labels" in told:
        told["labels"] = _labels(told["labels"])
    for key, words in {**rows, **told}.items():
        add_row(table, key, words)
    return table


def _labels(words: str) -> str:
    """How many, the first and the last: networks have a thousand. As it is where it is no list."""
    try:
        names = labels_from_json(words)
    except FormatError:
        return words[:_SHOWN]
    count_of = len(names)
    if count_of > _MOST_LABELS:
        names = (*names[: _MOST_LABELS - 1], "...", names[-1])
    return f"{count_of:,}: " + ", ".join(name[:_SHOWN] for name in names)


def connections_of_model(metadata: Mapping[str, str], kept: int) -> int:
    """Connections of the dense network that a file was made of, as its export notes them; 0 where
    the file does not say, or what it says is not about what it holds."""
    found = re.fullmatch(r"(\d{1,15})/(\d{1,15})", metadata.get("connections", ""), re.ASCII)
    return int(found[2]) if found and int(found[1]) == kept <= int(found[2]) else 0


def benchmark_table(result: BenchmarkResult) -> FittedTable:
    """Median, mean and tail of each candidate, and how many times faster the engine is."""
    facts = result.facts
    title = (
        f"{result.file} on {result.threads} thread{'s' if result.threads > 1 else ''}: "
        f"{count(facts['macs'])} of {count(facts['dense_macs'])} multiply-adds "
        f"(1/{result.reduction:.1f}); FMA peak {result.fma_peak / 1e9:.1f} GMAC/s per core"
    )
    table = FittedTable(title, _BENCHMARK_COLUMNS)
    for row in _by_batch(table, result):
        timing = row.timing
        table.add(
            row.batch,
            f"{row.name} ({row.mode})",
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


def start_up_table(result: BenchmarkResult) -> FittedTable | None:
    """What comes before the first answer, each in a process of its own; None if not measured."""
    if not any(row.start_up for row in result.rows):
        return None
    table = FittedTable("start-up, each in a process of its own", _START_UP_COLUMNS)
    for row in _by_batch(table, result):
        if row.start_up is None:
            continue
        memory = row.start_up.memory
        table.add(
            row.batch,
            f"{row.name} ({row.mode})",
            f"{row.start_up.load:.1f}",
            f"{row.start_up.first:.2f}",
            "" if memory is None else file_size(memory),
            "" if row.own_bytes is None else file_size(row.own_bytes),
        )
    table.caption = (
        "load: model file to ready, packages loaded. Memory growth: highest resident size over "
        "that before the load. Own count: weights as the engine keeps them, and activations."
    )
    return table


def _by_batch(table: FittedTable, result: BenchmarkResult) -> Iterator[BenchmarkRow]:
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
    table.add_column(overflow="fold")
    for key, value in machine.items():
        if isinstance(value, Mapping):
            for name, version in value.items():
                add_row(table, name, "not installed" if version is None else version)
        else:
            listed = isinstance(value, (list, tuple))
            words = ", ".join(map(str, value)) if listed else value
            add_row(table, key.replace("_", " "), words)
    return table
