"""The demo's two tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from kernelprune.benchmarking import BenchmarkResult
from kernelprune.prune import Plan
from kernelprune.report import add_row, count, file_size

_NAMES = {
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "kernelprune": "kernelprune",
}


def summary_table(
    accuracy: Mapping[str, float], differing: int, images: int, race: BenchmarkResult
) -> Table:
    """Accuracy, size and time of the dense network beside the pruned one."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{race.threads} thread{'s' if race.threads > 1 else ''}", no_wrap=True)
    for column in ("dense", "pruned"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    dense, pruned, engine = (accuracy[name] for name in ("dense", "pruned", "engine"))
    points = f"{(pruned - dense) * 100:+.2f} points"
    add_row(table, "accuracy, torch", f"{dense:.2%}", f"{pruned:.2%}", points)
    same = f"{differing} of {images:,} predictions differ"
    add_row(table, "accuracy, kernelprune", "", f"{engine:.2%}", same)
    facts = race.facts
    add_row(table, "connections", *_pair(facts["all_connections"], facts["connections"], "{:,.0f}"))
    add_row(table, "multiply-adds / image", *_pair(facts["dense_macs"], facts["macs"]))
    sizes = facts["dense_file_bytes"], facts["file_bytes"]
    add_row(table, "file size", *map(file_size, sizes), f"1/{sizes[0] / sizes[1]:.1f}")
    for batch in race.batches:
        table.add_section()
        _add_times(table, race, batch)
    return table


def _pair(dense: int, pruned: int, form: str | None = None) -> tuple[str, str, str]:
    texts = [form.format(number) if form else count(number) for number in (dense, pruned)]
    return texts[0], texts[1], f"1/{dense / max(pruned, 1):.1f}"


def _add_times(table: Table, race: BenchmarkResult, batch: int) -> None:
    engine = race.row(batch)
    fastest = race.fastest_peer(batch)
    for row in race.rows:
        if row.batch == batch and row is not engine:
            label = f"batch {batch}: {_NAMES[row.name]}"
            add_row(table, label, f"{row.timing.median:.3f} ms", "", f"{row.speed_up:.2f}x slower")
    note = Text()
    if fastest is not None:
        note.append(f"{fastest.speed_up:.2f}x", "bold")
        note.append(f" as fast as {_NAMES[fastest.name]}")
    label = f"batch {batch}: kernelprune"
    add_row(table, label, "", Text(f"{engine.timing.median:.3f} ms", "bold"), note)


def layer_density_table(plan: Plan, race: BenchmarkResult) -> Table:
    """What pruning kept of each layer, and what the layer then costs at the largest batch."""
    batch = race.batches[-1]
    measured = {layer.name: layer for layer in race.layers.get(batch, [])}
    title = f"kept of each layer, and its time at batch {batch}"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.add_column("layer", overflow="fold")
    for column in ("connections", "kept", "density", "MACs kept", "ms", "of FMA peak"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in plan.rows:
        layer = measured.get(row.name)
        add_row(
            table,
            row.name,
            f"{row.connections:,}",
            f"{row.kept:,}",
            f"{row.density:.1%}",
            count(row.macs_kept or 0),
            f"{layer.milliseconds:.3f}" if layer else "",
            f"{layer.peak_share:.0%}" if layer else "",
        )
    return table
