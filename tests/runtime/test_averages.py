"""Averages over many pixels. In one chain of additions the roundings of equal numbers do not
cancel."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import GraphBuilder
from runtime.check_networks import LANES

from kernelprune import _core

ENGINES = [(isa, lanes) for isa in _core.available_isas() for lanes in LANES[isa]]


@pytest.mark.parametrize("size", [(23, 23), (56, 56), (1, 4096), (224, 225)])
@pytest.mark.parametrize(("isa", "lanes"), ENGINES)
def test_mean_of_a_constant_map(isa: str, lanes: int, size: tuple[int, int]) -> None:
    """If this fails, a mean over a large map drifts: by 4e-5 on 56x56, by 6e-4 on 224x224."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((3, *size))
    means = [b.node("global_avg_pool", [x], (3, 1, 1))]
    if max(size) <= 64:  # the largest window
        means.append(b.pool("avg_pool2d", x, size, (1, 1)))
    engine = _core.Engine.load_bytes(b.file(*means), "means", 1, isa, lanes)
    levels = np.random.default_rng(1).random((lanes, 3, 1, 1)).astype(np.float32)
    for mean in engine.run([levels + np.zeros((1, 1, *size), np.float32)]):
        np.testing.assert_allclose(mean, levels, rtol=2e-6)
