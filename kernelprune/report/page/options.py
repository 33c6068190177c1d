"""What a page is made with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Told what is being done and, where that is known, which share of it is done.
Progress = Callable[[str, float | None], object]


@dataclass(frozen=True)
class Strengths:
    """How the strengths of a training are spread, as ``Plan.histogram`` has it: ``edges`` of B bins
    ascend, ``counts`` and ``kept`` are B numbers for each layer."""

    edges: Sequence[float]
    counts: Mapping[str, Sequence[int]]
    kept: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class PageOptions:
    """Of :func:`kernelprune.report.write_page`.

    Attributes:
        dense: The model file before pruning; its size, time and accuracy stand beside.
        batch: Images per run.
        threads, isa, precision, plan: As for :class:`kernelprune.Engine`.
        seconds: How long to time each network.
        time: False runs nothing: the page then has no times.
        strengths: Of the training that the file came from.
        progress: Told what is being done.
    """

    dense: str | os.PathLike[str] | None = None
    batch: int = 1
    threads: int = 1
    isa: str | None = None
    precision: str = "fast"
    plan: str | os.PathLike[str] | None = None
    seconds: float = 1.0
    time: bool = True
    strengths: Strengths | None = None
    progress: Progress | None = None
