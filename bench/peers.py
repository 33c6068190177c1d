"""Whole networks at several densities against other engines, all in one interleaved run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.goals import goal, verdict
from bench.networks import NETWORKS, Network
from bench.results import peers_file, save
from kernelprune.benchmarking import PEERS, Candidate, Timing, describe_machine, measure
from kernelprune.benchmarking.peers import KINDS, NotInstalled, Peer, Refused, make_peer
from kernelprune.errors import Error
from kernelprune.format import Graph, write
from kernelprune.runtime import Engine, fma_peak

DENSITIES = (1.0, 0.3, 0.1, 0.05)

_TOLERANCE = 1e-3


class Race:
    """One network: its files, the engines that run them, and the rows so far.

    Attributes:
        engines: By density.
        single: The same on one thread, to see what more bring; empty if there are no more.
        dense: What dense peers run: their time does not depend on the weights, so one serves all.
    """

    def __init__(
        self,
        network: Network,
        densities: Sequence[float],
        threads: int,
        options: dict[str, Any],
        folder: Path,
    ) -> None:
        self.network = network
        self.threads = threads
        self.graphs: dict[float, Graph] = {}
        self.engines: dict[float, Engine] = {}
        self.single: dict[float, Engine] = {}
        self.file_bytes: dict[float, int] = {}
        self.missing: dict[str, str] = {}
        self.peak = 0.0
        for density in densities:
            path = folder / f"{density:g}.safetensors"
            self.graphs[density] = network.graph(density)
            write(self.graphs[density], path)
            self.file_bytes[density] = path.stat().st_size
            self.engines[density] = Engine(path, threads=threads, **options)
            if threads > 1:
                self.single[density] = Engine(path, threads=1, **options)
        self.checked = max(densities)
        self.dense = (
            self.graphs[1.0] if self.checked == 1.0 else network.graph(self.checked, keep_dead=True)
        )

    def peer(self, name: str, density: float, x: np.ndarray, torch_compile: bool) -> Peer | None:
        """A peer whose outputs are the engine's; None, with a note, if it cannot run here."""
        sparse = KINDS[name].sparse
        try:
            peer = make_peer(
                name,
                self.graphs[density] if sparse else self.dense,
                [x],
                self.threads,
                torch_compile=torch_compile,
            )
        except (NotInstalled, Refused) as error:
            self.missing[name] = str(error)
            return None
        expected = self.engines[density].run(x)
        several = expected if isinstance(expected, tuple) else (expected,)
        for have, want in zip(peer.outputs(), several, strict=True):
            distance = np.linalg.norm(have - want) / np.linalg.norm(want)
            if not distance <= _TOLERANCE:
                raise Error(f"{name} computes something else: relative distance {distance:.2g}")
        return peer

    def peers(
        self, x: np.ndarray, against: Sequence[str], torch_compile: bool
    ) -> dict[tuple[str, float], Peer]:
        """By name and density; a dense peer is there once, and stands in every density's row."""
        found: dict[tuple[str, float], Peer] = {}
        for name in against:
            sparse = KINDS[name].sparse
            # Without zeros a sparse peer is the dense one again.
            own = [density for density in self.engines if density < 1.0] if sparse else []
            for density in own if sparse else [self.checked]:
                peer = self.peer(name, density, x, torch_compile)
                if peer is not None:
                    found |= {(name, d): peer for d in ([density] if sparse else self.engines)}
        return found

    def rows(
        self, batch: int, against: Sequence[str], seconds: float, torch_compile: bool
    ) -> list[dict[str, Any]]:
        """One row per density, from one interleaved measurement."""
        shape = (batch, 3, self.network.side, self.network.side)
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        peers = self.peers(x, against, torch_compile)
        candidates = {id(peer): Candidate(str(id(peer)), peer.call) for peer in peers.values()}
        for engine in (*self.engines.values(), *self.single.values()):
            candidates[id(engine)] = Candidate(str(id(engine)), lambda e=engine: e.run(x))
        timings = measure(list(candidates.values()), seconds=seconds, between=self.measure_peak)

        def timing(candidate: object) -> Timing:
            return timings[str(id(candidate))]

        rows = []
        for density, engine in self.engines.items():
            ours = timing(engine)
            beside = {name: peer for (name, d), peer in peers.items() if d == density}
            row = {
                "batch": batch,
                "density": density,
                "isa": engine.isa,
                "timing": dataclasses.asdict(ours),
                "peers": {
                    name: {"mode": peer.mode, "timing": dataclasses.asdict(timing(peer))}
                    for name, peer in beside.items()
                },
                "speed_up": {
                    name: timing(peer).median / ours.median for name, peer in beside.items()
                },
                "macs": self.graphs[density].macs(),
                "file_bytes": self.file_bytes[density],
                "dense_macs": self.dense.macs(dense=True),
            }
            if density in self.single:
                row["one_thread"] = dataclasses.asdict(timing(self.single[density]))
            rows.append(row)
        return rows

    def measure_peak(self) -> None:
        """The best of all measurements: anything that disturbs one only makes it smaller."""
        self.peak = max(self.peak, fma_peak(self.engines[self.checked].isa, 0.01))


def run(
    name: str,
    out: Path,
    *,
    batches: Sequence[int] | None = None,
    densities: Sequence[float] = DENSITIES,
    against: Sequence[str] = PEERS,
    threads: int = 1,
    seconds: float = 2.0,
    torch_compile: bool = True,
    **engine: Any,
) -> dict[str, Any]:
    """Races one network of ``NETWORKS``, prints the rows and writes ``peers-<name>.json``.

    ``engine`` are more options of :class:`kernelprune.Engine`, such as ``isa``.
    """
    network = NETWORKS[name]
    machine = describe_machine()
    print(f"{name}, {threads} thread(s) of {machine['processor']}", flush=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        race = Race(network, densities, threads, engine, Path(folder))
        for batch in batches or network.batches:
            for row in race.rows(batch, against, seconds, torch_compile):
                # Goals are for one thread and float32.
                wanted = goal(name, batch, row["density"]) if threads == 1 else (None, None)
                row["floor"], row["goal"] = wanted
                rows.append(row)
                print(as_line(row), flush=True)
    result = {
        "network": name,
        "machine": machine,
        "threads": threads,
        "engine": engine,
        "fma_peak": race.peak / 1e9,
        "missing": race.missing,
        "rows": rows,
    }
    save(result, out / peers_file(name, threads))
    return result


def as_line(row: dict[str, Any]) -> str:
    """A row for the screen."""
    peers = "  ".join(
        f"{peer} {found['timing']['median']:.2f} ms ({row['speed_up'][peer]:.2f}x)"
        for peer, found in row["peers"].items()
    )
    ours = row["timing"]["median"]
    line = f"batch {row['batch']:>2} density {row['density']:<4g} {ours:>9.3f} ms  {peers}"
    if "one_thread" in row:
        line += f"  {row['one_thread']['median'] / ours:.2f}x over one thread"
    words = verdict(row)
    return f"{line}  floor {row['floor']:.3g}, goal {row['goal']:.3g}: {words}" if words else line
