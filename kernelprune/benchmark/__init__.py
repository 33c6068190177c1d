"""Races a model file against dense engines, in one interleaved run."""

from __future__ import annotations

from kernelprune.benchmark.api import benchmark
from kernelprune.benchmark.harness import Candidate, Timing, measure
from kernelprune.benchmark.machine import describe_machine
from kernelprune.benchmark.options import PEERS, BenchOptions
from kernelprune.benchmark.result import BenchmarkResult, BenchmarkRow

__all__ = [
    "PEERS",
    "BenchOptions",
    "BenchmarkResult",
    "BenchmarkRow",
    "Candidate",
    "Timing",
    "benchmark",
    "describe_machine",
    "measure",
]
