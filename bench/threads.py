"""What threads cost and what they bring: ``python -m bench.threads``.

The cost: chains of nearly empty steps on one thread and on several, taking turns. The difference
between a long chain and a short one is what each step pays for waiting for the other threads; what
a short chain pays besides is the start of the team.

The gain: whole networks on one thread and on several, at batch 1 and at a large batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking import Candidate, Timing, describe_machine, measure
from kernelprune.files import write_text
from kernelprune.format import Graph, Node, Value, write
from kernelprune.runtime import Engine

RESULTS = Path(__file__).parent / "results"

# Speed-up of two threads over one that must be reached: at batch 1, at a large batch.
GOALS = {1: 1.6, 0: 1.8}


def chain(steps: int) -> Graph:
    """``steps`` activations of two floats: nothing but the call of a kernel."""
    nodes = [
        Node("activation", f"a{i}", [f"v{i}"], f"v{i + 1}", (2,), {"activation": "relu"})
        for i in range(steps)
    ]
    return Graph([Value("v0", (2,))], [f"v{steps}"], nodes)


def race(path: Path, x: np.ndarray, threads: Sequence[int], seconds: float) -> dict[int, Timing]:
    """The timing of one file by the number of threads."""
    engines = {count: Engine(path, threads=count) for count in threads}
    candidates = [
        Candidate(str(count), lambda e=engine: e.run(x)) for count, engine in engines.items()
    ]
    found = measure(candidates, seconds=seconds)
    return {count: found[str(count)] for count in threads}


def step_cost(threads: int, seconds: float) -> dict[str, Any]:
    """Microseconds that a team of ``threads`` costs: per step, and to start it."""
    short, long = 2, 202
    x = np.ones((1, 2), np.float32)
    extra = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.safetensors"
        for steps in (short, long):
            write(chain(steps), path)
            found = race(path, x, (1, threads), seconds)
            extra[steps] = (found[threads].median - found[1].median) * 1e3
    per_step = (extra[long] - extra[short]) / (long - short)
    start = extra[short] - short * per_step
    return {"threads": threads, "microseconds_per_step": per_step, "microseconds_to_start": start}


def scaling(name: str, density: float, threads: int, seconds: float) -> list[dict[str, Any]]:
    """Times of one network of ``bench.networks`` on one thread and on ``threads``."""
    from bench.networks import NETWORKS

    network = NETWORKS[name]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        write(network.graph(density), path)
        for batch in network.batches:
            x = np.random.default_rng(0).standard_normal(
                (batch, 3, network.side, network.side), dtype=np.float32
            )
            found = race(path, x, (1, threads), seconds)
            rows.append(
                {
                    "network": name,
                    "density": density,
                    "batch": batch,
                    "threads": threads,
                    "speed_up": found[1].median / found[threads].median,
                    "goal": GOALS.get(batch, GOALS[0]) if threads == 2 else None,
                    "timings": {n: dataclasses.asdict(timing) for n, timing in found.items()},
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.threads", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--network", nargs="*", default=["vgg16-32", "resnet18-224"])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per candidate")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json file")
    options = parser.parse_args()
    machine = describe_machine()
    print(f"{options.threads} threads on {machine['cores']} core(s) of {machine['processor']}")
    cost = step_cost(options.threads, options.seconds)
    print(
        f"a step waits {cost['microseconds_per_step']:.2f} us for the other threads; "
        f"starting them takes {cost['microseconds_to_start']:.1f} us",
        flush=True,
    )
    rows = []
    for name in options.network:
        for row in scaling(name, options.density, options.threads, options.seconds):
            rows.append(row)
            goal = f", goal {row['goal']:g}" if row["goal"] else ""
            print(f"{name} batch {row['batch']}: {row['speed_up']:.2f}x{goal}", flush=True)
    result = {"machine": machine, "cost": cost, "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "threads.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
