"""The CUDA kernels with kernels of 1x1 to 9x9 on maps of 1x1 to 9x9, in the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from runtime.test_small_maps import geometries, model_of

from kernelprune import _core


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fast", 1e-5), ("tf32", 5e-3), ("half", 5e-3)]
)
def test_every_geometry(precision: str, tolerance: float) -> None:
    """If this fails, a GPU computes some layer on small maps with other weights or pixels; the
    variants are the ways in which a layer may be computed."""
    some = list(geometries(200, seed=18))
    model, b = model_of(some, 18)
    inputs = b.batch(2)
    expected = None
    for variant in range(0, 23, 3):
        engine = _core.Engine.load_bytes(
            model, "sweep", 1, "", 0, precision, device="cuda-emulated", cuda_variant=variant
        )
        expected = expected or engine.run_reference(inputs)
        kernels = [layer.kernel for layer in engine.layers(2)]
        for kernel, geometry, found, want in zip(
            kernels, some, engine.run(inputs), expected, strict=True
        ):
            error = np.abs(found - want).max()
            assert error <= tolerance * max(1.0, np.abs(want).max()), (geometry, kernel)
