"""``kernelprune.benchmark``: one file, the engine and its peers."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking.harness import Candidate, measure
from kernelprune.benchmarking.machine import describe_machine
from kernelprune.benchmarking.options import BenchOptions
from kernelprune.benchmarking.peers import (
    KINDS,
    NotInstalled,
    Outputs,
    Peer,
    Refused,
    make_peer,
    random_inputs,
)
from kernelprune.benchmarking.result import ENGINE, BenchmarkResult, BenchmarkRow
from kernelprune.benchmarking.start_up import StartUp, measure_start_up
from kernelprune.errors import Error, ShapeError
from kernelprune.format import Graph, read
from kernelprune.runtime import Engine, LayerProfile, fma_peak

# float32 sums in another order: far above rounding, far below any real mistake.
_TOLERANCE = 1e-3

# Told what is being done and, where that is known, which share of it is done.
Progress = Callable[[str, float | None], object]


def benchmark(
    path: str | os.PathLike[str],
    *,
    batch: int | Iterable[int] = 1,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> BenchmarkResult:
    """Times a model file on the engine and its dense equivalent on the peers, taking turns.

    Before the clock starts every peer's outputs are compared with the engine's on the file that the
    peer runs.

    Args:
        path: The model file.
        batch: One batch size or several; not looked at when there are ``options``.
        options: Everything at once.
        progress: Called now and then with what is being done and the share that is done, or None.
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
    run = _Run(Path(path), dataclasses.replace(options, **changes), progress)
    with tempfile.TemporaryDirectory() as folder:
        return run.result(Path(folder))


class _Run:
    """One benchmark: the files, the peak and the rows so far."""

    def __init__(self, path: Path, options: BenchOptions, progress: Progress | None) -> None:
        self.options = options
        self.progress = progress or (lambda doing, share: None)
        self.path = path
        self.dense_path = Path(options.dense_path) if options.dense_path else path
        self.graph, _ = read(path)
        self.dense_graph = self.graph if self.dense_path == path else read(self.dense_path)[0]
        if [v.shape for v in self.graph.inputs] != [v.shape for v in self.dense_graph.inputs]:
            raise ShapeError(f"{self.dense_path} takes other inputs than {path}")
        self.engine = Engine(path, **options.pruned_engine)
        self.dense_engine = (
            self.engine if self.dense_path == path else Engine(self.dense_path, **options.engine)
        )
        self.peak = 0.0
        self.missing: dict[str, str] = {}

    def result(self, folder: Path) -> BenchmarkResult:
        """Measures everything; the peers' own files go into ``folder``."""
        machine = describe_machine()
        rows: list[BenchmarkRow] = []
        layers: dict[int, list[LayerProfile]] = {}
        before = _torch_threads()
        try:
            for batch in self.options.batch:
                shapes = [value.shape for value in self.graph.inputs]
                inputs = random_inputs(shapes, batch, self.options.seed)
                rows += self.rows(batch, inputs, folder)
                if self.options.per_layer:
                    self.progress(f"batch {batch}: layer by layer", None)
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

    def peers(self, inputs: list[np.ndarray], folder: Path) -> list[Peer]:
        """Those that are here; the sparse ones get the pruned network, the others the dense one."""
        ready = []
        for name in self.options.against:
            self.progress(f"batch {len(inputs[0])}: setting up {name}", None)
            try:
                ready.append(
                    make_peer(
                        name,
                        self.graph if KINDS[name].sparse else self.dense_graph,
                        inputs,
                        self.options.threads,
                        torch_compile=self.options.torch_compile,
                        folder=folder,
                    )
                )
            except (NotInstalled, Refused) as error:
                self.missing[name] = str(error)
        return ready

    def differences(self, peers: list[Peer], inputs: list[np.ndarray]) -> dict[str, float]:
        """How far each peer's outputs are from the engine's on the file that the peer runs.

        Raises:
            Error: A peer computes something else.
        """
        outputs = {False: _as_list(self.dense_engine.run(*inputs))}
        outputs[True] = _as_list(self.engine.run(*inputs))
        found = {ENGINE: 0.0}
        for peer in peers:
            sparse = KINDS[peer.name].sparse
            found[peer.name] = _difference(peer.outputs(), outputs[sparse])
            if not found[peer.name] <= _TOLERANCE:
                raise Error(
                    f"{peer.name} and the engine disagree on "
                    f"{self.path if sparse else self.dense_path} at batch {len(inputs[0])}: "
                    f"relative L2 difference {found[peer.name]:.2g}"
                )
        return found

    def rows(self, batch: int, inputs: list[np.ndarray], folder: Path) -> list[BenchmarkRow]:
        peers = self.peers(inputs, folder)
        differences = self.differences(peers, inputs)
        candidates = [Candidate(ENGINE, lambda: self.engine.run(*inputs))]
        candidates += [Candidate(peer.name, peer.call) for peer in peers]
        timings = measure(
            candidates,
            seconds=self.options.seconds,
            iterations=self.options.iterations,
            warm_up=self.options.warm_up,
            between=self.measure_peak,
            progress=lambda share: self.progress(f"batch {batch}: taking turns", share),
        )
        modes = {peer.name: peer.mode for peer in peers} | {ENGINE: self.engine.isa}
        ours = timings[ENGINE].median
        start_ups = self.start_ups(batch, peers) if self.options.start_up else {}
        own_bytes = self.engine.weight_bytes + self.engine.workspace_bytes(batch)
        return [
            BenchmarkRow(
                batch=batch,
                name=name,
                mode=modes[name],
                timing=timing,
                images_per_second=batch / timing.median * 1e3,
                speed_up=timing.median / ours,
                difference=differences[name],
                start_up=start_ups.get(name),
                own_bytes=own_bytes if name == ENGINE else None,
            )
            for name, timing in timings.items()
        ]

    def start_ups(self, batch: int, peers: list[Peer]) -> dict[str, StartUp]:
        """One process after another, when nobody is timed."""
        shapes = [value.shape for value in self.graph.inputs]
        candidates: dict[str, Any] = {ENGINE: (self.path, self.options.pruned_engine)}
        candidates |= {peer.name: peer.job for peer in peers}
        found = {}
        for name, candidate in candidates.items():
            self.progress(f"batch {batch}: start-up of {name}", None)
            found[name] = measure_start_up(candidate, shapes, batch, self.options.seed)
        return found

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
