"""The harness and ``kernelprune.benchmark``."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune
from kernelprune.benchmarking import (
    BenchOptions,
    Candidate,
    Timing,
    api as module,
    benchmark,
    harness,
    measure,
)
from kernelprune.errors import DeviceError, Error, FormatError, ShapeError


def model(path: Path, density: float = 0.2, side: int = 12, channels: int = 16) -> Path:
    build = GraphBuilder(np.random.default_rng(3))
    x = build.input((3, side, side))
    y = build.conv2d(x, channels, padding=(1, 1, 1, 1), activation="relu")
    y = build.conv2d(y, channels, padding=(1, 1, 1, 1), activation="relu", density=density)
    path.write_bytes(build.file(y))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return model(tmp_path / "model.safetensors")


def test_timing_statistics() -> None:
    """If this fails, the figures in every table are wrong."""
    timing = Timing.of([number / 1000 for number in range(1, 101)])
    assert timing.median == pytest.approx(50.5)
    assert timing.mean == pytest.approx(50.5)
    assert timing.minimum == pytest.approx(1.0)
    assert timing.p90 == pytest.approx(90.1)
    assert timing.p99 == pytest.approx(99.01)
    assert timing.calls == 100


def test_candidates_take_turns() -> None:
    """If this fails, a change of the clock falls on one candidate alone, and ratios lie."""
    order: list[str] = []

    def slow(name: str) -> Candidate:
        return Candidate(name, lambda: (order.append(name), time.sleep(0.02)))

    timings = measure([slow("a"), slow("b")], seconds=0.1, warm_up=1)
    assert list(timings) == ["a", "b"]
    assert all(timing.median >= 20 and timing.calls >= 3 for timing in timings.values())
    turns = [name for i, name in enumerate(order[4:]) if i == 0 or order[4:][i - 1] != name]
    assert len(turns) >= 4


def test_short_calls_are_timed_often() -> None:
    """If this fails, a microsecond call is judged by three samples."""
    timings = measure([Candidate("fast", lambda: None)], seconds=0.001)
    assert timings["fast"].calls >= 100


def test_warm_up_and_between() -> None:
    """If this fails, slow first calls are timed, or the peak is measured in another run."""
    calls, rounds = [], []
    measure(
        [Candidate("one", lambda: (calls.append(1), time.sleep(0.05)))],
        seconds=0.01,
        warm_up=5,
        between=lambda: rounds.append(1),
    )
    # Five to warm up, one to set the turns, then five turns of a lost and a counted call.
    assert len(calls) == 5 + 1 + 5 * 2 and len(rounds) == 5


def test_no_call_of_a_long_one_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, seconds of measuring are thrown away in every turn of a slow engine."""
    calls: list[int] = []
    monkeypatch.setattr(harness, "_LONG_CALL_SECONDS", 0.0)
    timings = measure([Candidate("one", lambda: calls.append(1))], iterations=3, warm_up=1)
    assert len(calls) == 1 + 1 + 3 and timings["one"].calls == 3


def test_a_number_of_calls_instead_of_a_time() -> None:
    """If this fails, --iterations 7 times more or fewer than seven calls."""
    shares: list[float] = []
    timings = measure(
        [Candidate("a", lambda: None), Candidate("b", lambda: None)],
        iterations=207,
        progress=shares.append,
    )
    assert {timing.calls for timing in timings.values()} == {207}
    # Turns have at most 100 calls; the display goes forward and ends at the end.
    assert shares == pytest.approx([100 / 207, 200 / 207, 1.0])


def test_progress_of_a_timed_run() -> None:
    """If this fails, a long benchmark looks as if it hung, or as if it had ended early."""
    shares: list[float] = []
    measure([Candidate("a", lambda: None)], seconds=0.001, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) >= 3


def test_result(file: Path, tmp_path: Path) -> None:
    """If this fails, a benchmark leaves out what makes its figures mean something."""
    result = kernelprune.benchmark(file, batch=(1, 17), seconds=0.02, per_layer=True)
    assert result.batches == [1, 17]
    assert not result.missing
    assert [row.name for row in result.rows[:4]] == [
        "kernelprune",
        "torch",
        "onnxruntime",
        "openvino",
    ]
    for row in result.rows:
        assert row.timing.median > 0 and row.difference < 1e-5
        assert row.images_per_second == pytest.approx(row.batch / row.timing.median * 1e3)
        engine = result.row(row.batch).timing.median
        assert row.speed_up == pytest.approx(row.timing.median / engine)
    fastest = result.fastest_peer(1)
    assert fastest is not None
    assert fastest.timing.median == min(row.timing.median for row in result.rows[1:4])
    assert result.facts["connections"] < result.facts["all_connections"] == 16 * 19
    assert result.reduction == result.facts["dense_macs"] / result.facts["macs"] > 2
    assert result.fma_peak > 1e8
    assert [layer.op for layer in result.layers[17]] == ["conv2d", "conv2d"]
    text = result.to_json(tmp_path / "result.json")
    found = json.loads((tmp_path / "result.json").read_text())
    assert found == json.loads(text)
    assert {"commit", "processor", "isas", "versions"} <= set(found["machine"])
    assert found["rows"][0]["timing"]["median"] == result.rows[0].timing.median
    assert "openvino" in str(result)
    with pytest.raises(Error, match="not measured at batch 2"):
        result.row(2)
    with pytest.raises(Error, match="cannot write"):
        result.to_json(tmp_path / "missing" / "result.json")


