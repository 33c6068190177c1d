"""Batches that are no multiple of 16: does the rest cost more than it would alone?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.networks import NETWORKS
from bench.results import save
from kernelprune.benchmarking import Candidate, describe_machine, measure
from kernelprune.format import write
from kernelprune.runtime import Engine

BATCHES = (17, 20, 24, 31, 33, 40)
REMAINDER_NETWORKS = ("vgg16-32", "resnet18-32", "resnet56-32")
_DENSITY = 0.1
_GROUP = 16


def measure_network(
    name: str, batches: Sequence[int] = BATCHES, seconds: float = 1.0, **engine: Any
) -> list[dict[str, Any]]:
    """One row per batch size: its time over those of its full groups and of its rest."""
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write(network.graph(_DENSITY), path)
        runner = Engine(path, **engine)
    parts = {batch: (batch // _GROUP * _GROUP, batch % _GROUP) for batch in batches}
    sizes = sorted({size for batch in batches for size in (batch, *parts[batch]) if size})
    images = np.random.default_rng(0).standard_normal(
        (max(sizes), 3, network.side, network.side), dtype=np.float32
    )
    timings = measure(
        [Candidate(str(size), lambda x=images[:size]: runner.run(x)) for size in sizes],
        seconds=seconds,
    )
    rows = []
    for batch in batches:
        apart = sum(timings[str(size)].median for size in parts[batch] if size)
        rows.append(
            {
                "network": name,
                "density": _DENSITY,
                "isa": runner.isa,
                "batch": batch,
                "parts": [size for size in parts[batch] if size],
                "timing": dataclasses.asdict(timings[str(batch)]),
                "parts_milliseconds": apart,
                "ratio": timings[str(batch)].median / apart,
            }
        )
    return rows


def run(
    out: Path,
    networks: Sequence[str] = REMAINDER_NETWORKS,
    seconds: float = 1.0,
    **engine: Any,
) -> dict[str, Any]:
    """Measures, prints, and writes ``remainders.json``."""
    machine = describe_machine()
    print(f"batches that are no multiple of {_GROUP}, one thread of {machine['processor']}")
    rows = []
    for name in networks:
        for row in measure_network(name, seconds=seconds, **engine):
            rows.append(row)
            parts = " + ".join(map(str, row["parts"]))
            print(
                f"{name:<12} batch {row['batch']}: {row['timing']['median']:.3f} ms, {parts} alone "
                f"{row['parts_milliseconds']:.3f} ms: {row['ratio']:.3f}",
                flush=True,
            )
    result = {"machine": machine, "threads": 1, "engine": engine, "rows": rows}
    save(result, out / "remainders.json")
    return result
