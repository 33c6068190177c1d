"""The engine as its users see it: batches, threads, types, errors, and life without torch."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune as kp
from kernelprune import _core
from kernelprune.runtime import Engine, available_isas, fma_peak


def small_network(seed: int = 0, density: float = 0.3) -> tuple[bytes, tuple[int, int, int]]:
    b = GraphBuilder(np.random.default_rng(seed))
    same = (1, 1, 1, 1)
    x = b.input((3, 20, 18))
    a = b.conv2d(x, 16, padding=same, activation="relu")
    c = b.conv2d(a, 16, padding=same, density=density)
    d = b.conv2d(c, 16, padding=same, density=density, residual=a, activation="relu")
    e = b.conv2d(d, 32, stride=(2, 2), padding=same, density=density, activation="relu6")
    f = b.pool("max_pool2d", e, (2, 2), (2, 2))
    g = b.conv2d(f, 32, kernel=(1, 1), density=density)
    h = b.node("flatten", [b.node("global_avg_pool", [g], (32, 1, 1))], (32,))
    return b.file(b.linear(h, 10)), (3, 20, 18)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(small_network()[0])
    return path


def images(batch: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, 3, 20, 18)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 9, 15, 16, 17, 24, 31, 33, 64, 65])
def test_an_image_gives_the_same_scores_in_any_batch(model: Path, batch: int) -> None:
    """Otherwise images would be mixed up or left out where batch blocks begin and end."""
    x = images(batch)
    engine = Engine(model)
    expected = np.concatenate([engine.run_reference(x[i : i + 1]) for i in range(batch)])
    np.testing.assert_allclose(engine.run(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", available_isas())
def test_results_are_bit_identical_for_any_number_of_threads(model: Path, isa: str) -> None:
    """A result that depends on the number of threads cannot be reproduced elsewhere."""
    for batch in (1, 16, 37, 96):
        x = images(batch)
        alone = Engine(model, threads=1, isa=isa).run(x)
        for threads in (2, 3, 7):
            np.testing.assert_array_equal(Engine(model, threads=threads, isa=isa).run(x), alone)


def test_several_threads_may_run_one_engine(model: Path) -> None:
    """Runs that shared a workspace would overwrite each other's activations."""
    engine = Engine(model, threads=2)
    inputs = [images(batch, seed) for seed, batch in enumerate((1, 3, 16, 20, 1, 33, 2, 16))]
    expected = [engine.run(x) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(10):
            if not np.array_equal(engine.run(inputs[index]), expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_torch_in_torch_out(model: Path) -> None:
    """torch users must get tensors back, also from inputs that are not contiguous or need grad."""
    import torch

    engine = Engine(model)
    x = torch.from_numpy(images(4)).requires_grad_()
    y = engine.run(x)
    assert isinstance(y, torch.Tensor)
    turned = x.detach().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(engine.run(turned), y)


def test_strided_numpy_input(model: Path) -> None:
    """A view must be read by its strides, not by its memory."""
    engine = Engine(model)
    x = images(6)
    np.testing.assert_array_equal(engine.run(x[::2]), engine.run(x[::2].copy()))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, 3, 20, 19), np.float32), "input 'x' must have the shape"),
        (np.zeros((3, 20, 18), np.float32), "[batch,3,20,18]"),
        (np.zeros((0, 3, 20, 17), np.float32), "got [0,3,20,17]"),
        (np.zeros((1, 3, 20, 18), np.float64), "must be float32, got float64"),
        (np.zeros((1, 3, 20, 18), np.int64), "must be float32, got int64"),
        ([[1.0]], "must be numpy arrays or torch tensors"),
    ],
)
def test_wrong_inputs_raise_shape_error(model: Path, x: object, words: str) -> None:
    """A wrong shape or type must never reach a kernel, and the message says what is right."""
    with pytest.raises(kp.ShapeError) as error:
        Engine(model).run(x)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_number_of_inputs(model: Path) -> None:
    """Missing inputs would leave kernels with null pointers."""
    with pytest.raises(kp.ShapeError, match="1 input"):
        Engine(model).run(images(1), images(1))


def test_missing_things_say_so(model: Path, tmp_path: Path, monkeypatch) -> None:
    """The user must read what is missing: the file, the device, the instruction set."""
    with pytest.raises(kp.Error, match="nowhere.safetensors"):
        Engine(tmp_path / "nowhere.safetensors")
    with pytest.raises(kp.Error, match="threads=0"):
        Engine(model, threads=0)
    with pytest.raises(kp.DeviceError, match="cuda"):
        Engine(model, device="cuda:99")
    with pytest.raises(kp.DeviceError, match="isa=sse9: no such instruction set"):
        Engine(model, isa="sse9")
    with pytest.raises(kp.DeviceError, match="lanes=5"):
        Engine(model, lanes=5)
    monkeypatch.setenv("KERNELPRUNE_ISA", "nonsense")
    with pytest.raises(kp.DeviceError, match="KERNELPRUNE_ISA=nonsense"):
        Engine(model)
    monkeypatch.setenv("KERNELPRUNE_ISA", "portable")
    assert Engine(model).isa == "portable"


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    """Outputs must come in the order of the file, and an input may be an output too."""
    b = GraphBuilder(np.random.default_rng(4))
    x, y = b.input((2, 5, 5), "x"), b.input((2, 5, 5), "y")
    total = b.node("add", [x, y], (2, 5, 5), activation="none")
    path = tmp_path / "two.safetensors"
    path.write_bytes(b.file(total, y))
    engine = Engine(path)
    first, second = b.batch(3)
    got = engine.run(first, second)
    np.testing.assert_array_equal(got[0], first + second)
    np.testing.assert_array_equal(got[1], second)


