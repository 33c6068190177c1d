"""Whole networks at several densities against dense engines, all in one interleaved run."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.networks import NETWORKS
from kernelprune.benchmarking import Candidate, describe_machine, measure
from kernelprune.benchmarking.peers import NotInstalled, Peer, make_peer
from kernelprune.errors import Error
from kernelprune.format import Graph, write
from kernelprune.runtime import Engine, fma_peak

# Speed-up over OpenVINO on one thread of an AVX-512 core: what must be reached, and what should be.
# (network, batch) -> density -> (floor, goal)
GOALS = {
    ("vgg16-32", 1): {0.3: (2.5, 3.5), 0.1: (5.5, 8.0), 0.05: (8.0, 12.0)},
    ("vgg16-32", 64): {0.3: (4.5, 7.0), 0.1: (9.0, 14.0), 0.05: (13.0, 20.0)},
    ("resnet18-32", 1): {0.3: (2.0, 3.0), 0.1: (5.0, 7.0), 0.05: (8.0, 11.0)},
    ("resnet18-32", 64): {0.3: (4.5, 7.0), 0.1: (8.5, 13.0), 0.05: (11.0, 19.0)},
    ("resnet56-32", 1): {0.3: (2.2, 3.5), 0.1: (5.0, 7.0), 0.05: (6.5, 9.0)},
    ("resnet56-32", 64): {0.3: (3.0, 5.0), 0.1: (5.0, 8.0), 0.05: (6.0, 10.0)},
    ("resnet18-224", 1): {0.3: (2.0, 3.5), 0.1: (4.0, 6.0), 0.05: (5.0, 7.0)},
    ("resnet18-224", 16): {0.3: (3.5, 5.5), 0.1: (5.5, 9.0), 0.05: (7.0, 12.0)},
    ("resnet50-224", 1): {0.3: (1.6, 2.5), 0.1: (4.2, 6.0), 0.05: (6.0, 8.0)},
    ("resnet50-224", 16): {0.3: (2.8, 4.0), 0.1: (6.0, 9.0), 0.05: (8.0, 13.0)},
}

_TOLERANCE = 1e-3


def _peers(
    graph: Graph, x: np.ndarray, expected: np.ndarray, against: Sequence[str], threads: int
) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, each checked against ``expected``; and why the others are not."""
    ready, missing = [], {}
    for name in against:
        try:
            peer = make_peer(name, graph, [x], threads)
        except NotInstalled as error:
            missing[name] = str(error)
            continue
        distance = np.linalg.norm(peer.outputs()[0] - expected) / np.linalg.norm(expected)
        if not distance <= _TOLERANCE:
            raise Error(f"{name} computes something else: relative distance {distance:.2g}")
        ready.append(peer)
    return ready, missing


def run(
    name: str,
    out: Path,
    *,
    batches: Sequence[int] | None = None,
    densities: Sequence[float] = (0.3, 0.1, 0.05),
    against: Sequence[str] = ("torch", "onnxruntime", "openvino"),
    threads: int = 1,
    seconds: float = 2.0,
    isa: str | None = None,
) -> dict[str, Any]:
    """Races one network of ``NETWORKS``, prints the rows and writes ``peers-<name>.json``."""
    network = NETWORKS[name]
    machine = describe_machine()
    print(f"{name}, {threads} thread(s) of {machine['processor']}", flush=True)
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    peak = 0.0
    with tempfile.TemporaryDirectory() as folder:
        engines: dict[float, Engine] = {}
        facts: dict[float, tuple[int, int]] = {}
        for density in densities:
            graph = network.graph(density)
            path = Path(folder) / f"{density:g}.safetensors"
            write(graph, path)
            engines[density] = Engine(path, threads=threads, isa=isa)
            facts[density] = graph.macs(), path.stat().st_size
        # Dense time does not depend on the weights: the peers run one of the networks.
        checked = densities[0]
        dense = network.graph(checked, keep_dead=True)
        for batch in batches or network.batches:
            x = np.random.default_rng(0).standard_normal(
                (batch, 3, network.side, network.side), dtype=np.float32
            )
            peers, missing = _peers(dense, x, engines[checked].run(x), against, threads)
            candidates = [Candidate(peer.name, peer.call) for peer in peers]
            for density, engine in engines.items():
                candidates.append(Candidate(f"{density:g}", lambda e=engine, x=x: e.run(x)))
            peaks: list[float] = []
            timings = measure(
                candidates, seconds=seconds, between=lambda p=peaks: p.append(fma_peak(isa, 0.01))
            )
            peak = max(peak, *peaks)
            modes = {peer.name: peer.mode for peer in peers}
            for density, engine in engines.items():
                row = _row(name, batch, density, timings, modes, engine.isa)
                row["macs"], row["file_bytes"] = facts[density]
                row["dense_macs"] = dense.macs(dense=True)
                rows.append(row)
                print(_line(row), flush=True)
    result = {
        "network": name,
        "machine": machine,
        "threads": threads,
        "fma_peak": peak / 1e9,
        "missing": missing,
        "rows": rows,
    }
    (out / f"peers-{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _row(
    name: str, batch: int, density: float, timings: Any, modes: dict[str, str], isa: str
) -> dict[str, Any]:
    ours = timings[f"{density:g}"]
    floor, goal = GOALS.get((name, batch), {}).get(density, (None, None))
    return {
        "batch": batch,
        "density": density,
        "isa": isa,
        "timing": dataclasses.asdict(ours),
        "peers": {
            peer: {"mode": mode, "timing": dataclasses.asdict(timings[peer])}
            for peer, mode in modes.items()
        },
        "speed_up": {peer: timings[peer].median / ours.median for peer in modes},
        "floor": floor,
        "goal": goal,
    }


def _line(row: dict[str, Any]) -> str:
    peers = "  ".join(
        f"{peer} {found['timing']['median']:.2f} ms ({row['speed_up'][peer]:.2f}x)"
        for peer, found in row["peers"].items()
    )
    goal = ""
    if row["floor"] is not None and "openvino" in row["speed_up"]:
        reached = row["speed_up"]["openvino"]
        verdict = (
            "goal met"
            if reached >= row["goal"]
            else "floor met"
            if reached >= row["floor"]
            else "below the floor"
        )
        goal = f"  floor {row['floor']:g}, goal {row['goal']:g}: {verdict}"
    ours = row["timing"]["median"]
    return f"batch {row['batch']:>2} density {row['density']:<4g} {ours:>9.3f} ms  {peers}{goal}"