def test_dense_file_is_what_the_peers_run(file: Path, tmp_path: Path) -> None:
    """If this fails, the peers get away with a network that lost its dead channels."""
    dense = model(tmp_path / "dense.safetensors", density=1.0, channels=32)
    result = benchmark(file, against="torch", seconds=0.01, dense_path=str(dense))
    assert result.dense_file == "dense.safetensors"
    assert result.facts["dense_macs"] == (3 * 32 + 32 * 32) * 9 * 144
    assert [row.name for row in result.rows] == ["kernelprune", "torch"]
    other = model(tmp_path / "other.safetensors", side=13)
    with pytest.raises(ShapeError, match="other inputs"):
        benchmark(file, dense_path=str(other))


def test_a_wrong_peer_is_caught(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a peer that computes something else is timed all the same."""
    genuine = module.make_peer

    def wrong(*arguments, **options):
        peer = genuine(*arguments, **options)
        return dataclasses.replace(peer, outputs=lambda: [out * 1.01 for out in peer.outputs()])

    monkeypatch.setattr(module, "make_peer", wrong)
    with pytest.raises(Error, match="torch and the engine disagree"):
        benchmark(file, against=("torch",), seconds=0.01)


def test_missing_peer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a benchmark needs every peer to be installed."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = benchmark(file, against=("openvino", "torch"), seconds=0.01)
    assert list(result.missing) == ["openvino"]
    assert [row.name for row in result.rows] == ["kernelprune", "torch"]
    monkeypatch.setitem(sys.modules, "openvino", None)
    alone = benchmark(file, against=("openvino",), seconds=0.01)
    assert alone.fastest_peer(1) is None


def test_progress_is_told(file: Path) -> None:
    """If this fails, nothing is seen of a benchmark until it ends."""
    told: list[tuple[str, float | None]] = []
    benchmark(
        file,
        batch=2,
        against=("onnxruntime",),
        iterations=3,
        per_layer=True,
        progress=lambda doing, share: told.append((doing, share)),
    )
    assert told[0] == ("batch 2: setting up onnxruntime", None)
    assert ("batch 2: taking turns", 1.0) in told
    assert told[-1] == ("batch 2: layer by layer", None)


def test_options_of_the_engine_are_handed_on(file: Path) -> None:
    """If this fails, the engine is raced with other options than were asked for."""
    options = BenchOptions(threads=2, isa="portable", precision="strict")
    assert options.engine == {"threads": 2, "isa": "portable", "precision": "strict"}
    assert BenchOptions(plan="a.json").pruned_engine["plan"] == "a.json"
    result = benchmark(file, options=options, against=(), iterations=1)
    assert (result.isa, result.threads) == ("portable", 2)


def test_threads_of_torch_are_put_back(file: Path) -> None:
    """If this fails, a benchmark slows the rest of the program down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        benchmark(file, against=("torch",), seconds=0.01, threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": (0,)}, "batch sizes"),
        ({"batch": ()}, "batch sizes"),
        ({"threads": 0}, "threads"),
        ({"seconds": 0.0}, "seconds"),
        ({"warm_up": -1}, "warm_up"),
        ({"iterations": 0}, "iterations"),
        ({"against": ("tensorflow",)}, "unknown peer 'tensorflow'"),
    ],
)
def test_wrong_options(wrong: dict, message: str) -> None:
    """If this fails, a wrong option gives a meaningless figure."""
    with pytest.raises(Error, match=message):
        BenchOptions(**wrong)


def test_wrong_files_and_names(file: Path, tmp_path: Path) -> None:
    """If this fails, a wrong path or option ends in a traceback."""
    with pytest.raises(Error, match="no such file"):
        benchmark(tmp_path / "none.safetensors")
    file_bytes = file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(file_bytes[:-10])
    with pytest.raises(FormatError):
        benchmark(tmp_path / "cut.safetensors")
    with pytest.raises(Error, match="no option speed"):
        benchmark(file, speed=2)
    with pytest.raises(DeviceError):
        benchmark(file, isa="sse9")
