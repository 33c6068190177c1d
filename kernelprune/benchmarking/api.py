"""``kernelprune.benchmark``: one file, the engine and its peers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking.harness import Candidate, measure
from kernelprune.benchmarking.machine import describe_machine
from kernelprune.benchmarking.options import BenchOptions
from kernelprune.benchmarking.peers import NotInstalled, Outputs, Peer, make_peer
from kernelprune.benchmarking.result import ENGINE, BenchmarkResult, BenchmarkRow
from kernelprune.errors import Error, ShapeError
from kernelprune.format import Graph, read
from kernelprune.runtime import Engine, LayerProfile, fma_peak

# float32 sums in another order: far above rounding, far below any real mistake.
_TOLERANCE = 1e-3


def benchmark(
    path: str | os.PathLike[str],
    *,
    batch: int | Iterable[int] = 1,
    options: BenchOptions | None = None,
    **changes: Any,
) -> BenchmarkResult:
    """Times a model file on the engine and its dense equivalent on the peers, taking turns.

    Before the clock starts every peer's outputs are compared with the engine's on the file that the
    peer runs.

    Args:
        path: The model file.
        batch: One batch size or several; not looked at when there are ``options``.
        options: Everything at once.
        changes: Single options, see :class:`BenchOptions`, such as ``threads=2`` or
            ``against=("torch",)``; they go before ``options``.

    Raises:
        Error: No such file, unknown peer, or a peer computes something else.
        FormatError: A file is not a valid model.
        DeviceError: The instruction set is not available here.
    """
    if options is None:
        options = BenchOptions(batch=(batch,) if isinstance(batch, int) else tuple(batch))
    known = {entry.name for entry in dataclasses.fields(BenchOptions)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise Error(f"benchmark has no option {', '.join(unknown)}; there are: {sorted(known)}")
    if isinstance(changes.get("against"), str):
        changes["against"] = (changes["against"],)
    if "against" in changes:
        changes["against"] = tuple(changes["against"])
    return _Run(Path(path), dataclasses.replace(options, **changes)).result()


class _Run:
    """One benchmark: the files, the peak and the rows so far."""

    def __init__(self, path: Path, options: BenchOptions) -> None:
        self.options = options
        self.path = path
        self.dense_path = Path(options.dense_path) if options.dense_path else path
        self.graph, _ = read(path)
        self.dense_graph = self.graph if self.dense_path == path else read(self.dense_path)[0]
        if [v.shape for v in self.graph.inputs] != [v.shape for v in self.dense_graph.inputs]:
            raise ShapeError(f"{self.dense_path} takes other inputs than {path}")
        self.engine = Engine(path, threads=options.threads, isa=options.isa)
        self.dense_engine = (
            self.engine
            if self.dense_path == path
            else Engine(self.dense_path, threads=options.threads, isa=options.isa)
        )
        self.peak = 0.0
        self.missing: dict[str, str] = {}

    def result(self) -> BenchmarkResult:
        machine = describe_machine()
        rows: list[BenchmarkRow] = []
        layers: dict[int, list[LayerProfile]] = {}
        before = _torch_threads()
        try:
            for batch in self.options.batch:
                inputs = self.inputs(batch)
                rows += self.rows(batch, inputs)
                if self.options.per_layer:
                    layers[batch] = self.engine.profile(*inputs)
        finally:
            if before:
                _torch_threads(before)
        return BenchmarkResult(
            file=self.path.name,
            dense_file=self.dense_path.name,
            threads=self.options.threads,
            isa=self.engine.isa,
            fma_peak=self.peak,
            facts=file_facts(self.graph, self.path, self.dense_graph, self.dense_path),
            rows=rows,
            missing=self.missing,
            layers=layers,
            machine=machine,
        )

    def inputs(self, batch: int) -> list[np.ndarray]:
        random = np.random.default_rng(self.options.seed)
        return [
            random.standard_normal((batch, *value.shape), dtype=np.float32)
            for value in self.graph.inputs
        ]

    def peers(self, inputs: list[np.ndarray]) -> list[Peer]:
        ready = []
        for name in self.options.against:
            try:
                ready.append(make_peer(name, self.dense_graph, inputs, self.options.threads))
            except NotInstalled as error:
                self.missing[name] = str(error)
        return ready

    def rows(self, batch: int, inputs: list[np.ndarray]) -> list[BenchmarkRow]:
        peers = self.peers(inputs)
        expected = _as_list(self.dense_engine.run(*inputs))
        differences = {ENGINE: 0.0}
        for peer in peers:
            differences[peer.name] = _difference(peer.outputs(), expected)
            if not differences[peer.name] <= _TOLERANCE:
                raise Error(
                    f"{peer.name} and the engine disagree on {self.dense_path} at batch {batch}: "
                    f"relative L2 difference {differences[peer.name]:.2g}"
                )
        candidates = [Candidate(ENGINE, lambda: self.engine.run(*inputs))]
        candidates += [Candidate(peer.name, peer.call) for peer in peers]
        timings = measure(
            candidates,
            seconds=self.options.seconds,
            warm_up=self.options.warm_up,
            between=self.measure_peak,
        )
        modes = {peer.name: peer.mode for peer in peers} | {ENGINE: self.engine.isa}
        ours = timings[ENGINE].median
        return [
            BenchmarkRow(
                batch=batch,
                name=name,
                mode=modes[name],
                timing=timing,
                images_per_second=batch / timing.median * 1e3,
                speed_up=timing.median / ours,
                difference=differences[name],
            )
            for name, timing in timings.items()
        ]

    def measure_peak(self) -> None:
        """The best of all measurements: anything that disturbs one only makes it smaller."""
        self.peak = max(self.peak, fma_peak(self.engine.isa, 0.005))


def file_facts(graph: Graph, path: Path, dense_graph: Graph, dense_path: Path) -> dict[str, int]:
    """Connections, multiply-adds per image and bytes of a file and of its dense counterpart."""
    return {
        "connections": graph.kept_connections(),
        "all_connections": dense_graph.all_connections(),
        "macs": graph.macs(),
        "dense_macs": dense_graph.macs(dense=True),
        "file_bytes": path.stat().st_size,
        "dense_file_bytes": dense_path.stat().st_size,
    }


def _as_list(outputs: np.ndarray | tuple[np.ndarray, ...]) -> Outputs:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def _difference(found: Outputs, expected: Outputs) -> float:
    """Largest relative L2 distance over the outputs; infinite where shapes differ."""
    worst = 0.0
    for have, want in zip(found, expected, strict=True):
        if have.shape != want.shape:
            return float("inf")
        scale = max(float(np.linalg.norm(want)), 1e-30)
        worst = max(worst, float(np.linalg.norm(have - want)) / scale)
    return worst


def _torch_threads(threads: int | None = None) -> int:
    """Torch's number of threads, after setting it if asked to; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    if threads is not None:
        torch.set_num_threads(threads)
    return int(torch.get_num_threads())
