"""One convolution at a time: which share of the core's FMA peak does each kernel reach?

A layer's own time comes from ``Engine.profile``, the peak from the same run. A depthwise layer has
too little to compute for the peak to matter: it is compared with a copy of as many bytes.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.layers import CASES, Case, graph
from bench.results import save
from kernelprune.benchmarking import describe_machine
from kernelprune.format import write
from kernelprune.runtime import Engine, fma_peak

# Far more than the last cache holds.
_LARGE_COPY = 256 << 20


def copy_bandwidth(size: float, seconds: float = 0.02) -> float:
    """Bytes read and written per second by a copy on one core that moves ``size`` bytes in all."""
    source = np.zeros(max(int(size) // 8, 1), np.float32)
    target = np.ones_like(source)
    best, ends = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < ends:
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 2 * source.nbytes / best


class Layer:
    """One case that is ready to run, and what was found so far."""

    def __init__(self, case: Case, **engine: Any) -> None:
        self.case = case
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layer.safetensors"
            write(graph(case), path)
            self.engine = Engine(path, **engine)
        started = time.perf_counter()
        self.engine.run(self.images())
        # A large layer needs fewer repeats for a steady median.
        self.repeats = int(np.clip(0.2 / (time.perf_counter() - started), 5, 30))
        self.found: list[tuple[float, dict[str, Any]]] = []

    def images(self) -> np.ndarray:
        case = self.case
        shape = (case.batch, case.channels, case.side, case.side)
        return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)

    def measure(self) -> None:
        """One profile of the layer, between two measurements of the peak."""
        case = self.case
        peak = fma_peak(self.engine.isa, 0.02)
        layers = self.engine.profile(self.images(), repeats=self.repeats)
        layer = next(layer for layer in layers if layer.name == "measured")
        peak = max(peak, fma_peak(self.engine.isa, 0.02))
        copy = copy_bandwidth(case.bytes)
        seconds = layer.milliseconds / 1e3
        speed, moved = layer.macs * case.batch / seconds, case.bytes / seconds
        row = {
            "kernel_used": layer.kernel,
            "milliseconds": layer.milliseconds,
            "macs": layer.macs * case.batch,
            "bytes": case.bytes,
            "gmacs_per_second": speed / 1e9,
            "gbytes_per_second": moved / 1e9,
            "fma_peak": peak / 1e9,
            "copy_bandwidth": copy / 1e9,
            "share_of_peak": speed / peak,
            "share_of_copy": moved / copy,
        }
        self.found.append((row["share_of_copy" if case.depthwise else "share_of_peak"], row))

    def row(self) -> dict[str, Any]:
        """The measurement with the median share, so that a disturbed one does not count."""
        found = sorted(self.found, key=lambda entry: entry[0])
        return {
            **dataclasses.asdict(self.case),
            "name": self.case.name,
            "isa": self.engine.isa,
            **found[len(found) // 2][1],
        }


def run(out: Path, cases: Sequence[Case] = CASES, rounds: int = 5, **engine: Any) -> dict[str, Any]:
    """Measures all cases on one thread, prints them and writes ``kernels.json``.

    Every round goes through all cases: what disturbs the machine for some seconds then spoils one
    measurement of some cases, and not all of one case. ``engine`` are more options of the engine.
    """
    machine = describe_machine()
    print(f"kernels, one thread of {machine['processor']}", flush=True)
    layers = [Layer(case, **engine) for case in cases]
    for number in range(rounds):
        for layer in layers:
            layer.measure()
        print(f"round {number + 1} of {rounds}", flush=True)
    rows = [layer.row() for layer in layers]
    for row in rows:
        print(_line(row), flush=True)
    result = {
        "machine": machine,
        "threads": 1,
        "engine": engine,
        "copy_bandwidth": copy_bandwidth(_LARGE_COPY, 0.5) / 1e9,
        "rows": rows,
    }
    save(result, out / "kernels.json")
    return result


def _line(row: dict[str, Any]) -> str:
    share = f"{row['share_of_peak']:>5.0%} of peak"
    if row["depthwise"]:
        share = f"{row['share_of_copy']:>5.0%} of copy"
    verdict = ""
    if row["wanted"] is not None:
        met = "met" if row["share_of_peak"] >= row["wanted"] else "MISSED"
        verdict = f"  wanted {row['wanted']:.0%}: {met}"
    return (
        f"batch {row['batch']:>2}  {row['name']:<40} {row['milliseconds']:>8.3f} ms "
        f"{share}  {row['kernel_used']}{verdict}"
    )
