"""The demo's two tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from kernelprune.benchmarking import BenchmarkResult
from kernelprune.columns import Column
from kernelprune.prune import Plan
from kernelprune.report import FittedTable, count, file_size

_NAMES = {
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "kernelprune": "kernelprune",
}
_DENSITY_COLUMNS = (
    Column("layer", "name"),
    Column("connections", spare=2),
    Column("kept"),
    Column("density"),
    Column("MACs kept"),
    Column("ms"),
    Column("of FMA peak", spare=1),
)


def summary_table(
    accuracy: Mapping[str, float], differing: int, images: int, race: BenchmarkResult
) -> FittedTable:
    """Accuracy, size and time of the dense network beside the pruned one."""
    threads = f"{race.threads} thread{'s' if race.threads > 1 else ''}"
    columns = [Column(threads, "words"), Column("dense"), Column("pruned"), Column("", "words")]
    table = FittedTable(None, columns)
    dense, pruned, engine = (accuracy[name] for name in ("dense", "pruned", "engine"))
    points = f"{(pruned - dense) * 100:+.2f} points"
    table.add("accuracy, torch", f"{dense:.2%}", f"{pruned:.2%}", points)
    same = f"{differing} of {images:,} predictions differ"
    table.add("accuracy, kernelprune", "", f"{engine:.2%}", same)
    facts = race.facts
    table.add("connections", *_pair(facts["all_connections"], facts["connections"], "{:,.0f}"))
    table.add("multiply-adds / image", *_pair(facts["dense_macs"], facts["macs"]))
    sizes = facts["dense_file_bytes"], facts["file_bytes"]
    table.add("file size", *map(file_size, sizes), f"1/{sizes[0] / sizes[1]:.1f}")
    for batch in race.batches:
        table.add_section()
        _add_times(table, race, batch)
    return table


def _pair(dense: int, pruned: int, form: str | None = None) -> tuple[str, str, str]:
    texts = [form.format(number) if form else count(number) for number in (dense, pruned)]
    return texts[0], texts[1], f"1/{dense / max(pruned, 1):.1f}"


def _add_times(table: FittedTable, race: BenchmarkResult, batch: int) -> None:
    engine = race.row(batch)
    fastest = race.fastest_peer(batch)
    for row in race.rows:
        if row.batch == batch and row is not engine:
            label = f"batch {batch}: {_NAMES[row.name]}"
            table.add(label, f"{row.timing.median:.3f} ms", "", f"{row.speed_up:.2f}x slower")
    note = Text()
    if fastest is not None:
        note.append(f"{fastest.speed_up:.2f}x", "bold")
        note.append(f" as fast as {_NAMES[fastest.name]}")
    label = f"batch {batch}: kernelprune"
    table.add(label, "", Text(f"{engine.timing.median:.3f} ms", "bold"), note)


def layer_density_table(plan: Plan, race: BenchmarkResult) -> FittedTable:
    """What pruning kept of each layer, and what the layer then costs at the largest batch."""
    batch = race.batches[-1]
    measured = {layer.name: layer for layer in race.layers.get(batch, [])}
    title = f"kept of each layer, and its time at batch {batch}"
    table = FittedTable(title, _DENSITY_COLUMNS)
    for row in plan.rows:
        layer = measured.get(row.name)
        table.add(
            row.name,
            f"{row.connections:,}",
            f"{row.kept:,}",
            f"{row.density:.1%}",
            count(row.macs_kept or 0),
            f"{layer.milliseconds:.3f}" if layer else "",
            f"{layer.peak_share:.0%}" if layer else "",
        )
    return table
