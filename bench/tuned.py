"""The expected plan against the tuned one: ``python -m bench.tuned``.

Every network, density and batch size with both plans, taking turns. What the cost model loses is
the sum of the times by default over the sum of those with tuning; at most 1.1 is wanted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.networks import NETWORKS
from kernelprune.benchmarking import Candidate, describe_machine, measure
from kernelprune.files import write_text
from kernelprune.format import write
from kernelprune.runtime import Engine, tune

RESULTS = Path(__file__).parent / "results"
WANTED = 1.1


def compare(
    name: str, density: float, *, threads: int, isa: str | None, seconds: float
) -> list[dict[str, Any]]:
    """The rows of one network at one density, one for each batch size."""
    network = NETWORKS[name]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        write(network.graph(density), path)
        tuning = tune(path, threads=threads, isa=isa)
        engines = {
            "default": Engine(path, threads=threads, isa=isa),
            "tuned": Engine(path, threads=threads, isa=isa, plan=tuning.plan),
        }
        default = engines["default"].plan.choices
    for batch in network.batches:
        x = np.random.default_rng(0).standard_normal(
            (batch, 3, network.side, network.side), dtype=np.float32
        )
        found = measure(
            [Candidate(kind, lambda e=engine, x=x: e.run(x)) for kind, engine in engines.items()],
            seconds=seconds,
        )
        rows.append(
            {
                "network": name,
                "density": density,
                "batch": batch,
                "timings": {kind: dataclasses.asdict(timing) for kind, timing in found.items()},
                "loss": found["default"].median / found["tuned"].median,
                "changed": {
                    f"{lanes} {layer}": [default[lanes, layer], chosen]
                    for (lanes, layer), chosen in tuning.plan.choices.items()
                    if chosen != default[lanes, layer]
                },
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tuned", description=__doc__)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--density", nargs="+", type=float, default=[1.0, 0.3, 0.1, 0.05])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per candidate")
    parser.add_argument("--isa", help="portable, avx2 or avx512")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json file")
    options = parser.parse_args()
    machine = describe_machine()
    rows: list[dict[str, Any]] = []
    for name in options.network:
        for density in options.density:
            for row in compare(
                name,
                density,
                threads=options.threads,
                isa=options.isa,
                seconds=options.seconds,
            ):
                rows.append(row)
                default, tuned = (row["timings"][kind]["median"] for kind in ("default", "tuned"))
                print(
                    f"{name} density {density:g} batch {row['batch']:>2}: {default:.3f} ms by "
                    f"default, {tuned:.3f} ms tuned ({row['loss']:.2f}x)",
                    flush=True,
                )
    sums = {
        kind: sum(row["timings"][kind]["median"] for row in rows) for kind in ("default", "tuned")
    }
    # Of equal weight, where the sum is mostly the largest networks'.
    mean = float(np.exp(np.mean([np.log(row["loss"]) for row in rows])))
    loss = sums["default"] / sums["tuned"]
    verdict = "met" if loss <= WANTED else "MISSED"
    print(f"all: {loss:.3f}x ({mean:.3f}x as a geometric mean), wanted {WANTED}: {verdict}")
    result = {
        "machine": machine,
        "threads": options.threads,
        "milliseconds": sums,
        "loss": loss,
        "geometric_mean": mean,
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "tuned.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
