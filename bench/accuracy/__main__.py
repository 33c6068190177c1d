"""``python -m bench.accuracy ROW ...``: trains, prunes, and writes one json file per row."""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from rich.console import Console

from bench.accuracy.rows import ROWS, shortened
from bench.accuracy.run import as_line, run_row
from bench.accuracy.tables import tables

RESULTS = Path(__file__).parent.parent / "results" / "accuracy"
HEAD = "| row | dense | pruned | connections | multiply-adds | from scratch |\n" + "|---" * 6 + "|"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names or patterns; none lists them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json files")
    parser.add_argument("--tables", action="store_true", help="only print what --out holds")
    parser.add_argument("--quick", action="store_true", help="on 8x8 digits, to try it out")
    options = parser.parse_args()
    if options.tables:
        print(tables(options.out))
        return
    chosen = [name for name in ROWS if any(fnmatch.fnmatch(name, p) for p in options.rows)]
    if not chosen:
        parser.exit(2 if options.rows else 0, "rows: " + ", ".join(ROWS) + "\n")
    console = Console()
    lines = []
    for name in chosen:
        row = shortened(ROWS[name]) if options.quick else ROWS[name]
        console.rule(name)
        lines.append(as_line(run_row(name, row, options.seeds, options.work, options.out, console)))
    console.print("\n".join([HEAD, *lines]), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
