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


def measure(case: Case, isa: str | None = None, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds, multiply-adds per second and share of the peak of the measured layer.

    Several rounds of profiling, each beside a measurement of the peak; the round with the median
    share counts, so that a disturbed one does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.safetensors"
        write(graph(case), path)
        engine = Engine(path, isa=isa)
    shape = (case.batch, case.channels, case.side, case.side)
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    started = time.perf_counter()
    engine.run(x)
    # A large layer needs fewer repeats for a steady median.
    repeats = int(np.clip(0.2 / (time.perf_counter() - started), 5, 30))
    found = []
    for _ in range(rounds):
        peak = fma_peak(engine.isa, 0.02)
        layers = engine.profile(x, repeats=repeats)
        layer = next(layer for layer in layers if layer.name == "measured")
        peak = max(peak, fma_peak(engine.isa, 0.02))
        speed = layer.macs * case.batch / (layer.milliseconds / 1e3)
        copy = copy_bandwidth(case.bytes)
        found.append((speed / peak, speed, peak, copy, layer))
    found.sort(key=lambda entry: entry[0])
    share, speed, peak, copy, layer = found[len(found) // 2]
    moved = case.bytes / (layer.milliseconds / 1e3)
    return {
        **dataclasses.asdict(case),
        "name": case.name,
        "isa": engine.isa,
        "kernel_used": layer.kernel,
        "milliseconds": layer.milliseconds,
        "macs": layer.macs * case.batch,
        "bytes": case.bytes,
        "gmacs_per_second": speed / 1e9,
        "gbytes_per_second": moved / 1e9,
        "fma_peak": peak / 1e9,
        "copy_bandwidth": copy / 1e9,
        "share_of_peak": share,
        "share_of_copy": moved / copy,
    }


def run(out: Path, isa: str | None = None, cases: Sequence[Case] = CASES) -> dict[str, Any]:
    """Measures all cases on one thread, prints them and writes ``kernels.json``."""
    machine = describe_machine()
    print(f"kernels, one thread of {machine['processor']}")
    rows = []
    for case in cases:
        row = measure(case, isa)
        rows.append(row)
        verdict = ""
        if case.wanted is not None:
            met = "met" if row["share_of_peak"] >= case.wanted else "MISSED"
            verdict = f"  wanted {case.wanted:.0%}: {met}"
        share = f"{row['share_of_peak']:>5.0%} of peak"
        if case.depthwise:
            share = f"{row['share_of_copy']:>5.0%} of copy"
        print(
            f"batch {case.batch:>2}  {case.name:<40} {row['milliseconds']:>8.3f} ms "
            f"{share}  {row['kernel_used']}{verdict}",
            flush=True,
        )
    result = {
        "machine": machine,
        "threads": 1,
        "copy_bandwidth": copy_bandwidth(_LARGE_COPY, 0.5) / 1e9,
        "rows": rows,
    }
    save(result, out / "kernels.json")
    return result
