"""What of the GPU benchmark needs no GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kernelprune as kp
from bench import gpu
from kernelprune.benchmarking import Timing


class FakeClock:
    """Every call takes what its runner says, and nothing is waited for."""

    def __init__(self) -> None:
        self.taken = 0.0

    def time(self, call: Callable[[], object]) -> float:
        seconds = call()
        assert isinstance(seconds, float)
        self.taken += seconds
        return seconds


def test_runners_take_turns() -> None:
    """A runner that always came after the same other one would find that one's caches; one input
    only would lie in the cache."""
    calls: list[tuple[str, int]] = []

    def runner(name: str, seconds: float) -> gpu.Runner:
        def call(i: int) -> float:
            calls.append((name, i))
            return seconds

        return gpu.Runner(name, call)

    timings = gpu.take_turns(
        [runner("a", 0.01), runner("b", 0.002)], FakeClock(), seconds=0.15, inputs=3
    )
    timed = calls[2 * 5 :]  # the first ones warm up
    assert timed[:6] == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert timings["a"].calls == 15 and timings["a"].median == pytest.approx(10.0)
    assert timings["b"].calls == 75  # until its own seconds are over


def test_slow_calls_are_timed_ten_times() -> None:
    """Two calls have no median to speak of."""
    timings = gpu.take_turns([gpu.Runner("a", lambda i: 1.0)], FakeClock(), seconds=0.1)
    assert timings["a"].calls == 10


def test_a_row_compares_with_every_mode() -> None:
    """The claim that the benchmark is for."""
    timings = {
        name: Timing.of([milliseconds * 1e-3])
        for name, milliseconds in (("0.1", 2.0), ("torch", 8.0), ("torch-tf32", 3.0))
    }
    row = gpu.row(16, 0.1, timings, macs=1_000_000_000, limits={"product": 40.0})
    assert row["speed_up"] == pytest.approx({"torch": 4.0, "torch-tf32": 1.5})
    assert row["images_per_second"] == pytest.approx(8000.0)
    assert row["teraflops"] == pytest.approx(16.0)
    assert row["share_of_product"] == pytest.approx(0.4)
    assert "torch 8.000 ms (4.00x)  torch-tf32 3.000 ms (1.50x)" in gpu.line(row)


@pytest.mark.parametrize(("cache", "floats"), [(0, 16 << 20), (50 << 20, 25 << 20)])
def test_the_flush_is_larger_than_the_cache(cache: int, floats: int) -> None:
    """A flush that fits beside the activations would leave them in the cache."""
    assert gpu.flush_floats(cache) == floats


def test_modes_are_what_their_names_say() -> None:
    """A float32 peer that silently used TF32 would be several times as fast."""
    x = torch.zeros(2, 3, 4, 5)
    plain, tf32, half = (mode.apply(x) for mode in gpu.MODES)
    assert [mode.tf32 for mode in gpu.MODES] == [False, True, False]
    assert plain.dtype == tf32.dtype == torch.float32 and plain.is_contiguous()
    assert half.dtype == torch.float16
    assert half.is_contiguous(memory_format=torch.channels_last)


def test_products_are_named_after_modes() -> None:
    """``share_of_product`` reads the ceiling of float32 without TF32."""
    assert [mode.name.replace("torch", "product") for mode in gpu.MODES][0] == "product"


def test_without_a_gpu_it_says_why(tmp_path: Path) -> None:
    """The user must learn whether the build, the driver or the GPU is missing."""
    device = "cuda" if not torch.cuda.is_available() else "cuda:99"
    with pytest.raises(kp.DeviceError) as raised:
        gpu.require_gpu(device)
    with pytest.raises(SystemExit) as left:
        gpu.main(["--device", device, "--out", str(tmp_path)])
    assert left.value.code == f"error: {raised.value}"
    assert not list(tmp_path.iterdir())
