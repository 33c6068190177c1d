"""NaN and infinity through every CUDA kernel, in the emulator."""

from __future__ import annotations

import numpy as np
import pytest
from runtime.test_kernels import Case
from runtime.test_not_finite import SMALL, built, check, inputs_of, reach

from kernelprune import _core

LIMITS = {"strict": 1e-6, "fast": 1e-4, "tf32": 1e-2, "half": 1e-2}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_kernels_are_the_reference(case: Case, precision: str) -> None:
    """If this fails, a kernel drops a NaN, or lets it into outputs that are not connected to it.
    The tensor cores multiply zeros as torch does, and Winograd's method reads whole tiles."""
    b, model = built(case)
    x = inputs_of(b, 3)
    spread = reach(model, x)
    for variant in (0, 5, 17):
        engine = _core.Engine.load_bytes(
            model, "case", 1, "", 0, precision, device="cuda-emulated", cuda_variant=variant
        )
        want, found = engine.run_reference(x)[0], engine.run(x)[0]
        kernels = " ".join(layer.kernel for layer in engine.layers(3))
        if "winograd" in kernels:
            assert np.isnan(found[np.isnan(want)]).all()
            assert not np.isfinite(found[np.isinf(want)]).any()
            assert np.isfinite(found[-1]).all()  # an image without such values
        else:
            check(found, want, spread if "mma" in kernels else None, LIMITS[precision])
