"""What all peers have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kernelprune.errors import Error

Outputs = list[np.ndarray]

# What a peer computes in -> how far its outputs may be from those of float32 (relative L2). Float32
# in another order is far below its bound; bytes of an untrained network come close to theirs, but
# the outputs of another network are at 1.4.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.2, "int8": 0.5}


@dataclass(frozen=True)
class Job:
    """What a peer is to run and how: plain data, so that another process can be told.

    Attributes:
        name: Such as ``"openvino"``.
        path: The model in the peer's own format.
        inputs: Names of the graph's inputs.
        outputs: Names of the graph's outputs.
        threads: Of one run.
        torch_compile: Also try ``torch.compile`` (torch only).
        mode: The variant to take; None takes the fastest.
    """

    name: str
    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int = 1
    torch_compile: bool = False
    mode: str | None = None


@dataclass(frozen=True)
class Peer:
    """A peer that is ready to run.

    Attributes:
        name: Such as ``"openvino"``.
        mode: The variant that is timed, such as ``"eager, channels_last"``.
        call: Runs once on the input that it was made with.
        outputs: Runs once and returns copies of the outputs.
        job: What it was made from.
    """

    name: str
    mode: str
    call: Callable[[], object]
    outputs: Callable[[], Outputs]
    job: Job


class NotInstalled(Error):
    """A peer is missing here; the message says what to install."""


class Refused(Error):
    """A peer cannot run a model that the engine runs."""


def random_inputs(shapes: Sequence[Sequence[int]], batch: int, seed: int) -> list[np.ndarray]:
    """Standard normal float32 ``[batch, *shape]``, the same for the same seed."""
    random = np.random.default_rng(seed)
    return [random.standard_normal((batch, *shape), dtype=np.float32) for shape in shapes]


def quick_time(call: Callable[[], object], seconds: float = 0.3) -> float:
    """The fastest of the calls that fit in about ``seconds``, after one to warm up."""
    call()
    best, ends = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
