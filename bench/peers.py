"""Whole networks at several densities against other engines, all in one interleaved run."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.goals import OVER, goal, verdict
from bench.networks import NETWORKS, Network
from bench.results import peers_file, save
from kernelprune.benchmarking import (
    FLOAT32_PEERS,
    INT8_PEERS,
    Candidate,
    Timing,
    describe_machine,
    measure,
)
from kernelprune.benchmarking.peers import KINDS, NotInstalled, Peer, Refused, make_peer
from kernelprune.benchmarking.precision import write_int8
from kernelprune.errors import Error
from kernelprune.format import Graph, write
from kernelprune.runtime import Engine, fma_peak

DENSITIES = (1.0, 0.3, 0.1, 0.05)
# Whom to race against, by what the engine computes in.
AGAINST = {"float32": FLOAT32_PEERS, "int8": INT8_PEERS}
# Of our int8 from our float32, relative L2. An untrained MobileNetV2 with a twentieth of its
# connections is at 0.6 and loses nothing that matters here; another network would be at 1.4.
_OWN_TOLERANCE = 1.0


class Race:
    """One network: its files, the engines that run them, and the rows so far.

    Attributes:
        engines: By density; in int8 they run the quantised files.
        exact: The same in float32: what outputs are compared with.
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
        precision: str = "float32",
    ) -> None:
        self.network = network
        self.precision = precision
        self.threads = threads
        self.graphs: dict[float, Graph] = {}
        self.engines: dict[float, Engine] = {}
        self.exact: dict[float, Engine] = {}
        self.single: dict[float, Engine] = {}
        self.file_bytes: dict[float, int] = {}
        self.missing: dict[str, str] = {}
        self.peak = 0.0
        for density in densities:
            path = folder / f"{density:g}.safetensors"
            self.graphs[density] = network.graph(density)
            write(self.graphs[density], path)
            self.exact[density] = Engine(path, threads=threads, **options)
            self.engines[density] = self.exact[density]
            if precision == "int8":
                path = folder / f"{density:g}-int8.safetensors"
                write_int8(self.graphs[density], path, network.calibration())
                self.engines[density] = Engine(path, threads=threads, **options)
            self.file_bytes[density] = path.stat().st_size
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
                calibration=self.network.calibration(),
            )
        except (NotInstalled, Refused) as error:
            self.missing[name] = str(error)
            return None
        distance = _distance(peer.outputs(), _several(self.exact[density].run(x)))
        if not distance <= KINDS[name].tolerance:
            raise Error(f"{name} computes something else: relative distance {distance:.2g}")
        return peer

    def distance(self, density: float, x: np.ndarray) -> float:
        """How far the engine in int8 is from itself in float32. Raises Error if it is too far."""
        run = self.engines[density].run, self.exact[density].run
        found = _distance(*(_several(each(x)) for each in run))
        if not found <= _OWN_TOLERANCE:
            raise Error(f"density {density:g}: int8 is far from float32: relative {found:.2g}")
        return found

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
        x = self.network.images(batch)
        peers = self.peers(x, against, torch_compile)
        int8 = self.precision == "int8"
        distances = {density: self.distance(density, x) for density in self.engines if int8}
        candidates = {id(peer): Candidate(str(id(peer)), peer.call) for peer in peers.values()}
        engines = (*self.engines.values(), *self.exact.values(), *self.single.values())
        for engine in dict.fromkeys(engines):
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
            if int8:
                row["float32"] = dataclasses.asdict(timing(self.exact[density]))
                row["distance"] = distances[density]
                row["over"] = OVER["int8"]
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
    against: Sequence[str] | None = None,
    precision: str = "float32",
    threads: int = 1,
    seconds: float = 2.0,
    torch_compile: bool = True,
    **engine: Any,
) -> dict[str, Any]:
    """Races one network of ``NETWORKS``, prints the rows and writes ``peers-<name>.json``.

    In int8 the files are quantised with random images, the engine runs them and the float32 ones,
    and the result is ``peers-int8-<name>.json``. ``against``: None takes those of ``AGAINST``.
    ``engine`` are more options of :class:`kernelprune.Engine`, such as ``isa``.
    """
    network = NETWORKS[name]
    machine = describe_machine()
    print(f"{name}, {precision}, {threads} thread(s) of {machine['processor']}", flush=True)
    against = AGAINST[precision] if against is None else against
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        race = Race(network, densities, threads, engine, Path(folder), precision)
        for batch in batches or network.batches:
            for row in race.rows(batch, against, seconds, torch_compile):
                # Goals are for one thread.
                wanted = goal(name, batch, row["density"], precision)
                row["floor"], row["goal"] = wanted if threads == 1 else (None, None)
                rows.append(row)
                print(as_line(row), flush=True)
    result = {
        "network": name,
        "precision": precision,
        "machine": machine,
        # What OpenVINO was kept to, such as AVX512_CORE_VNNI on a processor that has AMX too.
        "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "threads": threads,
        "engine": engine,
        "fma_peak": race.peak / 1e9,
        "missing": race.missing,
        "rows": rows,
    }
    save(result, out / peers_file(name, threads, precision))
    return result


def _several(outputs: np.ndarray | tuple[np.ndarray, ...]) -> Sequence[np.ndarray]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _distance(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest relative L2 distance of the outputs."""
    return max(
        float(np.linalg.norm(have - want) / np.linalg.norm(want))
        for have, want in zip(found, expected, strict=True)
    )


def as_line(row: dict[str, Any]) -> str:
    """A row for the screen."""
    peers = "  ".join(
        f"{peer} {found['timing']['median']:.2f} ms ({row['speed_up'][peer]:.2f}x)"
        for peer, found in row["peers"].items()
    )
    ours = row["timing"]["median"]
    line = f"batch {row['batch']:>2} density {row['density']:<4g} {ours:>9.3f} ms  "
    if "float32" in row:
        line += f"float32 {row['float32']['median']:.3f} ms  "
    line += peers
    if "one_thread" in row:
        line += f"  {row['one_thread']['median'] / ours:.2f}x over one thread"
    words = verdict(row)
    return f"{line}  floor {row['floor']:.3g}, goal {row['goal']:.3g}: {words}" if words else line
