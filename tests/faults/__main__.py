"""Kills export, train, prune and tune at random points, fills their disk, takes away the right to
write: the good file has to survive, and what is resumed has to end with the same weights.

    python tests/faults --points 50          all of it, what `make faults` runs
    python tests/faults --points 1 --no-disk a cheap part, what the ordinary tests run

The disk is a small tmpfs, which needs root; without root that part is left out, with a line.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from disks import try_disks
from killing import Kill, count_writes, run_killed
from operations import OPERATIONS, Operation


def try_kills(operation: Operation, points: int, draw: random.Random) -> None:
    """Half of the kills come at a random time, half just before a random step of writing."""
    began = time.perf_counter()
    writes = count_writes(operation.run)
    seconds = time.perf_counter() - began
    landed = 0
    for point in range(points):
        by_time = point % 2 == 1
        kill = Kill(after_seconds=draw.random() * seconds if by_time else None,
                    before_write=None if by_time else draw.randint(1, writes))  # fmt: skip
        operation.prepare()
        landed += run_killed(operation.run, kill)
        operation.check_killed()
        operation.run()
        operation.check_done()
    print(
        f"{operation.name}: {points} kills, {landed} of them before the end, in a run of "
        f"{seconds:.2f} s with {writes} steps of writing; the file was whole after each, and the "
        "next run gave the right one",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=50, help="Kills of each command.")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--no-disk", action="store_true", help="Leave out the full disk.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="kernelprune-faults-"))
    try:
        for number, kind in enumerate(OPERATIONS):
            operation = kind(folder / kind.name)
            try_kills(operation, options.points, random.Random(options.seed + number))
        if options.no_disk:
            return
        if os.geteuid() != 0:
            print("full disk, read-only disk: left out, they need root")
            return
        try_disks(folder / "disk", [kind(folder / f"{kind.name}-disk") for kind in OPERATIONS])
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