def test_profile_covers_every_node(model: Path) -> None:
    """A node without its time or connections would be missing from every report."""
    engine = Engine(model)
    layers = engine.profile(images(16), repeats=3)
    assert [layer.name for layer in layers] == [layer.name for layer in engine.layers(16)]
    for layer in layers:
        assert (layer.milliseconds > 0) == (layer.op != "flatten")
        assert str(layer)
    conv = layers[1]
    assert conv.all_connections == 16 * 16 and 0 < conv.connections < 256
    assert conv.macs == conv.connections * 9 * 20 * 18
    assert conv.dense_macs == 256 * 9 * 20 * 18
    assert conv.density == conv.connections / 256


def test_workspace_is_shared_by_lifetime(tmp_path: Path) -> None:
    """A chain of 30 layers needs the memory of a few activations, not of 30."""
    b = GraphBuilder(np.random.default_rng(5))
    x = b.input((8, 16, 16))
    for _ in range(30):
        x = b.conv2d(x, 8, padding=(1, 1, 1, 1), density=0.2)
    path = tmp_path / "deep.safetensors"
    path.write_bytes(b.file(x))
    assert Engine(path, lanes=16 if Engine(path).isa == "avx512" else None).workspace_bytes(
        16
    ) <= 5 * (8 * 16 * 16 * 16 * 4)


def test_nan_and_infinity_pass_through_relu(tmp_path: Path) -> None:
    """A NaN that a ReLU turned into 0 would hide a broken input."""
    b = GraphBuilder(np.random.default_rng(6))
    x = b.input((1, 1, 40))
    path = tmp_path / "relu.safetensors"
    path.write_bytes(b.file(b.node("activation", [x], (1, 1, 40), activation="relu")))
    values = np.zeros((1, 1, 1, 40), np.float32)
    values[..., 3], values[..., 20], values[..., 39] = np.nan, np.inf, -np.inf
    for isa in available_isas():
        got = Engine(path, isa=isa).run(values)
        assert np.isnan(got[..., 3]) and got[..., 20] == np.inf and got[..., 39] == 0.0


def test_fma_peak_is_a_speed() -> None:
    """Shares of peak are meaningless if the peak is not measured on this machine."""
    assert 1e8 < fma_peak(seconds=0.01) < 1e13


def test_runtime_needs_numpy_alone(model: Path) -> None:
    """Deployment machines have no torch: importing and running must not ask for it."""
    program = f"""
import sys
for name in ("torch", "safetensors", "rich", "typer", "yaml"):
    sys.modules[name] = None  # any import of it now fails
import numpy as np
import kernelprune.runtime
engine = kernelprune.runtime.Engine({str(model)!r})
print(engine.run(np.zeros((2, 3, 20, 18), np.float32)).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 10)"


def test_core_errors_keep_their_class() -> None:
    """kp.FormatError must be what a damaged file raises, whichever way it came in."""
    with pytest.raises(kp.FormatError):
        _core.check_bytes(b"not a model")


@pytest.mark.parametrize("isa", available_isas())
def test_first_layers_may_run_one_image_at_a_time(model: Path, isa: str) -> None:
    """In front of batch blocks, at every place where a single value is handed on."""

    def load(threads: int, nodes: int):
        return _core.Engine.load(str(model), threads, isa, 0, "fast", {}, nodes)

    cuts = load(1, -1).planar_cuts
    assert cuts == [0, 1, 3, 4, 5, 6, 7, 8]  # not between the ends of the residual connection
    lanes = {"avx512": 16, "avx2": 8, "portable": 4}[isa]
    for batch in (1, 5, 19):
        x = images(batch)
        expected = load(1, 0).run_reference([x])[0]
        for nodes in cuts:
            engine = load(1, nodes)
            assert engine.planar_nodes(lanes) == nodes
            found = engine.run([x])[0]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(load(3, nodes).run([x])[0], found)
    with pytest.raises(kp.Error, match="planar_nodes=2"):
        load(1, 2)


def test_memory_is_reported(model: Path) -> None:
    """What the engine holds: at least the weights of the file; buffers are shared by lifetime."""
    strict = Engine(model, precision="strict", lanes=1)
    assert strict.weight_bytes >= 0.9 * model.stat().st_size
    sizes = (3 * 20 * 18, 3 * 16 * 20 * 18, 32 * 10 * 9, 2 * 32 * 5 * 5)
    alone = strict.workspace_bytes(1)
    assert 4 * 2 * 16 * 20 * 18 <= alone  # input and output of a convolution
    assert alone < 4 * (sum(sizes) + 3 * 16 * 22 * 20)  # all values and a padded copy, unshared
    assert strict.workspace_bytes(64) == alone
