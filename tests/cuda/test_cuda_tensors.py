"""Tensors on a GPU, in and out of an engine: the emulated device takes memory of the host as its
own, so that the protocols and the way by address run here."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import GraphBuilder

import kernelprune as kp
from kernelprune.runtime.gpu import DeviceArray, GpuTensor, check_tensors, run_tensors

SHAPE = (3, 10, 9)


@dataclass
class ArrayInterface:
    """Memory as CuPy and Numba describe it."""

    array: np.ndarray
    stream: int | None = None
    contiguous: bool = True

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.array.shape,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, False),
            "strides": None if self.contiguous else self.array.strides,
            "version": 3,
            "stream": self.stream,
        }


@dataclass
class DLPack:
    """Memory as JAX and others describe it: numpy's capsule, said to be on a GPU."""

    array: np.ndarray
    index: int = 0
    asked: Any = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.index

    def __dlpack__(self, stream: Any = None) -> Any:
        self.asked = stream
        return self.array.__dlpack__()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The input and a value in the middle are outputs too: tensors that several steps touch."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input(SHAPE)
    y = b.conv2d(x, 8, padding=(1, 1, 1, 1), density=0.5, activation="relu")
    z = b.conv2d(y, 8, padding=(1, 1, 1, 1), density=0.5, residual=y)
    u = b.conv2d(z, 4, kernel=(1, 1))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b.file(u, b.node("global_avg_pool", [u], (4, 1, 1)), y, x, y))
    return path


def images(batch: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE)).astype(np.float32)


def fetch(array: DeviceArray) -> np.ndarray:
    """What lies on the emulated device."""
    interface = array.__cuda_array_interface__
    data = ctypes.string_at(interface["data"][0], array.nbytes)
    return np.frombuffer(data, interface["typestr"]).reshape(interface["shape"])


@pytest.mark.parametrize("precision", ["fast", "half"])
@pytest.mark.parametrize("exporter", [ArrayInterface, DLPack])
@pytest.mark.parametrize("batch", [1, 3, 300])
def test_tensors_of_any_library(model: Path, exporter: type, precision: str, batch: int) -> None:
    """They are read and written where they lie, in slices too: a wrong address or size would touch
    foreign memory, and a tensor that is two outputs must come twice."""
    engine = kp.Engine(model, device="cuda-emulated", precision=precision)
    x = images(batch)
    for _ in range(2):
        got = engine.run(exporter(x))
        for output, expected in zip(got, engine.run(x), strict=True):
            assert isinstance(output, DeviceArray) and "float32" in repr(output)
            np.testing.assert_array_equal(fetch(output), expected)


@pytest.mark.parametrize("exporter", [ArrayInterface, DLPack])
def test_halves_of_any_library(model: Path, exporter: type) -> None:
    """float16 in, float16 out, as for tensors of the host."""
    engine = kp.Engine(model, device="cuda-emulated", precision="half")
    x = images(3).astype(np.float16)
    for output, expected in zip(engine.run(exporter(x)), engine.run(x), strict=True):
        assert output.dtype == "float16"
        np.testing.assert_array_equal(fetch(output), expected)


def test_torch_tensors_by_address(model: Path) -> None:
    """The way of torch tensors on a GPU, whose strides may be any."""
    engine = kp.Engine(model, device="cuda-emulated")
    x = torch.from_numpy(images(3)).permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    held = x.contiguous()
    tensor = GpuTensor(held.data_ptr(), tuple(held.shape), "float32", None, 0, held)
    got = run_tensors(engine._core, [tensor])
    for output, expected in zip(got, engine.run(images(3)), strict=True):
        assert isinstance(output, torch.Tensor)
        np.testing.assert_array_equal(output.numpy(), expected)


def test_tensors_that_are_not_aligned(model: Path) -> None:
    """Kernels read four floats at a time: a view from the middle of a tensor is copied first."""
    engine = kp.Engine(model, device="cuda-emulated")
    room = np.zeros(2 * 270 + 8, np.float32)
    for offset in range(1, 5):
        x = room[offset : offset + 540].reshape(2, *SHAPE)
        x[:] = images(2)
        for output, expected in zip(engine.run(ArrayInterface(x)), engine.run(x), strict=True):
            np.testing.assert_array_equal(fetch(output), expected)


def test_streams_are_named_to_the_exporter_and_to_the_engine(model: Path) -> None:
    """Whoever makes the data must have made it before it is read."""
    engine = kp.Engine(model, device="cuda-emulated")
    source = DLPack(images(1))
    assert check_tensors((source,), engine.inputs, 0)[0].stream == source.asked == 1
    assert check_tensors((ArrayInterface(images(1), 77),), engine.inputs, 0)[0].stream == 77
    assert check_tensors((ArrayInterface(images(1)),), engine.inputs, 0)[0].stream is None


