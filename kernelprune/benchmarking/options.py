"""Every option of a benchmark, for the API and for the command line alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernelprune.errors import Error

# Those that compute in float32; of them those that are dense, widespread and quick to set up.
FLOAT32_PEERS = ("torch", "onnxruntime", "openvino", "mnn", "mnn-sparse")
DENSE_PEERS = ("torch", "onnxruntime", "openvino")
# All that can be raced.
PEERS = (*FLOAT32_PEERS, "openvino-bf16", "openvino-int8", "onnxruntime-int8", "mnn-int8")
# Whom an int8 file is raced against: what users of dense networks have.
INT8_PEERS = ("openvino-int8", "openvino-bf16", "openvino", "onnxruntime-int8")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and how long.

    Attributes:
        batch: Batch sizes.
        threads: Threads of every candidate.
        against: Peers; they compute the same network with zeros in place of pruned kernels.
        seconds: Time per candidate and batch size.
        iterations: Exactly so many timed calls of each, in place of ``seconds``.
        warm_up: Calls of every candidate before the clock starts.
        isa: Instruction set of the engine; None takes the best.
        precision: Of the engine: ``"fast"`` or ``"strict"``.
        plan: Saved plan of the engine for the pruned file; None chooses by expected cost.
        dense_path: The file that the dense peers run in place of the pruned one, such as the
            network before pruning. The pruned file has lost its dead channels, so its dense
            equivalent is smaller than the network that was pruned.
        torch_compile: torch may also be compiled; that takes up to a minute per batch size.
        start_up: Also measures load, first inference and memory of each in a process of its own.
        per_layer: Also profiles the engine layer by layer.
        seed: Of the random input.
    """

    batch: tuple[int, ...] = (1,)
    threads: int = 1
    against: tuple[str, ...] = DENSE_PEERS
    seconds: float = 2.0
    iterations: int | None = None
    warm_up: int = 3
    isa: str | None = None
    precision: str = "fast"
    plan: str | None = None
    dense_path: str | None = None
    torch_compile: bool = False
    start_up: bool = False
    per_layer: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batch or min(self.batch) < 1:
            raise Error(f"batch sizes must be at least 1, got {list(self.batch)}")
        if self.threads < 1:
            raise Error(f"threads must be at least 1, got {self.threads}")
        if not self.seconds > 0:
            raise Error(f"seconds must be more than 0, got {self.seconds}")
        if self.iterations is not None and self.iterations < 1:
            raise Error(f"iterations must be at least 1, got {self.iterations}")
        if self.warm_up < 0:
            raise Error(f"warm_up must not be negative, got {self.warm_up}")
        for name in self.against:
            if name not in PEERS:
                raise Error(f"unknown peer {name!r}; there are: {', '.join(PEERS)}")

    @property
    def engine(self) -> dict[str, Any]:
        """The engine's own options for any file, by the names that it has for them."""
        return {"threads": self.threads, "isa": self.isa, "precision": self.precision}

    @property
    def pruned_engine(self) -> dict[str, Any]:
        """The same for the pruned file."""
        return {**self.engine, "plan": self.plan}
