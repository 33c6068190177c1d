"""Where the outputs of a run go, and what an engine is made of."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import GraphBuilder

from kernelprune import Engine, Error, FormatError, ShapeError

SHAPE = (3, 9, 7)


@pytest.fixture(scope="module")
def content() -> bytes:
    """Two outputs: a map [5,9,7] and its means [5]."""
    b = GraphBuilder(np.random.default_rng(0))
    y = b.conv2d(b.input(SHAPE), 5, padding=(1, 1, 1, 1))
    mean = b.node("global_avg_pool", [y], (5, 1, 1))
    return b.file(y, b.node("flatten", [mean], (5,)))


@pytest.fixture(scope="module")
def engine(content: bytes) -> Engine:
    return Engine(content)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)


def test_out_takes_the_outputs(engine: Engine, x: np.ndarray) -> None:
    """If this fails, a caller's buffers hold something else than what a run gives."""
    want = engine.run(x)
    out = (np.full((4, 5, 9, 7), np.nan, np.float32), np.full((4, 5), np.nan, np.float32))
    assert engine.run(x, out=out) is out
    tensors = [torch.empty(4, 5, 9, 7), torch.empty(4, 5)]
    assert engine.run(torch.from_numpy(x), out=tensors) is tensors
    for expected, array, tensor in zip(want, out, tensors, strict=True):
        assert np.array_equal(array, expected) and np.array_equal(tensor.numpy(), expected)


def test_named(engine: Engine, x: np.ndarray) -> None:
    """If this fails, an output is found under the name of another."""
    names = [name for name, _ in engine.outputs]
    found = engine.run(x, named=True)
    assert list(found) == names
    for value, want in zip(found.values(), engine.run(x), strict=True):
        assert np.array_equal(value, want)


def test_no_images(engine: Engine) -> None:
    """If this fails, a loop over batches needs a special case for the empty one."""
    empty = np.zeros((0, *SHAPE), np.float32)
    out = [np.zeros((0, 5, 9, 7), np.float32), np.zeros((0, 5), np.float32)]
    assert [array.shape for array in engine.run(empty)] == [array.shape for array in out]
    assert engine.run(empty, out=out) is out
    assert engine.run(empty, named=True)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


PLAIN = np.zeros((4, 5), np.float32)
MAP = np.zeros((4, 5, 9, 7), np.float32)
BAD = {
    "one": (MAP, "1 arrays"),
    "a list of one": ([MAP], "1 arrays"),
    "three": ([MAP, PLAIN, PLAIN], "3 arrays"),
    "another batch": ([MAP[:3], PLAIN], "got float32"),
    "another shape": ([MAP, np.zeros((4, 5, 1), np.float32)], "got float32"),
    "another type": ([MAP, np.zeros((4, 5))], "got float64"),
    "a list": ([MAP, PLAIN.tolist()], "got <class 'list'>"),
    "none": ([MAP, None], "NoneType"),
    "not contiguous": ([MAP, np.zeros((5, 4), np.float32).T], "contiguous"),
    "read-only": ([MAP, read_only(np.zeros((4, 5), np.float32))], "read alone"),
    "unaligned": ([MAP, np.zeros(81, np.uint8)[1:].view("<f4").reshape(4, 5)], "aligned"),
    "one for both": ([MAP, MAP.reshape(-1)[:20].reshape(4, 5)], "shares memory"),
    "with gradients": ([MAP, torch.zeros(4, 5, requires_grad=True)], "gradients"),
    "masked": ([MAP, np.ma.masked_array(PLAIN)], "Masked"),
}


@pytest.mark.parametrize("name", BAD)
def test_out_is_refused(engine: Engine, x: np.ndarray, name: str) -> None:
    """If this fails, results are written beside a caller's memory, or silently into a copy."""
    out, message = BAD[name]
    with pytest.raises(ShapeError, match=message):
        engine.run(x, out=out)


def test_out_over_an_input(x: np.ndarray) -> None:
    """If this fails, a run reads what it has just written."""
    b = GraphBuilder(np.random.default_rng(0))
    engine = Engine(b.file(b.conv2d(b.input(SHAPE), 3, padding=(1, 1, 1, 1))))
    with pytest.raises(ShapeError, match="shares memory with an input"):
        engine.run(x, out=x)


def test_inputs_are_checked_before_out(engine: Engine, x: np.ndarray) -> None:
    """If this fails, a run with `out` reads beyond inputs of another shape."""
    for inputs in ((), (x, x), (x[:, :2],), (x[0],), (np.float32(1) * np.ones(()),)):
        with pytest.raises(ShapeError):
            engine.run(*inputs, out=[MAP, PLAIN])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_made_of_bytes(content: bytes, x: np.ndarray, tmp_path: Path, kind: type) -> None:
    """If this fails, a model that comes from a network or an archive has to be written first."""
    engine = Engine(kind(content))
    (tmp_path / "m").write_bytes(content)
    for have, want in zip(engine.run(x), Engine(tmp_path / "m").run(x), strict=True):
        assert np.array_equal(have, want)
    assert engine.path is None and repr(engine).startswith(f"Engine(<{len(content)} bytes>")


def test_bad_bytes(content: bytes) -> None:
    """If this fails, a damaged model in memory is run, or its error names no model."""
    for bad in (b"", b"model.safetensors", content[:-1], content + b"\0"):
        with pytest.raises(FormatError, match="the model's bytes"):
            Engine(bad)
    with pytest.raises(Error):
        Engine(3)  # type: ignore[arg-type]


def _mean(engine: Engine) -> float:
    return float(engine.run(np.ones((1, *SHAPE), np.float32))[1].mean())


def test_pickled_by_its_bytes(content: bytes) -> None:
    """If this fails, workers that are spawned have no engine, or another one."""
    engine = Engine(content, threads=2, precision="strict")
    twin = pickle.loads(pickle.dumps(engine))
    assert (twin.threads, twin.precision, twin.path) == (2, "strict", None)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_mean, (engine,)) == _mean(engine)
