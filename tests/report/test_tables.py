"""Tables: what they say, not how they look."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder
from rich.console import Console

from kernelprune.benchmarking import StartUp, benchmark
from kernelprune.format import read
from kernelprune.report import (
    benchmark_table,
    count,
    file_size,
    layer_table,
    machine_table,
    model_table,
    start_up_table,
)
from kernelprune.report.tables import kernel_name
from kernelprune.runtime import Engine


def text(table: object) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    build = GraphBuilder(np.random.default_rng(3))
    y = build.conv2d(build.input((2, 8, 8)), 4, padding=(1, 1, 1, 1), mask=np.eye(4, 2) > 0)
    y = build.node("flatten", [y], (256,))
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(build.linear(y, 5)))
    return path


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0"), (999, "999"), (1234, "1.23 k"), (5.6e7, "56.00 M")]
)
def test_count(number: float, words: str) -> None:
    """If this fails, tables are off by powers of a thousand."""
    assert count(number) == words


def test_file_size() -> None:
    """If this fails, tables are off by powers of a thousand."""
    assert (file_size(1234), file_size(2.5e6)) == ("1.2 kB", "2.5 MB")


def test_kernel_name() -> None:
    """If this fails, a table hides which kernel runs."""
    assert kernel_name("pad/avx512x16 + conv/avx512x16") == "pad + conv, 16 lanes"
    assert kernel_name("") == ""
    assert kernel_name("conv3x3_s1/sm_90 + bias/sm_90") == "conv3x3_s1 + bias"


def test_layer_table(file: Path) -> None:
    """If this fails, densities or totals are wrong."""
    shown = text(layer_table(Engine(file).layers(1)))
    assert "4x8x8" in shown and "25.0%" in shown and "1,280" in shown
    total = shown.strip().splitlines()[-1]
    assert "1,282" in total and "99.5%" in total
    assert "ms" not in shown


def test_measured_layer_table(file: Path) -> None:
    """If this fails, a profile is shown without its times."""
    layers = Engine(file).profile(np.zeros((3, 2, 8, 8), np.float32))
    shown = text(layer_table(layers, title="profile", batch=3))
    assert "ms" in shown and "of peak" in shown and "batch 3" in shown


def test_model_table(file: Path) -> None:
    """If this fails, a file's origin or size is hidden."""
    graph, _ = read(file)
    shown = text(model_table(graph, {"method": "synaptic"}, 1234))
    for words in ("1,282 of 1,288 (99.5%)", "synaptic", "1.2 kB", "x [2, 8, 8]"):
        assert words in shown


def test_labels_are_counted(file: Path) -> None:
    """If this fails, `inspect` scrolls by with a thousand names, or one of them does."""
    graph, _ = read(file)
    names = ["cat", "x" * 500, *(f"name {n}" for n in range(998))]
    shown = text(model_table(graph, {"labels": json.dumps(names)}, 1))
    assert "1,000: cat, " in shown and "name 997" in shown
    assert "name 500" not in shown and "x" * 41 not in "".join(shown.split())
    assert "{no json" in text(model_table(graph, {"labels": "{no json" + 9999 * "y"}, 1))[:9999]


def test_counts_of_a_file_without_dead_channels(file: Path) -> None:
    """If this fails, `inspect` calls something else the connections of a model than `prune`, which
    counts dead channels too, or believes what a file says of others."""
    graph, _ = read(file)
    shown = text(model_table(graph, {"connections": "1282/12820", "density": "0.1"}, 1))
    assert "1,282 of 12,820 (10.0%)" in shown and "density" not in shown
    lines = [line.split("  ")[0].strip() for line in shown.splitlines()]
    assert lines[2:5] == ["connections", "connections in file", "multiply-adds in file"]
    assert "1,282 of 1,288 (99.5%)" in shown
    for wrong in ("1/12820", "1282/7", "1282", "1282/" + "9" * 99, "x"):
        shown = text(model_table(graph, {"connections": wrong, "density": "0.1"}, 1))
        assert "1,282 of 1,288 (99.5%)" in shown and "in file" not in shown


def test_benchmark_table(file: Path) -> None:
    """If this fails, a race is shown without the figures that decide it."""
    result = benchmark(file, against=("torch",), batch=(1, 2), seconds=0.01)
    shown = text(benchmark_table(result))
    assert shown.count("kernelprune (") == shown.count("torch (") == 2
    assert "FMA peak" in shown
    assert f"{result.row(2, 'torch').speed_up:.2f}x" in shown
    assert f"{result.row(2).timing.minimum:.3f}" in shown
    assert start_up_table(result) is None


def test_start_up_table(file: Path) -> None:
    """If this fails, load time, first inference or memory are measured and not shown."""
    result = benchmark(file, against=("torch",), iterations=1)
    start_up = StartUp(load=12.34, first=5.678, memory=3_456_000)
    rows = [
        dataclasses.replace(result.rows[0], start_up=start_up, own_bytes=12_300),
        dataclasses.replace(
            result.rows[1], start_up=dataclasses.replace(start_up, memory=None), own_bytes=None
        ),
    ]
    table = start_up_table(dataclasses.replace(result, rows=rows))
    lines = text(table).splitlines()
    ours = next(line for line in lines if "kernelprune (" in line)
    theirs = next(line for line in lines if "torch (" in line)
    assert ours.split()[-6:] == ["12.3", "5.68", "3.5", "MB", "12.3", "kB"]
    assert theirs.split()[-2:] == ["12.3", "5.68"]


def test_machine_table() -> None:
    """If this fails, a missing package looks installed."""
    shown = text(machine_table({"cores": 2, "isas": ["a", "b"], "versions": {"onnx": None}}))
    assert "a, b" in shown and "not installed" in shown
