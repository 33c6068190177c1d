"""Races a model file against dense engines, in one interleaved run.

``kernelprune.benchmark`` is this package and the function of the same name at once: the package is
callable, so that ``kernelprune.benchmark("model.safetensors")`` works whatever was imported first.
"""

from __future__ import annotations

import sys
import types
from typing import Any

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


class _CallableModule(types.ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> BenchmarkResult:
        return benchmark(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
