"""``python -m bench.coverage``: tries published networks one by one.

Needs the packages of ``bench/coverage-requirements.txt``; ``make coverage`` sets them up.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import kernelprune
from bench.coverage import trial
from bench.coverage.attempts import Row, attempt_all
from bench.coverage.families import Family, families
from bench.coverage.report import document, worst
from bench.results import RESULTS, load, save
from kernelprune.benchmarking import describe_machine
from kernelprune.errors import Error
from kernelprune.files import write_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "COVERAGE.md"
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segmentation-models-pytorch",
    "ultralytics",
)
_FAILED = ("wrong", "unstable", "refused", "failed", "time", "memory", "crash", "unavailable")

Key = tuple[str, str]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.coverage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--family", nargs="+", choices=list(families()), default=list(families()))
    found.add_argument("--only", default="", metavar="REGEX", help="networks whose name matches")
    found.add_argument("--list", action="store_true", help="only print the names")
    found.add_argument("--table", action="store_true", help=f"only write {DOCUMENT.name}")
    found.add_argument(
        "--again",
        nargs="*",
        choices=("captured", *_FAILED),
        help="also what the file has of this version; with words, only rows of such a status",
    )
    found.add_argument("--pruned", action="store_true", help="also with a tenth of the connections")
    found.add_argument("--no-time", action="store_true", help="do not race torch")
    found.add_argument("--jobs", type=int, default=1, help="at once; times are sound with 1 only")
    found.add_argument("--seconds", type=int, default=180, help="processor time of each network")
    found.add_argument("--gigabytes", type=float, default=10.0, help="memory of each network")
    found.add_argument("--file", type=Path, default=RESULTS / "coverage.json")
    return found


def version() -> str:
    """Of everything that decides over a result."""
    return ", ".join(f"{name} {found}" for name, found in versions().items())


def versions() -> dict[str, str]:
    found = {"kernelprune": kernelprune.__version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def is_done(row: Row | None, options: argparse.Namespace) -> bool:
    """Has the file a row that need not be made again?"""
    if row is None or row["version"] != version():
        return False
    if options.pruned and row["status"] == "captured" and "pruned" not in row:
        return False
    if options.again is None:
        return True
    return bool(options.again) and row["status"] not in options.again


def as_line(row: Row) -> str:
    """What a row says, in one line for the screen."""
    text = f"{row['family']:<13} {row['name']:<34} {row['status']:<11}"
    if "results" in row:
        text += f" {worst(row, 'error'):.1e} (torch {worst(row, 'torch_error'):.1e})"
    if "time" in row:
        text += f" {row['time']['ratio']:5.2f}x"
    if "pruned" in row:
        text += f" pruned: {row['pruned']['status']}"
    if "reasons" in row:
        text += " " + ", ".join(dict.fromkeys(found["operator"] for found in row["reasons"]))
    elif "detail" in row:
        text += f" {row['detail'][:80]}"
    return f"{text} {row['seconds']:.0f} s"


class Results:
    """The rows of ``coverage.json`` by family and name; every new one is saved at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.machine = describe_machine()
        old = load(path) if path.exists() else {"rows": []}
        self.rows: dict[Key, Row] = {(row["family"], row["name"]): row for row in old["rows"]}
        # How many networks there are of each family, tried or not.
        self.listed: dict[str, int] = dict(old.get("listed", {}))

    def add(self, key: Key, row: Row) -> Row:
        family, name = key
        made = {"family": family, "name": name, **row}
        made |= {"version": version(), "commit": self.machine["commit"]}
        self.rows[key] = made
        self.save()
        return made

    def save(self) -> None:
        """In an order that does not depend on who was done first."""
        order = list(families())
        keys = sorted(self.rows, key=lambda key: (order.index(key[0]), key[1]))
        rows = [self.rows[key] for key in keys]
        found = {"machine": self.machine, "versions": versions(), "listed": self.listed}
        save({**found, "rows": rows}, self.path)


def words(key: Key, options: argparse.Namespace) -> list[str]:
    """What the trial of a network is told; the name of the file for its row comes last."""
    found = [*key, "--seconds", str(options.seconds), "--gigabytes", str(options.gigabytes)]
    found += ["--no-time"] * options.no_time + ["--pruned"] * options.pruned
    return found


def chosen(options: argparse.Namespace) -> list[Key]:
    """The networks that the options name. Raises Error."""
    wanted: list[Family] = [families()[name] for name in options.family]
    try:
        pattern = re.compile(options.only)
        return [(f.name, name) for f in wanted for name in f.names() if pattern.search(name)]
    except re.error as error:
        raise Error(f"--only {options.only}: not a regular expression ({error})") from error
    except ImportError as error:
        raise Error(f"{error}: run `make coverage`, which installs what is needed") from error


def write_table(path: Path, target: Path) -> None:
    titles = {name: family.title for name, family in families().items()}
    write_text(target, document(load(path), titles), "the table")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.table:
        write_table(options.file, DOCUMENT)
        print(DOCUMENT)
        return
    keys = chosen(options)
    if options.list:
        print("\n".join(f"{family:<26} {name}" for family, name in keys))
        return
    results = Results(options.file)
    if not options.only:
        results.listed |= collections.Counter(family for family, _ in keys)
    todo = [key for key in keys if not is_done(results.rows.get(key), options)]
    print(f"{len(keys)} networks, {len(keys) - len(todo)} of them done before", flush=True)
    count = 0

    def done(key: Key, row: Row) -> None:
        nonlocal count
        count += 1
        print(f"[{count}/{len(todo)}] {as_line(results.add(key, row))}", flush=True)

    trials: list[tuple[Any, list[str]]] = [(key, words(key, options)) for key in todo]
    attempt_all(trial.main, trials, options.jobs, options.seconds, done)


if __name__ == "__main__":
    try:
        main()
    except Error as error:
        sys.exit(f"error: {error}")