def test_outputs_outlive_the_engine(model: Path) -> None:
    """Memory that went with the engine would be written by whoever gets it next."""
    engine = kp.Engine(model, device="cuda-emulated")
    expected = engine.run(images(2))
    outputs = engine.run(ArrayInterface(images(2)))
    del engine
    for output, want in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(fetch(output), want)


def test_several_engines_at_once(model: Path) -> None:
    """Engines of one device, each in a thread of its own, must not see each other's memory."""
    reference = kp.Engine(model)
    wrong: list[int] = []

    def work(seed: int) -> None:
        engine = kp.Engine(model, device="cuda-emulated")
        for batch in (1, 3, 2):
            x = images(batch, seed)
            for got, want in zip(engine.run(ArrayInterface(x)), reference.run(x), strict=True):
                if not np.allclose(fetch(got), want, rtol=1e-4, atol=1e-5):
                    wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def wide(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ([DLPack(wide((2, *SHAPE)))] * 2, kp.ShapeError, "1 inputs, got 2"),
        ([ArrayInterface(wide((2, 3, 9, 10)))], kp.ShapeError, "[batch,3,10,9], got [2,3,9,10]"),
        ([ArrayInterface(wide(()))], kp.ShapeError, "got []"),
        ([ArrayInterface(wide((2, *SHAPE), np.float16))], kp.ShapeError, "float32, got float16"),
        ([DLPack(wide((2, *SHAPE), np.float64))], kp.ShapeError, "float32, got float64"),
        ([DLPack(wide((2, *SHAPE), np.int32))], kp.ShapeError, "float32, got int32"),
        ([ArrayInterface(wide((2, *SHAPE), np.int32))], kp.ShapeError, "float32, got <i4"),
        ([DLPack(wide((2, *SHAPE)), 1)], kp.DeviceError, "cuda:0 as the others, got cuda:1"),
        ([ArrayInterface(wide((2, 3, 9, 10)).swapaxes(2, 3), None, False)], kp.ShapeError,
         "must be contiguous"),
        ([DLPack(wide((2, 3, 9, 10)).swapaxes(2, 3))], kp.ShapeError, "must be contiguous"),
    ],
)  # fmt: skip
def test_wrong_tensors(model: Path, inputs: list, error: type[Exception], words: str) -> None:
    """An unchecked tensor would be read past its end, on the device."""
    with pytest.raises(error) as raised:
        kp.Engine(model, device="cuda-emulated").run(*inputs)
    assert words in str(raised.value)


def test_no_images(model: Path) -> None:
    """The last batch of a filtered data set may be empty; a launch of no blocks is an error."""
    outputs = kp.Engine(model, device="cuda-emulated").run(ArrayInterface(wide((0, *SHAPE))))
    assert outputs and all(output.shape[0] == 0 for output in outputs)


def test_tensors_of_host_and_device_do_not_mix(tmp_path: Path) -> None:
    """An address of the host would be read by the GPU; one of the GPU by the host."""
    b = GraphBuilder(np.random.default_rng(0))
    x, y = b.input((2, 3, 3), "x"), b.input((2, 3, 3), "y")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b.file(b.node("add", [x, y], (2, 3, 3), activation="none")))
    there, here = ArrayInterface(wide((1, 2, 3, 3))), wide((1, 2, 3, 3))
    with pytest.raises(kp.DeviceError, match="'y' must lie on cuda:0 as the others"):
        kp.Engine(path, device="cuda-emulated").run(there, here)
    with pytest.raises(kp.ShapeError, match="numpy arrays or torch tensors"):
        kp.Engine(path).run(there, there)
    halves = ArrayInterface(wide((1, 2, 3, 3), np.float16))
    with pytest.raises(kp.ShapeError, match="all float32 or all float16"):
        kp.Engine(path, device="cuda-emulated", precision="half").run(there, halves)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_torch_streams_on_the_gpu(model: Path) -> None:
    """A run must see what the stream made before it and be seen by what it makes afterwards."""
    engine, reference = kp.Engine(model, device="cuda"), kp.Engine(model)
    streams = [torch.cuda.Stream() for _ in range(3)]
    x = torch.from_numpy(images(64)).cuda()
    torch.cuda.synchronize()
    results = []
    for i, stream in enumerate(streams * 4):
        with torch.cuda.stream(stream):
            results.append(engine.run(x * (i + 1))[0] * 2)
    torch.cuda.synchronize()
    for i, result in enumerate(results):
        want = reference.run(images(64) * np.float32(i + 1))[0] * 2
        np.testing.assert_allclose(result.cpu().numpy(), want, rtol=1e-3, atol=1e-3)
