"""``python -m bench.check OLD.json NEW.json``: did anything get slower?

Compares two results of the same kind row by row: ``peers-*.json``, ``kernels.json``,
``remainders.json`` or what ``kernelprune bench --json`` writes. Not milliseconds are compared
but the speed over a reference that was measured in the same run (another engine, the FMA peak), so
that a machine that was busy or clocked differently does not look like a change of the code.

Exit code: 0 nothing got slower, 1 something did, 2 the files cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import load
from kernelprune.errors import Error
from kernelprune.report import add_row
from kernelprune.text import plain

_PEAK = "FMA peak"
_COPY = "copy"
_PARTS = "its parts"

# Best first: what takes part in every run, is steady, and does the same work.
_REFERENCES = (
    *(_PARTS, _COPY, "openvino-int8", "openvino", "onnxruntime", "torch", "mnn", "mnn-sparse"),
    *("onnxruntime-int8", "openvino-bf16", "mnn-int8", _PEAK),
)

# Row name -> reference -> speed in units of that reference. More is faster.
Speeds = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Change:
    """One row that both files have."""

    name: str
    reference: str
    old: float
    new: float

    @property
    def ratio(self) -> float:
        """New speed over old speed."""
        return self.new / self.old


def _peers(result: Mapping[str, Any]) -> Speeds:
    speeds: Speeds = {}
    for row in result["rows"]:
        seconds = row["timing"]["median"] / 1e3
        share = row["macs"] * row["batch"] / seconds / (result["fma_peak"] * 1e9)
        speeds[f"batch {row['batch']}, density {row['density']:g}"] = {
            **row["speed_up"],
            _PEAK: share,
        }
    return speeds


def _kernels(result: Mapping[str, Any]) -> Speeds:
    speeds: Speeds = {}
    for row in result["rows"]:
        found = {_PEAK: row["share_of_peak"]}
        if row.get("depthwise"):
            found = {_COPY: row["share_of_copy"]}
        speeds[f"batch {row['batch']}, {row['name']}"] = found
    return speeds


def _bench(result: Mapping[str, Any]) -> Speeds:
    speeds: Speeds = {}
    for row in result["rows"]:
        own = speeds.setdefault(f"batch {row['batch']}", {})
        if row["name"] == "kernelprune":
            seconds = row["timing"]["median"] / 1e3
            own[_PEAK] = result["facts"]["macs"] * row["batch"] / seconds / result["fma_peak"]
        else:
            own[row["name"]] = row["speed_up"]
    return speeds


def _remainders(result: Mapping[str, Any]) -> Speeds:
    return {
        f"{row['network']}, batch {row['batch']}": {_PARTS: 1 / row["ratio"]}
        for row in result["rows"]
    }


_KINDS: dict[str, Callable[[Mapping[str, Any]], Speeds]] = {
    "peers": _peers,
    "kernels": _kernels,
    "remainders": _remainders,
    "kernelprune bench": _bench,
}


def kind_of(result: Mapping[str, Any], path: Path) -> str:
    """Which of the results this is.

    Raises:
        Error: None of those that are known.
    """
    rows = result["rows"]
    if not rows:
        raise Error(f"{path}: has no rows")
    if "facts" in result and "file" in result:
        return "kernelprune bench"
    if "network" in result:
        return "peers"
    if "share_of_peak" in rows[0]:
        return "kernels"
    if "ratio" in rows[0]:
        return "remainders"
    raise Error(f"{path}: a json file, but not a result that is known")


def _speeds(result: Mapping[str, Any], kind: str, path: Path) -> Speeds:
    try:
        return _KINDS[kind](result)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise Error(f"{path}: damaged, a row of {kind} lacks {error}") from error


def _isas(result: Mapping[str, Any]) -> set[str]:
    rows = [row for row in result["rows"] if "isa" in row]
    return {result["isa"]} if "isa" in result else {row["isa"] for row in rows}


def _only(path: Path, have: Speeds, others: Speeds) -> list[str]:
    names = [name for name in have if name not in others]
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"only in {path}: {'; '.join(names[:3])}{more}"]


def compare(old_path: Path, new_path: Path) -> tuple[list[Change], list[str]]:
    """The rows that both files have, and notes on what they do not share.

    Raises:
        Error: A file cannot be read, or the two measured different things.
    """
    old, new = load(old_path), load(new_path)
    kind = kind_of(old, old_path)
    if kind_of(new, new_path) != kind:
        raise Error(f"{old_path} holds {kind}, {new_path} holds {kind_of(new, new_path)}")
    # Results of before there was int8 do not tell their precision.
    for key, default in {"network": "", "threads": "", "file": "", "precision": "float32"}.items():
        had, has = old.get(key, default), new.get(key, default)
        if had != has:
            raise Error(
                f"the files do not match: {key} is {had!r} in {old_path} and {has!r} in {new_path}"
            )
    if kind == "kernelprune bench" and old["facts"]["macs"] != new["facts"]["macs"]:
        raise Error(f"the files do not match: {old['file']} is another model in {new_path}")
    # Files of older versions do not tell the instruction set of every row.
    isas = _isas(old), _isas(new)
    if all(isas) and isas[0] != isas[1]:
        raise Error(
            f"the files do not match: {', '.join(sorted(isas[0]))} in {old_path}, "
            f"{', '.join(sorted(isas[1]))} in {new_path}"
        )
    before, after = _speeds(old, kind, old_path), _speeds(new, kind, new_path)
    changes: list[Change] = []
    notes = _only(old_path, before, after) + _only(new_path, after, before)
    for name in before:
        if name not in after:
            continue
        shared = [r for r in _REFERENCES if r in before[name] and r in after[name]]
        if not shared:
            notes.append(f"no reference that both runs measured: {name}")
            continue
        changes.append(Change(name, shared[0], before[name][shared[0]], after[name][shared[0]]))
    if not changes:
        raise Error(f"{old_path} and {new_path} have no row in common")
    machines = [result.get("machine", {}).get("processor") for result in (old, new)]
    if machines[0] != machines[1]:
        notes.append(f"different machines: {machines[0]} and {machines[1]}")
    return changes, notes


def change_table(changes: list[Change], tolerance: float) -> Table:
    """Speeds over the reference, before and after."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("row", "speed over", "old", "new", "new / old", ""):
        left = column in ("row", "speed over", "")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for change in changes:
        words = Text()
        if change.ratio < 1 - tolerance:
            words = Text("SLOWER", "red")
        elif change.ratio > 1 / (1 - tolerance):
            words = Text("faster", "green")
        add_row(
            table,
            change.name,
            change.reference,
            f"{change.old:.3f}",
            f"{change.new:.3f}",
            f"{change.ratio:.3f}",
            words,
        )
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--tolerance", type=float, default=0.1, help="share of the speed that may be lost (0.1)"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=150)
    try:
        if not 0 <= options.tolerance < 1:
            raise Error(f"--tolerance must be at least 0 and below 1, got {options.tolerance}")
        changes, notes = compare(options.old, options.new)
    except Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(change_table(changes, options.tolerance))
    for note in notes:
        console.print(plain(note), soft_wrap=True)
    slower = [change for change in changes if change.ratio < 1 - options.tolerance]
    console.print(
        f"{len(slower)} of {len(changes)} rows lost more than {options.tolerance:.0%}"
        if slower
        else f"none of {len(changes)} rows lost more than {options.tolerance:.0%}"
    )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
