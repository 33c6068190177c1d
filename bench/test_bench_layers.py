"""A few layers under pytest-benchmark, to compare two states of the code.

pytest bench --benchmark-enable --benchmark-autosave --benchmark-storage=.benchmarks
pytest bench --benchmark-enable --benchmark-compare --benchmark-storage=.benchmarks
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.layers import Case, graph
from kernelprune.format import write
from kernelprune.runtime import Engine, available_isas

CASES = [
    Case(64, 32, 16, 0.1),
    Case(128, 16, 16, 0.1),
    Case(256, 8, 16, 0.1),
    Case(128, 16, 16, 0.1, stride=2),
    Case(256, 16, 16, 0.1, kernel=1),
    Case(128, 16, 1, 0.1),
    Case(256, 8, 1, 0.1),
]


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"batch {case.batch} {case.name}")
def test_three_layers(benchmark, tmp_path: Path, case: Case, isa: str) -> None:
    """If this gets slower, so does every network with layers of this kind."""
    path = tmp_path / "layers.safetensors"
    write(graph(case), path)
    engine = Engine(path, isa=isa)
    random = np.random.default_rng(1)
    x = random.standard_normal((case.batch, case.channels, case.side, case.side), np.float32)
    macs = sum(layer.macs for layer in engine.layers(case.batch)) * case.batch
    benchmark.extra_info.update(isa=isa, kernel=engine.layers(case.batch)[1].kernel, macs=macs)
    found = benchmark(engine.run, x)
    assert found.shape[0] == case.batch and np.isfinite(found).all()


@pytest.mark.parametrize("channels", [64, 512])
def test_load(benchmark, tmp_path: Path, channels: int) -> None:
    """If this gets slower, a program waits longer before its first image."""
    path = tmp_path / "layers.safetensors"
    write(graph(Case(channels, 8, 1, 0.3)), path)
    assert benchmark(Engine, path).inputs[0][1] == (channels, 8, 8)
