"""From a torch model through ``kp.quantize`` and a file to the engine: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from int8_files import engines
from models.small_zoo import build

import kernelprune as kp

# Residuals, concats, depthwise layers with squeeze and excitation, shuffles.
NAMES = ["resnet", "densenet", "mobilenet_v3", "shufflenet"]


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_computes_what_torch_does(name: str, tmp_path: Path) -> None:
    """If this fails, the accuracy that a user measures in torch is not the file's."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(17, 3, 32, 32, generator=generator)
    model = kp.quantize(build(name).eval(), images[:4], progress=lambda *_: None)
    path = tmp_path / "model.safetensors"
    kp.export(model, images, path)
    with torch.no_grad():
        expected = model(images).numpy()
    for what, engine in engines(path.read_bytes(), threads=(2,)):
        for batch in (1, 3, 17):
            found = engine.run([images[:batch].numpy()])[0]
            assert np.array_equal(found, expected[:batch]), f"{what}, batch {batch}"
        # Bytes from end to end.
        assert not any("quantize" in layer.kernel for layer in engine.layers(1))
