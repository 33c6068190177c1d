"""Every option of a benchmark, for the API and for the command line alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernelprune.errors import Error

# Those that compute in float32; of them those that are dense, widespread and quick to set up.
FLOAT32_PEERS = ("torch", "onnxruntime", "openvino", "mnn", "mnn-sparse")
DENSE_PEERS = ("torch", "onnxruntime", "openvino")
# All that can be raced.
PEERS = (*FLOAT32_PEERS, "openvino-bf16", "openvino-int8", "onnxruntime-int8", "mnn-int8")
# Whom an int8 file is raced against: what users of dense networks have.
INT8_PEERS = ("openvino-int8", "openvino-bf16", "openvino", "onnxruntime-int8")
# Of the engine ("fast" and "strict"), or what is raced: "fast" races a file in what it holds.
PRECISIONS = ("fast", "strict", "float32", "int8")


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and how long.

    Attributes:
        batch: Batch sizes.
        threads: Threads of every candidate.
        against: Peers; they compute the same network with zeros in place of pruned kernels. None
            takes ``DENSE_PEERS``, or ``INT8_PEERS`` for a race in int8.
        seconds: Time per candidate and batch size.
        iterations: Exactly so many timed calls of each, in place of ``seconds``.
        warm_up: Calls of every candidate before the clock starts.
        isa: Instruction set of the engine; None takes the best.
        precision: ``"int8"`` quantises a float32 file first and races bytes against float32, ours
            too, and against the peers' int8; so does a file that holds bytes. ``"float32"``, with
            the engine's option ``"fast"``, or ``"strict"``: without Winograd's method.
        calibration: Images ``[count, *shape]`` for each input, float32, to quantise with: ours and
            the peers'; they are also what is run. None takes a few random ones.
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
    against: tuple[str, ...] | None = None
    seconds: float = 2.0
    iterations: int | None = None
    warm_up: int = 3
    isa: str | None = None
    precision: str = "fast"
    calibration: Sequence[np.ndarray] | None = field(default=None, compare=False, repr=False)
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
        for name in self.against or ():
            if name not in PEERS:
                raise Error(f"unknown peer {name!r}; there are: {', '.join(PEERS)}")
        if self.precision not in PRECISIONS:
            raise Error(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")

    def peers(self, int8: bool) -> tuple[str, ...]:
        """Whom to race against, in bytes or in float32."""
        if self.against is not None:
            return self.against
        return INT8_PEERS if int8 else DENSE_PEERS

    @property
    def engine(self) -> dict[str, Any]:
        """The engine's own options for any file, by the names that it has for them."""
        precision = "strict" if self.precision == "strict" else "fast"
        return {"threads": self.threads, "isa": self.isa, "precision": precision}

    @property
    def pruned_engine(self) -> dict[str, Any]:
        """The same for the pruned file."""
        return {**self.engine, "plan": self.plan}
