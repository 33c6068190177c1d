"""Races a model file against dense engines, in one interleaved run."""

from __future__ import annotations

from kernelprune.benchmarking.api import benchmark
from kernelprune.benchmarking.harness import Candidate, Timing, measure
from kernelprune.benchmarking.machine import describe_machine
from kernelprune.benchmarking.options import (
    DENSE_PEERS,
    FLOAT32_PEERS,
    INT8_PEERS,
    PEERS,
    BenchOptions,
)
from kernelprune.benchmarking.result import BenchmarkResult, BenchmarkRow
from kernelprune.benchmarking.start_up import StartUp

__all__ = [
    "DENSE_PEERS",
    "FLOAT32_PEERS",
    "INT8_PEERS",
    "PEERS",
    "BenchOptions",
    "BenchmarkResult",
    "BenchmarkRow",
    "Candidate",
    "StartUp",
    "Timing",
    "benchmark",
    "describe_machine",
    "measure",
]
