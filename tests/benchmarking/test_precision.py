"""Races in int8: a float32 file is quantised, a file of bytes gets its float32 twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder
from rich.console import Console

from kernelprune.benchmarking import INT8_PEERS, BenchOptions, benchmark
from kernelprune.benchmarking.precision import (
    float32_graph,
    holds_bytes,
    open_network,
    write_int8,
)
from kernelprune.errors import Error
from kernelprune.format import read, write
from kernelprune.report import benchmark_table, difference_line
from kernelprune.runtime import Engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tenth of the connections of the second layer are left."""
    build = GraphBuilder(np.random.default_rng(3))
    y = build.conv2d(build.input((3, 12, 12)), 16, padding=(1, 1, 1, 1), activation="relu")
    y = build.conv2d(y, 16, padding=(1, 1, 1, 1), activation="relu", density=0.1)
    y = build.node("flatten", [build.node("global_avg_pool", [y], (16, 1, 1))], (16,))
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(build.linear(y, 10)))
    return path


@pytest.fixture
def int8(file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "bytes.safetensors"
    write_int8(read(file)[0], path)
    return path


def test_a_float32_file_is_quantised(file: Path, tmp_path: Path) -> None:
    """If this fails, `--precision int8` races float32 with itself."""
    assert not holds_bytes(file)
    assert open_network(file, "fast", None, tmp_path).int8 is None
    network = open_network(file, "int8", None, tmp_path)
    assert network.float32 == file and network.int8 is not None
    assert holds_bytes(network.int8)
    kept = read(network.int8)[0].kept_connections()
    # A weight of the classifier may round to zero: a connection less.
    assert 0 <= network.graph.kept_connections() - kept < 8
    assert network.graph.kept_connections() < network.graph.all_connections()


def test_the_twin_is_what_the_bytes_stand_for(int8: Path, file: Path, tmp_path: Path) -> None:
    """If this fails, peers run another network than the int8 file: a scale is left out of a weight
    or of a bias."""
    graph = float32_graph(int8)
    write(graph, tmp_path / "twin.safetensors")
    x = np.random.default_rng(5).standard_normal((4, 3, 12, 12), dtype=np.float32)
    exact, twin = Engine(file).run(x), Engine(tmp_path / "twin.safetensors").run(x)
    assert 1e-5 < np.linalg.norm(twin - exact) / np.linalg.norm(exact) < 0.03
    source = read(file)[0]
    for node, original in zip(graph.nodes, source.nodes, strict=True):
        if original.weight is None:
            continue
        assert node.bias is not None and original.bias is not None
        # Half a step of rounding, in the largest weight's 127 steps.
        largest = np.abs(original.weight).max()
        np.testing.assert_allclose(node.weight, original.weight, atol=largest / 254 * 1.01)
        np.testing.assert_allclose(node.bias, original.bias, atol=largest / 127)


def test_race_in_int8(file: Path) -> None:
    """If this fails, bytes are not raced against float32, or a row has another one's figures."""
    result = benchmark(
        file, precision="int8", against=("onnxruntime-int8", "openvino"), seconds=0.01, batch=(1, 3)
    )
    names = ["kernelprune", "kernelprune-float32", "onnxruntime-int8", "openvino"]
    assert result.precision == "int8" and result.to_dict()["precision"] == "int8"
    assert [row.name for row in result.rows] == names * 2
    ours, exact, theirs, dense = (result.row(3, name) for name in names)
    assert 1e-4 < ours.difference < 0.2 and 1e-4 < theirs.difference < 0.2
    assert exact.difference == 0.0 and dense.difference < 1e-5
    assert ours.own_bytes is not None and exact.own_bytes is not None
    assert exact.speed_up == pytest.approx(exact.timing.median / ours.timing.median)
    fastest = result.fastest_peer(3)
    assert fastest is not None and fastest.name in names[2:]


def test_race_of_a_file_of_bytes(int8: Path, file: Path) -> None:
    """If this fails, what `kernelprune quantize` writes cannot be raced."""
    result = benchmark(int8, against=("onnxruntime-int8", "mnn-sparse"), seconds=0.01)
    assert result.precision == "int8" and result.file == "bytes.safetensors"
    assert result.facts["file_bytes"] == int8.stat().st_size
    assert result.row(1, "mnn-sparse").difference < 1e-4
    with_dense = benchmark(int8, dense_path=str(file), against=("openvino",), iterations=1)
    assert with_dense.row(1, "openvino").difference < 1e-5
    with pytest.raises(Error, match="holds bytes, there is no float32 in it"):
        benchmark(int8, precision="float32", against=())


def test_start_up_in_int8(file: Path) -> None:
    """If this fails, start-up of one of our two files is missing or measured for the other."""
    result = benchmark(file, precision="int8", against=(), iterations=1, start_up=True)
    assert all(row.start_up is not None for row in result.rows) and len(result.rows) == 2


def test_calibration_is_used_and_run(file: Path) -> None:
    """If this fails, a model is quantised for numbers that its images do not have."""
    images = 50 * np.random.default_rng(2).standard_normal((2, 3, 12, 12), dtype=np.float32)
    result = benchmark(
        file, precision="int8", calibration=[images], batch=5, against=("onnxruntime-int8",),
        iterations=1,
    )  # fmt: skip
    assert result.row(5).difference < 0.2
    assert result.row(5, "onnxruntime-int8").difference < 0.2


def test_whom_to_race_against() -> None:
    """If this fails, an int8 race has no peer in int8, or a wrong precision is overlooked."""
    assert BenchOptions(precision="int8").peers(int8=True) == INT8_PEERS
    assert "openvino-int8" not in BenchOptions().peers(int8=False)
    assert BenchOptions(against=()).peers(int8=True) == ()
    assert BenchOptions(precision="int8").engine["precision"] == "fast"
    assert BenchOptions(precision="float32").engine["precision"] == "fast"
    with pytest.raises(Error, match="precision is one of fast, strict, float32, int8"):
        BenchOptions(precision="int4")


def test_tables_fit_80_columns(file: Path) -> None:
    """If this fails, figures are cut off, or names broken anywhere, in an ordinary terminal."""
    result = benchmark(file, precision="int8", against=("onnxruntime-int8",), iterations=3)
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(benchmark_table(result))
        console.print(difference_line(result))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    text = capture.get()
    assert "onnxruntime-" in text and "kernelprune-" in text and "float32" in text
    assert f"kernelprune {result.row(1).difference:.2g}" in " ".join(text.split())
