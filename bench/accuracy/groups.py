"""What groups of connections cost in accuracy: ``python -m bench.accuracy.groups [ROW ...]``.

The same network with the same density in every layer, its connections chosen one by one, in groups
of four input channels, and in groups of four inputs by four outputs: equal connections and equal
multiply-adds. Fewer images and epochs than the tables of docs/ACCURACY.md, so compare these rows
with each other alone. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.accuracy.__main__ import RESULTS
from bench.accuracy.rows import Row, shortened
from bench.accuracy.run import run_row
from kernelprune.train import PruneOptions, TrainOptions

GROUPS: dict[str, int | tuple[int, int]] = {"any": 1, "4": 4, "4x4": (4, 4)}
DENSITIES = (0.3, 0.1)
METHODS = {"l1": "L1 norm", "synaptic": "Synaptic Strength"}

TRAIN = TrainOptions(
    model="vgg16", model_options={"width": 0.25}, epochs=4.0, batch_size=64, learning_rate=0.1,
    limit=8000, threads=1,
)  # fmt: skip
# Two of the four epochs before pruning are with the penalty.
SPARSIFY, FINETUNE = 2.0, 2.0


def _row(method: str, group: int | tuple[int, int], density: float) -> Row:
    sparsify = method == "synaptic"
    options = PruneOptions(
        method=method, density=density, group=group, scope="layer", sparsify_epochs=SPARSIFY,
        sparsify_learning_rate=0.1, finetune_epochs=FINETUNE,
        finetune_learning_rate=0.02 if sparsify else 0.05, recalibrate=20,
    )  # fmt: skip
    epochs = TRAIN.epochs - (SPARSIFY if sparsify else 0.0)
    return Row(replace(TRAIN, epochs=epochs), (options,))


def name_of(method: str, group: str, density: float) -> str:
    return f"vgg16-groups-{method}-{group}-{density}"


ROWS = {
    name_of(method, word, density): _row(method, group, density)
    for method in METHODS
    for density in DENSITIES
    for word, group in GROUPS.items()
}


def table(folder: Path) -> str:
    """What ``folder`` holds, as Markdown."""
    lines = []
    for method, words in METHODS.items():
        for density in DENSITIES:
            found = [_cell(folder / f"{name_of(method, g, density)}.json") for g in GROUPS]
            if any(cell != "-" for cell in found):
                lines.append(f"| {words}, {density} | " + " | ".join(found) + " |")
    head = "| density of every layer | any pattern | groups of 4 inputs | 4 inputs by 4 outputs |"
    return "\n".join([head, "|---" * 4 + "|", *lines])


def _cell(path: Path) -> str:
    """Accuracy on the test images, mean over the seeds, and kept multiply-adds."""
    if not path.exists():
        return "-"
    row: dict[str, Any] = json.loads(path.read_text("utf-8"))
    kept = [each["macs"][0] / each["macs"][1] for each in row["kept"]]
    return f"{100 * row['pruned']['mean']:.2f} ({100 * sum(kept) / len(kept):.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy.groups", description=__doc__)
    parser.add_argument("rows", nargs="*", default=["*"], help="names or patterns; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=Path, default=Path("runs/accuracy-groups"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json files")
    parser.add_argument("--table", action="store_true", help="only print what --out holds")
    parser.add_argument("--quick", action="store_true", help="on 8x8 digits, to try it out")
    options = parser.parse_args()
    if not options.table:
        console = Console()
        for name, row in ROWS.items():
            if any(fnmatch.fnmatch(name, pattern) for pattern in options.rows):
                console.rule(name)
                chosen = shortened(row) if options.quick else row
                run_row(name, chosen, options.seeds, options.work, options.out, console)
    print(table(options.out))


if __name__ == "__main__":
    main()
