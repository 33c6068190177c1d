"""Graphs out to ONNX: what ONNX Runtime, and the way back in, make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from models.small_zoo import BUILDERS, awake, build, numbers
from onnx_files import by_runtime
from quantised_graphs import small
from runtime.random_networks import random_network

import kernelprune as kp
from kernelprune import Error
from kernelprune.format import read, write
from kernelprune.frontends.onnx import read_onnx
from kernelprune.frontends.onnx.emitters import EMITTERS
from kernelprune.frontends.torch import to_torch
from kernelprune.graph.ops import OPS


def test_every_op_is_written() -> None:
    """If this fails, an op that files may have cannot be written as ONNX."""
    assert set(EMITTERS) == {name for name, op in OPS.items() if op.in_file}


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_networks(first: int, tmp_path: Path) -> None:
    """If this fails, the ONNX model of a graph computes something else than the engine, for some op
    and its parameters, or cannot be read back."""
    path = tmp_path / "net.onnx"
    for seed in range(first, first + 10):
        network = random_network(seed)
        images = network.batch(2)
        source = tmp_path / "net.safetensors"
        source.write_bytes(network.content)
        wanted = kp.Engine(source).run(*images)
        kp.to_onnx(source, path)
        for want, found in zip(_list(wanted), by_runtime(path, images), strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4, err_msg=f"{seed}")
        functions = {node.params.get("function") for node in read(source)[0].nodes}
        if functions & {"mask", "threshold"}:  # comparisons, which are not read
            continue
        with torch.no_grad():
            back = to_torch(read_onnx(path))(*map(torch.from_numpy, images))
        for want, found in zip(_list(wanted), _list(back), strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4, err_msg=f"{seed}")


def _list(outputs: object) -> list:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


@pytest.mark.parametrize("name", BUILDERS)
def test_zoo_out_and_in_again(name: str, tmp_path: Path) -> None:
    """If this fails, a network of the zoo does not survive the way out to ONNX and in again."""
    model = awake(build(name)).eval()
    x = torch.randn(2, 3, 32, 32)
    kp.to_onnx(model, tmp_path / "net.onnx", x)
    with torch.no_grad():
        wanted, found = (numbers(m(x)) for m in (model, kp.load_onnx(tmp_path / "net.onnx")))
    assert (found - wanted).norm() <= 1e-4 * wanted.norm()


def test_bytes(tmp_path: Path) -> None:
    """If this fails, what QuantizeLinear and DequantizeLinear say of a quantised file is not what
    the engine computes with bytes."""
    source, path = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    write(small(np.random.default_rng(0)), source)
    kp.to_onnx(source, path)
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert {onnx.TensorProto.INT8, onnx.TensorProto.INT32} <= types
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    wanted = kp.Engine(source).run(x)
    (found,) = by_runtime(path, [x])
    # A byte or two may be rounded the other way.
    assert np.linalg.norm(found - wanted) <= 0.02 * np.linalg.norm(wanted)


def test_a_fixed_batch_and_refusals(tmp_path: Path) -> None:
    """If this fails, a batch that was asked for is not in the file, or what cannot be written
    leaves half a file or an error that says nothing."""
    model, x = build("vgg").eval(), torch.randn(1, 3, 32, 32)
    path = tmp_path / "net.onnx"
    with pytest.raises(Error, match="needs an example input x"):
        kp.to_onnx(model, path)
    with pytest.raises(Error, match="no such file"):
        kp.to_onnx(tmp_path / "missing", path)
    assert not path.exists()
    kp.to_onnx(model, path, x, batch=3)
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in dims] == [3, 3, 32, 32]
