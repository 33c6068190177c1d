"""Inputs of dtype u8 are taken as uint8 arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from quantised_graphs import small

import kernelprune as kp
from kernelprune.format import write


def model(folder: Path, dtype: str, quantised: bool = True) -> Path:
    graph = small(np.random.default_rng(0))
    graph.inputs[0].dtype = dtype
    if not quantised:  # numbers that are given as bytes, and a first layer of floats
        graph.inputs[0].quantization = None
        stem = graph.nodes[0]
        stem.weight = stem.weight.astype(np.float32) / 500
        stem.bias, stem.weight_scale = stem.bias.astype(np.float32) / 500, None
    write(graph, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.mark.parametrize("quantised", [True, False])
def test_bytes(quantised: bool, tmp_path: Path) -> None:
    """If this fails, bytes have to be made floats before a run, or mean something else there."""
    engine = kp.Engine(model(tmp_path, "u8", quantised))
    x = np.random.default_rng(1).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
    want = engine.run(x.astype(np.float32))
    np.testing.assert_array_equal(engine.run(x), want)
    np.testing.assert_array_equal(engine.run(x[:, :, ::-1][:, :, ::-1]), want)
    np.testing.assert_array_equal(engine.run(torch.from_numpy(x)).numpy(), want)
    np.testing.assert_allclose(engine.run_reference(x), want, rtol=1e-3, atol=1e-3)
    assert engine.profile(x, repeats=1)


def test_bytes_where_numbers_are_wanted(tmp_path: Path) -> None:
    """If this fails, the bytes of an image are taken for numbers that were never scaled."""
    engine = kp.Engine(model(tmp_path, "f32"))
    x = np.zeros((1, 3, 8, 8), np.uint8)
    for given in (x, torch.from_numpy(x)):
        with pytest.raises(kp.ShapeError, match="must be float32"):
            engine.run(given)


def test_masked_bytes(tmp_path: Path) -> None:
    """If this fails, what a mask hides is computed with."""
    engine = kp.Engine(model(tmp_path, "u8"))
    with pytest.raises(kp.ShapeError):
        engine.run(np.ma.masked_array(np.zeros((1, 3, 8, 8), np.uint8)))
