"""The results as tables: every goal beside what was reached, and what a second thread brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.goals import scaling_wanted, verdict
from bench.results import load_peers
from kernelprune.benchmarking import PEERS
from kernelprune.report import add_row
from kernelprune.text import plain


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for position, column in enumerate(columns):
        words = position == 0 or column == "verdict"
        table.add_column(column, justify="left" if words else "right", no_wrap=True)
    return table


def goal_table(results: Sequence[dict[str, Any]]) -> Table:
    """Milliseconds of the engine and of every peer, and how many times faster the engine is."""
    peers = [p for p in PEERS if any(p in row["peers"] for r in results for row in r["rows"])]
    int8 = any("float32" in row for result in results for row in result["rows"])
    columns = ["network", "batch", "density", "engine ms", *(["float32 ms"] if int8 else [])]
    over = "OpenVINO's int8" if int8 else "OpenVINO"
    table = _table(
        f"{'int8: ' if int8 else ''}milliseconds (speed-up of the engine), one thread; "
        f"floor and goal: speed-up over {over}",
        *(*columns, *peers, "floor", "goal", "verdict"),
    )
    for result in results:
        previous = None
        for row in result["rows"]:
            if previous != row["batch"]:
                table.add_section()
            previous = row["batch"]
            words = verdict(row)
            colour = {"goal met": "green", "floor met": "yellow"}.get(words, "red")
            add_row(
                table,
                result["network"],
                str(row["batch"]),
                f"{row['density']:g}",
                f"{row['timing']['median']:.2f}",
                *([f"{row['float32']['median']:.2f}"] if int8 else []),
                *(_peer_cell(row, peer) for peer in peers),
                "" if row["floor"] is None else f"{row['floor']:.3g}",
                "" if row["goal"] is None else f"{row['goal']:.3g}",
                Text(words, colour),
            )
    return table


def _peer_cell(row: dict[str, Any], peer: str) -> str:
    if peer not in row["peers"]:
        return ""
    return f"{row['peers'][peer]['timing']['median']:.2f} ({row['speed_up'][peer]:.2f}x)"


def scaling_table(results: Sequence[dict[str, Any]]) -> Table:
    """Of runs on several threads: the engine over itself on one, measured in the same run."""
    table = _table(
        "what more threads bring",
        *("network", "batch", "density", "threads", "one thread ms", "ms", "faster"),
        *("wanted", "over openvino", "verdict"),
    )
    for result in results:
        for row in result["rows"]:
            one, many = row["one_thread"]["median"], row["timing"]["median"]
            wanted = scaling_wanted(row["batch"]) if result["threads"] == 2 else None
            over = row["speed_up"].get("openvino")
            add_row(
                table,
                result["network"],
                str(row["batch"]),
                f"{row['density']:g}",
                str(result["threads"]),
                f"{one:.2f}",
                f"{many:.2f}",
                f"{one / many:.2f}x",
                "" if wanted is None else f"{wanted:g}x",
                "" if over is None else f"{over:.2f}x",
                "" if wanted is None else ("met" if one / many >= wanted else "MISSED"),
            )
        table.add_section()
    return table


def show(folder: Path, console: Console | None = None) -> None:
    """Prints the tables of all results in a folder."""
    console = console or Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=180, file=console.file)
    found, int8 = load_peers(folder), load_peers(folder, precision="int8")
    for results in (found, int8):
        if results:
            console.print(goal_table(results))
    for result in (*found, *int8):
        for name, reason in result["missing"].items():
            console.print(plain(f"{result['network']}: {name}: {reason}"))
    two = load_peers(folder, threads=2)
    if two:
        console.print(scaling_table(two))
    if not found and not int8 and not two:
        console.print(f"no peers-*.json in {folder}: run `python -m bench peers`")
