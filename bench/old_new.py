"""``python -m bench.old_new OLD``: is this checkout slower than another, such as the last release?

OLD is the folder of a built checkout (``make build`` there). Every network of the goal table is
exported once and run by both engines, each in a process of its own, in turns within one cell: what
slows the machine down slows both. The rows say how many times faster the new engine is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.networks import NETWORKS
from bench.results import RESULTS, save
from kernelprune.benchmarking import describe_machine
from kernelprune.errors import Error
from kernelprune.format import write

DENSITIES = (1.0, 0.3, 0.1, 0.05)
ROUNDS = 7
# A cell is slower where the median of the ratios is below this.
LIMIT = 0.95
ROOT = Path(__file__).resolve().parents[1]

# What each of the two processes does: loads a file once for a batch, then times runs as told.
_WORKER = """
import json, sys, time
import numpy as np
from kernelprune.runtime import Engine
for line in sys.stdin:
    told = json.loads(line)
    if "path" in told:
        engine = Engine(told["path"], threads=told["threads"])
        shape = engine.inputs[0][1]
        x = np.random.default_rng(0).standard_normal((told["batch"], *shape)).astype(np.float32)
        engine.run(x)
    times, end = [], time.perf_counter() + told["seconds"]
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        engine.run(x)
        times.append(time.perf_counter() - start)
    print(json.dumps(sorted(times)[len(times) // 2]), flush=True)
"""


class Worker:
    """A process that runs the engine of one checkout."""

    def __init__(self, checkout: Path) -> None:
        if not list(checkout.glob("kernelprune/_core*.so")):
            raise Error(f"{checkout}: no built checkout; run `make build` there")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            env=os.environ | {"PYTHONPATH": str(checkout)},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, **told: Any) -> float:
        """Seconds of a run, the median of as many as fit. Raises Error if the process ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Error(f"the engine of {self.process.args!r} ended; its message is above")
        return float(answer)


def compare(
    old: Worker, new: Worker, path: Path, batch: int, threads: int, seconds: float, rounds: int
) -> dict[str, Any]:
    """Milliseconds of both and the median of new speed over old speed, round by round."""
    pair = {"old": old, "new": new}
    times: dict[str, list[float]] = {name: [] for name in pair}
    for worker in pair.values():
        worker.ask(path=str(path), batch=batch, threads=threads, seconds=0.0)
    for turn in range(rounds):
        for name in sorted(pair, reverse=turn % 2 == 0):
            times[name].append(pair[name].ask(seconds=seconds))
    ratios = [a / b for a, b in zip(times["old"], times["new"], strict=True)]
    found = {f"{name}_ms": 1e3 * min(values) for name, values in times.items()}
    return {**found, "ratio": statistics.median(ratios), "ratios": ratios}


def rows(
    old: Worker, new: Worker, networks: Sequence[str], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A row for each network, batch and density. Raises Error."""
    for name in networks:
        network = NETWORKS[name]
        for density in options.density:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                write(network.graph(density), path)
                for batch in network.batches:
                    found = compare(
                        old, new, path, batch, options.threads, options.seconds, options.rounds
                    )
                    yield {"network": name, "density": density, "batch": batch, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.old_new",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--density", nargs="+", type=float, default=list(DENSITIES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each turn")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "old-new.json")
    options = parser.parse_args(arguments)
    machine, found = describe_machine(), []
    commit = subprocess.run(
        ["git", "-C", str(options.old), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
    ).stdout.strip()
    with ExitStack() as stack:
        old, new = (stack.enter_context(Worker(path.resolve())) for path in (options.old, ROOT))
        for row in rows(old, new, options.network, options):
            found.append(row)
            print(
                f"{row['network']:<17} density {row['density']:<4} batch {row['batch']:>2} "
                f"{row['old_ms']:>9.3f} {row['new_ms']:>9.3f} ms {row['ratio']:.3f}x"
                f"{'  SLOWER' if row['ratio'] < LIMIT else ''}",
                flush=True,
            )
    result = {"machine": machine, "old": commit, "threads": options.threads, "rows": found}
    save(result, options.out)
    slower = sum(row["ratio"] < LIMIT for row in found)
    print(f"{len(found)} cells, {slower} of them slower than {LIMIT}x; {options.out}")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    try:
        main()
    except Error as error:
        sys.exit(f"error: {error}")
