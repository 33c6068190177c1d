"""Whole networks on the emulated CUDA device, and the device as users see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import GraphBuilder
from runtime.test_models import pruned_at_random, relative_error
from torch import nn

import kernelprune as kp


class Depthwise(nn.Module):
    """Inverted residuals: 1x1, depthwise 3x3 with stride 1 and 2, 1x1, clamped at 6."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.wide = nn.Conv2d(16, 48, 1)
        self.depthwise = nn.Conv2d(48, 48, 3, 1, 1, groups=48)
        self.narrow = nn.Conv2d(48, 16, 1)
        self.strided = nn.Conv2d(16, 16, 3, 2, 1, groups=16)
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.first(x))
        y = nn.functional.relu6(self.depthwise(nn.functional.relu6(self.wide(x))))
        x = x + self.narrow(y)
        return self.last(self.strided(x).mean((2, 3)))


class Concatenating(nn.Module):
    """Each layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8 + 12 * i, 12, 3, 1, 1) for i in range(3))
        self.first = nn.Conv2d(3, 8, 3, 1, 1)
        self.last = nn.Linear(44 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return self.last(nn.functional.max_pool2d(x, 2).flatten(1)).softmax(1)


class Attending(nn.Module):
    """Operators of every kind: attention, normalizations, up by a transposed convolution and by
    interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 1, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.qkv = nn.Conv2d(8, 24, 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.slope = nn.PReLU(6)
        self.last = nn.Linear(14, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.norm(self.first(x)))
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        weights = (q.transpose(1, 2) @ k * 0.35).softmax(-1)
        x = x + (v @ weights.transpose(1, 2)).view(x.shape)
        y = self.slope(self.up(x))
        z = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
        z = nn.functional.interpolate(z, size=y.shape[2:], mode="bilinear")
        y = torch.cat([y, nn.functional.hardswish(z)], 1)
        return self.last(nn.functional.layer_norm(y.mean((2, 3)), (14,)))


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vgg16": (lambda: pruned_at_random("vgg16", {"width": 0.25}, 0.3), 32),
    "resnet20": (lambda: pruned_at_random("resnet20", {}, 0.3), 32),
    "depthwise": (Depthwise, 20),
    "concat": (Concatenating, 16),
    "operators": (Attending, 7),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_agree_with_the_cpu(tmp_path: Path, name: str) -> None:
    """Every kernel, buffer and launch of a network together must only round."""
    build, size = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    path = tmp_path / "model.safetensors"
    x = torch.randn(5, 3, size, size)
    kp.export(model, x[:2], path)
    cpu, cuda = kp.Engine(path), kp.Engine(path, device="cuda-emulated")
    for batch in (1, 5):
        assert relative_error(cuda.run(x[:batch]).numpy(), cpu.run(x[:batch]).numpy()) <= 1e-5


@pytest.fixture
def model(tmp_path: Path) -> Path:
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((3, 10, 9))
    y = b.conv2d(x, 8, padding=(1, 1, 1, 1), density=0.5, activation="relu")
    z = b.conv2d(y, 8, padding=(1, 1, 1, 1), density=0.5, residual=y)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b.file(z, b.node("global_avg_pool", [z], (8, 1, 1)), x))
    return path


def images(batch: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 3, 10, 9)).astype(np.float32)


def test_batch_sizes_may_change_between_runs(model: Path) -> None:
    """A larger batch moves the workspace: what was recorded for smaller ones must not use the old
    one. Batches beyond 256 run in slices."""
    cpu, cuda = kp.Engine(model), kp.Engine(model, device="cuda-emulated")
    for batch in (1, 3, 1, 40, 3, 300):
        for got, expected in zip(cuda.run(images(batch)), cpu.run(images(batch)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_several_threads_may_run_one_engine(model: Path) -> None:
    """Runs that shared the workspace at the same time would overwrite each other."""
    engine = kp.Engine(model, device="cuda-emulated")
    inputs = [images(batch, seed) for seed, batch in enumerate((1, 3, 2, 3))]
    expected = [engine.run(x) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            got = engine.run(inputs[index])
            if not all(np.array_equal(a, b) for a, b in zip(got, expected[index], strict=True)):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_layers_and_profile_name_the_kernels(model: Path) -> None:
    """Reports must say what ran, on which device."""
    engine = kp.Engine(model, device="cuda-emulated")
    assert engine.device == engine.isa == "cuda-emulated"
    assert engine.workspace_bytes(4) >= 4 * engine.workspace_bytes(1) * 0.9
    layers = engine.profile(images(2), repeats=2)
    assert all(layer.kernel.endswith("/cuda-emulated") for layer in layers)
    assert [layer.kernel.split("_")[0] for layer in layers] == ["conv3x3", "conv3x3", "global"]
    assert all(layer.milliseconds > 0 and layer.peak_share == 0 for layer in layers)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:1234567", "CUDA"])
def test_unknown_devices(model: Path, device: str) -> None:
    """A misspelt device must not silently become another one."""
    with pytest.raises(kp.DeviceError, match="no such device"):
        kp.Engine(model, device=device)


def test_plans_are_for_the_cpu(model: Path) -> None:
    """A plan of the CPU that a GPU silently ignored would look as if it were in use."""
    with pytest.raises(kp.Error, match="for the CPU"):
        kp.Engine(model, device="cuda-emulated", tune=True)


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_missing_gpu_says_why(model: Path, device: str) -> None:
    """The user must learn whether the build, the driver or the GPU is missing."""
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    reasons = "no CUDA kernels|no NVIDIA driver|no usable GPU|this machine has"
    with pytest.raises(kp.DeviceError, match=reasons):
        kp.Engine(model, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_models_agree_with_the_cpu_on_the_gpu(tmp_path: Path, name: str) -> None:
    """What the emulator cannot show: that nvcc and the GPU do the same; also from GPU tensors."""
    build, size = MODELS[name]
    path = tmp_path / "model.safetensors"
    x = torch.randn(65, 3, size, size)
    kp.export(build().eval(), x[:2], path)
    cpu, gpu = kp.Engine(path), kp.Engine(path, device="cuda")
    for batch in (1, 5, 65):
        expected = cpu.run(x[:batch]).numpy()
        assert relative_error(gpu.run(x[:batch]).numpy(), expected) <= 1e-5
        on_gpu = gpu.run(x[:batch].cuda())
        assert on_gpu.is_cuda and relative_error(on_gpu.cpu().numpy(), expected) <= 1e-5
