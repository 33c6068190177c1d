"""Races a model file against dense engines, in one interleaved run."""

from __future__ import annotations

from kernelprune.benchmarking.api import benchmark
from kernelprune.benchmarking.harness import Candidate, Timing, measure
from kernelprune.benchmarking.machine import describe_machine
from kernelprune.benchmarking.options import PEERS, BenchOptions
from kernelprune.benchmarking.result import BenchmarkResult, BenchmarkRow

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
