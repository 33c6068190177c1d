"""What a benchmark found, as data: for tables, for JSON, for people."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

from kernelprune.benchmarking.harness import Timing
from kernelprune.benchmarking.start_up import StartUp
from kernelprune.columns import Column, text_table
from kernelprune.errors import Error
from kernelprune.files import write_text
from kernelprune.runtime import LayerProfile
from kernelprune.text import plain

ENGINE = "kernelprune"
# In a race in int8: the same network in float32.
ENGINE_FLOAT32 = "kernelprune-float32"
_COLUMNS = (
    Column("batch"),
    Column("engine", "name"),
    Column("median ms"),
    Column("images/s"),
    Column("speed-up"),
    Column("mode", "words", spare=1),
)


@dataclass(frozen=True)
class BenchmarkRow:
    """One candidate at one batch size.

    Attributes:
        batch: Images per call.
        name: ``"kernelprune"``, in a race in int8 also ``"kernelprune-float32"``, or the peer's.
        mode: The instruction set, or the peer's variant.
        timing: Milliseconds per call.
        images_per_second: At the median.
        speed_up: This row's median over the engine's: how many times faster the engine is.
        difference: Relative L2 distance of its outputs from those of the engine in float32 on the
            same network.
        start_up: Load, first inference and memory in a process of its own, if asked for.
        own_bytes: The engine's weights, in the form it keeps them, and activations; None
            for the peers, which do not tell.
    """

    batch: int
    name: str
    mode: str
    timing: Timing
    images_per_second: float
    speed_up: float
    difference: float
    start_up: StartUp | None = None
    own_bytes: int | None = None


@dataclass(frozen=True)
class BenchmarkResult:
    """All rows of a benchmark and what they were measured on.

    Attributes:
        file: The model file that the engine ran.
        dense_file: The file that the peers ran; the same unless told otherwise.
        threads: Of every candidate.
        isa: Instruction set of the engine.
        fma_peak: Multiply-adds per second of one core, measured in the same run.
        facts: Connections, multiply-adds and bytes of the two files.
        rows: One per candidate and batch size.
        missing: Peers that could not run, and why.
        layers: Profile of the engine by batch size, if it was asked for.
        machine: See :func:`kernelprune.benchmarking.describe_machine`.
        precision: What the engine computed in, ``"float32"`` or ``"int8"``.
    """

    file: str
    dense_file: str
    threads: int
    isa: str
    fma_peak: float
    facts: dict[str, int]
    rows: list[BenchmarkRow]
    missing: dict[str, str]
    layers: dict[int, list[LayerProfile]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"

    @property
    def batches(self) -> list[int]:
        """Batch sizes, in the order of measurement."""
        return list(dict.fromkeys(row.batch for row in self.rows))

    @property
    def reduction(self) -> float:
        """Multiply-adds of the peers' dense network over the kept ones: the most to hope for."""
        return self.facts["dense_macs"] / max(self.facts["macs"], 1)

    def row(self, batch: int, name: str = ENGINE) -> BenchmarkRow:
        """The row of a candidate.

        Raises:
            Error: It was not measured.
        """
        for row in self.rows:
            if row.batch == batch and row.name == name:
                return row
        raise Error(f"{name} was not measured at batch {batch}")

    def fastest_peer(self, batch: int) -> BenchmarkRow | None:
        """The peer with the lowest median; None if no peer was there."""
        ours = (ENGINE, ENGINE_FLOAT32)
        peers = [row for row in self.rows if row.batch == batch and row.name not in ours]
        return min(peers, key=lambda row: row.timing.median, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return dataclasses.asdict(self)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """JSON text, also written to ``path`` if given.

        Raises:
            Error: The file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        if path is not None:
            write_text(path, text, "the result")
        return text

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.threads} thread(s), {self.isa}"]
        rows = [
            (
                row.batch,
                row.name,
                f"{row.timing.median:.3f}",
                f"{row.images_per_second:,.0f}",
                f"{row.speed_up:.2f}x",
                row.mode,
            )
            for row in self.rows
        ]
        lines += text_table(_COLUMNS, rows).splitlines()
        lines += [f"{name}: {reason}" for name, reason in self.missing.items()]
        return "\n".join(plain(line) for line in lines)
