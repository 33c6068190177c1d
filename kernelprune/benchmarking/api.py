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
from kernelprune.benchmarking.precision import float32_graph, open_network
from kernelprune.benchmarking.result import ENGINE, ENGINE_FLOAT32, BenchmarkResult, BenchmarkRow
from kernelprune.benchmarking.start_up import StartUp, measure_start_up
from kernelprune.errors import Error, ShapeError
from kernelprune.format import Graph, write
from kernelprune.runtime import Engine, LayerProfile, fma_peak

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
    peer runs. A race in int8 has the engine in float32 too, and all outputs are compared with that.

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
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(Path(path), dataclasses.replace(options, **changes), progress, Path(folder))
        return run.result()


class _Run:
    """One benchmark: the files, the peak and the rows so far.

    Attributes:
        folder: Where the peers' own files go, and the file's twin in the other precision.
        engines: The engine on the pruned file, by the name of its row: in a race in int8 also on
            the float32 twin.
        exact: The engine in float32 on the file that peers run, by whether it is the pruned one.
    """

    def __init__(
        self, path: Path, options: BenchOptions, progress: Progress | None, folder: Path
    ) -> None:
        self.options = options
        self.progress = progress or (lambda doing, share: None)
        self.folder = folder
        self.path = path
        self.dense_path = Path(options.dense_path) if options.dense_path else path
        if options.precision == "int8":
            self.progress("quantising", None)
        network = open_network(path, options.precision, options.calibration, folder)
        self.graph = network.graph
        self.int8 = network.int8 is not None
        self.dense_graph = self.graph if self.dense_path == path else float32_graph(self.dense_path)
        if [v.shape for v in self.graph.inputs] != [v.shape for v in self.dense_graph.inputs]:
            raise ShapeError(f"{self.dense_path} takes other inputs than {path}")
        self.files: dict[str, tuple[Path, dict[str, Any]]] = {}
        if network.int8 is None:
            self.files[ENGINE] = network.float32, options.pruned_engine
        else:
            self.files[ENGINE] = network.int8, options.pruned_engine
            self.files[ENGINE_FLOAT32] = network.float32, options.engine
        self.engines = {name: Engine(file, **own) for name, (file, own) in self.files.items()}
        self.engine = self.engines[ENGINE]
        pruned = list(self.engines.values())[-1]
        dense = pruned if self.dense_path == path else self.dense_engine()
        self.exact = {True: pruned, False: dense}
        self.peak = 0.0
        self.missing: dict[str, str] = {}

    def dense_engine(self) -> Engine:
        """The engine in float32 on the dense peers' own file."""
        path = self.folder / "dense.safetensors"
        write(self.dense_graph, path)
        return Engine(path, **self.options.engine)

    def result(self) -> BenchmarkResult:
        """Measures everything."""
        machine = describe_machine()
        rows: list[BenchmarkRow] = []
        layers: dict[int, list[LayerProfile]] = {}
        before = _torch_threads()
        try:
            for batch in self.options.batch:
                inputs = self.inputs(batch)
                rows += self.rows(batch, inputs)
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
            facts=file_facts(self.graph, self.files[ENGINE][0], self.dense_graph, self.dense_path),
            precision="int8" if self.int8 else "float32",
            rows=rows,
            missing=self.missing,
            layers=layers,
            machine=machine,
        )

    def inputs(self, batch: int) -> list[np.ndarray]:
        """Random numbers; images of the calibration, again and again, where there is one."""
        if self.options.calibration is not None:
            return [
                np.ascontiguousarray(np.resize(each, (batch, *each.shape[1:])), np.float32)
                for each in self.options.calibration
            ]
        shapes = [value.shape for value in self.graph.inputs]
        return random_inputs(shapes, batch, self.options.seed)

    def peers(self, inputs: list[np.ndarray]) -> list[Peer]:
        """Those that are here; the sparse ones get the pruned network, the others the dense one."""
        ready = []
        for name in self.options.peers(self.int8):
            self.progress(f"batch {len(inputs[0])}: setting up {name}", None)
            try:
                ready.append(
                    make_peer(
                        name,
                        self.graph if KINDS[name].sparse else self.dense_graph,
                        inputs,
                        self.options.threads,
                        torch_compile=self.options.torch_compile,
                        calibration=self.options.calibration,
                        folder=self.folder,
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
        outputs = {sparse: _as_list(exact.run(*inputs)) for sparse, exact in self.exact.items()}
        found = dict.fromkeys(self.engines, 0.0)
        if self.int8:
            # Bytes that were fitted to other images may be far off: that is told, and no mistake.
            found[ENGINE] = _difference(_as_list(self.engine.run(*inputs)), outputs[True])
        for peer in peers:
            kind = KINDS[peer.name]
            found[peer.name] = _difference(peer.outputs(), outputs[kind.sparse])
            if not found[peer.name] <= kind.tolerance:
                raise Error(
                    f"{peer.name} and the engine disagree on "
                    f"{self.path if kind.sparse else self.dense_path} at batch {len(inputs[0])}: "
                    f"relative L2 difference {found[peer.name]:.2g}"
                )
        return found

    def rows(self, batch: int, inputs: list[np.ndarray]) -> list[BenchmarkRow]:
        peers = self.peers(inputs)
        differences = self.differences(peers, inputs)
        candidates = [
            Candidate(name, lambda engine=engine: engine.run(*inputs))  # type: ignore[misc]
            for name, engine in self.engines.items()
        ]
        candidates += [Candidate(peer.name, peer.call) for peer in peers]
        timings = measure(
            candidates,
            seconds=self.options.seconds,
            iterations=self.options.iterations,
            warm_up=self.options.warm_up,
            between=self.measure_peak,
            progress=lambda share: self.progress(f"batch {batch}: taking turns", share),
        )
        modes = {peer.name: peer.mode for peer in peers}
        modes |= {name: engine.isa for name, engine in self.engines.items()}
        ours = timings[ENGINE].median
        start_ups = self.start_ups(batch, peers) if self.options.start_up else {}
        own_bytes = {
            name: engine.weight_bytes + engine.workspace_bytes(batch)
            for name, engine in self.engines.items()
        }
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
                own_bytes=own_bytes.get(name),
            )
            for name, timing in timings.items()
        ]

    def start_ups(self, batch: int, peers: list[Peer]) -> dict[str, StartUp]:
        """One process after another, when nobody is timed."""
        shapes = [value.shape for value in self.graph.inputs]
        candidates: dict[str, Any] = dict(self.files)
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
