"""One convolution at a time: which share of the core's FMA peak does each kernel reach?

The layer under test sits between two others, which take over the conversion of the input and the
output; its own time comes from ``Engine.profile``, the peak from the same run.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking import describe_machine
from kernelprune.format import Graph, Node, Value, write
from kernelprune.runtime import Engine, fma_peak


@dataclass(frozen=True)
class Case:
    """One 3x3 or 1x1 layer. ``wanted`` is the share of the peak that it should reach."""

    channels: int
    side: int
    batch: int
    density: float
    kernel: int = 3
    stride: int = 1
    wanted: float | None = None

    @property
    def name(self) -> str:
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        size = f"{self.channels}ch {self.side}x{self.side}"
        return f"{self.kernel}x{self.kernel}{stride} {size} density {self.density:g}"


# Batch 16: images side by side in a vector. Batch 1: pixels of one image.
CASES = [
    Case(64, 32, 16, 0.1),
    *(Case(128, 16, 16, density) for density in (1.0, 0.3)),
    Case(128, 16, 16, 0.1, wanted=0.85),
    Case(128, 16, 16, 0.05),
    Case(256, 8, 16, 0.3),
    Case(256, 8, 16, 0.1, wanted=0.85),
    Case(256, 8, 16, 0.05),
    Case(512, 4, 16, 0.1),
    Case(512, 2, 16, 0.1),
    Case(128, 16, 16, 0.1, stride=2),
    Case(256, 16, 16, 0.1, kernel=1),
    Case(64, 32, 1, 0.1, wanted=0.60),
    Case(128, 16, 1, 0.3),
    Case(128, 16, 1, 0.1, wanted=0.60),
    Case(128, 16, 1, 0.05),
    Case(256, 8, 1, 0.1, wanted=0.60),
    Case(512, 4, 1, 0.1),
    Case(128, 56, 1, 0.1),
    Case(128, 16, 1, 0.1, stride=2),
    Case(256, 14, 1, 0.1, kernel=1),
]


def graph(case: Case) -> Graph:
    """Three convolutions; the middle one is the case."""
    random = np.random.default_rng(0)
    pad = case.kernel // 2
    nodes: list[Node] = []

    def conv(name: str, x: str, side: int, stride: int) -> int:
        kept = random.random((case.channels, case.channels)) < case.density
        shape = (case.channels, case.channels, case.kernel, case.kernel)
        weight = random.standard_normal(shape) * kept[:, :, None, None]
        weight /= max(case.channels * case.density * case.kernel**2, 1.0) ** 0.5
        side = (side + 2 * pad - case.kernel) // stride + 1
        params = {
            "kernel": [case.kernel] * 2,
            "stride": [stride] * 2,
            "padding": [pad] * 4,
            "dilation": [1, 1],
            "activation": "relu",
        }
        bias = np.zeros(case.channels, np.float32)
        output = (case.channels, side, side)
        nodes.append(
            Node("conv2d", name, [x], f"{name}.y", output, params, weight.astype(np.float32), bias)
        )
        return side

    side = conv("before", "x", case.side, 1)
    side = conv("measured", "before.y", side, case.stride)
    conv("after", "measured.y", side, 1)
    return Graph([Value("x", (case.channels, case.side, case.side))], ["after.y"], nodes)


def measure(case: Case, isa: str | None = None, rounds: int = 5) -> dict[str, Any]:
    """Milliseconds, multiply-adds per second and share of the peak of the middle layer.

    Several rounds of profiling, each beside a measurement of the peak; the round with the median
    share counts, so that a disturbed one does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.safetensors"
        write(graph(case), path)
        engine = Engine(path, isa=isa)
    side = case.side
    x = np.random.default_rng(1).standard_normal(
        (case.batch, case.channels, side, side), dtype=np.float32
    )
    engine.run(x)
    found = []
    for _ in range(rounds):
        peak = fma_peak(engine.isa, 0.02)
        layer = engine.profile(x, repeats=30)[1]
        peak = max(peak, fma_peak(engine.isa, 0.02))
        speed = layer.macs * case.batch / (layer.milliseconds / 1e3)
        found.append((speed / peak, speed, peak, layer))
    found.sort(key=lambda entry: entry[0])
    share, speed, peak, layer = found[len(found) // 2]
    return {
        **dataclasses.asdict(case),
        "name": case.name,
        "kernel_used": layer.kernel,
        "milliseconds": layer.milliseconds,
        "gmacs_per_second": speed / 1e9,
        "fma_peak": peak / 1e9,
        "share_of_peak": share,
    }


def run(out: Path, isa: str | None = None) -> dict[str, Any]:
    """Measures all cases on one thread, prints them and writes ``kernels.json``."""
    machine = describe_machine()
    print(f"kernels, one thread of {machine['processor']}")
    rows = []
    for case in CASES:
        row = measure(case, isa)
        rows.append(row)
        verdict = ""
        if case.wanted is not None:
            met = "met" if row["share_of_peak"] >= case.wanted else "MISSED"
            verdict = f"  wanted {case.wanted:.0%}: {met}"
        print(
            f"batch {case.batch:>2}  {case.name:<36} {row['milliseconds']:>8.3f} ms "
            f"{row['share_of_peak']:>5.0%} of peak  {row['kernel_used']}{verdict}",
            flush=True,
        )
    result = {"machine": machine, "threads": 1, "rows": rows}
    (out / "kernels.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result
