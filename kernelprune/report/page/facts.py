"""What a page says, as data: read from the files, told by the engine, and measured once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernelprune.benchmarking.api import file_facts
from kernelprune.benchmarking.harness import Candidate, Timing, measure
from kernelprune.benchmarking.machine import describe_machine
from kernelprune.benchmarking.peers import random_inputs
from kernelprune.errors import Error, ShapeError
from kernelprune.files import name_of
from kernelprune.format import Graph, read
from kernelprune.report.page.options import PageOptions
from kernelprune.runtime import Engine, LayerProfile
from kernelprune.runtime.candidates import LayerChoices, layer_choices

_ENGINE, _DENSE = "engine", "dense"
_LONG_RUN = 0.5  # seconds; of such a network fewer runs are profiled


@dataclass(frozen=True)
class Facts:
    """Of one model file, and of the dense one beside it if there is one.

    Attributes:
        name, dense_name: Of the files.
        graph, metadata: What the file holds.
        dense_metadata: Of the dense file.
        counts: Connections, multiply-adds and bytes, see ``file_facts``.
        engine: Facts of the engine by what they are called.
        layers: One per node; with times if they were measured.
        choices: What was considered, by layer.
        timing, dense_timing: Of whole runs, taking turns.
        machine: Where all that was.
    """

    name: str
    graph: Graph
    metadata: Mapping[str, str]
    counts: Mapping[str, int]
    engine: Mapping[str, Any]
    layers: list[LayerProfile]
    choices: Mapping[str, LayerChoices]
    machine: Mapping[str, Any]
    options: PageOptions
    dense_name: str | None = None
    dense_metadata: Mapping[str, str] = field(default_factory=dict)
    timing: Timing | None = None
    dense_timing: Timing | None = None


def collect(path: Path, options: PageOptions) -> Facts:
    """Reads, plans and times. Raises as :func:`kernelprune.report.write_page`."""
    if options.batch < 1:
        raise Error(f"batch must be at least 1, got {options.batch}")
    progress = options.progress or (lambda doing, share: None)
    progress("reading the file", None)
    graph, metadata = read(path)
    fixed: dict[str, Any] = dict(
        threads=options.threads, isa=options.isa, precision=options.precision
    )
    engine = Engine(path, plan=options.plan, **fixed)
    dense_path = path if options.dense is None else Path(name_of(options.dense))
    dense_graph, dense_metadata, dense = graph, metadata, None
    if options.dense is not None:
        dense_graph, dense_metadata = read(dense_path)
        if [v.shape for v in graph.inputs] != [v.shape for v in dense_graph.inputs]:
            raise ShapeError(f"{dense_path} takes other inputs than {path}")
        dense = Engine(dense_path, **fixed) if options.time else None
    timings: dict[str, Timing] = {}
    layers = engine.layers(options.batch)
    if options.time:
        timings, layers = _times(graph, engine, dense, options)
    return Facts(
        name=path.name,
        graph=graph,
        metadata=metadata,
        counts=file_facts(graph, path, dense_graph, dense_path),
        engine={
            "instruction set": engine.isa,
            "threads": engine.threads,
            "precision": engine.precision,
            "batch": options.batch,
            "weights in memory": engine.weight_bytes,
            "activations in memory": engine.workspace_bytes(options.batch),
        },
        layers=layers,
        choices=layer_choices(engine, options.batch),
        machine=describe_machine(),
        options=options,
        dense_name=None if options.dense is None else dense_path.name,
        dense_metadata={} if options.dense is None else dense_metadata,
        timing=timings.get(_ENGINE),
        dense_timing=timings.get(_DENSE),
    )


def _times(
    graph: Graph, engine: Engine, dense: Engine | None, options: PageOptions
) -> tuple[dict[str, Timing], list[LayerProfile]]:
    """Of whole runs by name, and of each layer of the engine."""
    progress = options.progress or (lambda doing, share: None)
    shapes = [value.shape for value in graph.inputs]
    inputs = random_inputs(shapes, options.batch, seed=0)
    candidates = [Candidate(_ENGINE, lambda: engine.run(*inputs))]
    if dense is not None:
        candidates.append(Candidate(_DENSE, lambda: dense.run(*inputs)))
    timings = measure(
        candidates,
        seconds=options.seconds,
        progress=lambda share: progress("timing the network", share),
    )
    progress("timing each layer", None)
    once = timings[_ENGINE].median / 1e3
    repeats = 20 if once < _LONG_RUN else 3
    repeats = max(1, min(repeats, int(options.seconds / max(once, 1e-6)) + 1))
    return timings, engine.profile(*inputs, repeats=repeats)
