"""What is special about single peers, and what a process of its own tells about each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import GraphBuilder
from torch import nn

from kernelprune.benchmarking import StartUp, benchmark
from kernelprune.benchmarking.options import DENSE_PEERS, FLOAT32_PEERS, INT8_PEERS, PEERS
from kernelprune.benchmarking.peers import (
    KINDS,
    NotInstalled,
    Refused,
    convert_peer,
    load_peer,
    make_peer,
    pytorch,
)
from kernelprune.benchmarking.start_up import measure_start_up, random_inputs
from kernelprune.errors import Error
from kernelprune.format import Graph, read
from kernelprune.frontends.onnx import write_onnx
from kernelprune.frontends.torch import capture, to_torch
from kernelprune.graph.groups import regroup
from kernelprune.runtime import Engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two convolutions; a tenth of the second one is kept."""
    build = GraphBuilder(np.random.default_rng(3))
    y = build.conv2d(build.input((3, 10, 10)), 32, padding=(1, 1, 1, 1), activation="relu")
    y = build.conv2d(y, 32, padding=(1, 1, 1, 1), density=0.1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(y))
    return path


@pytest.fixture
def graph(file: Path) -> Graph:
    return read(file)[0]


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return float(np.linalg.norm(found - expected)) <= 1e-5 * float(np.linalg.norm(expected))


def test_depthwise_layers_stay_depthwise(tmp_path: Path) -> None:
    """If this fails, peers multiply a depthwise layer's zeros and lose races they would win."""
    traced = nn.Conv2d(24, 24, 3, groups=24)
    graph = capture(traced, torch.zeros(1, 24, 8, 8))
    (layer,) = (m for m in to_torch(regroup(graph.copy())).modules() if isinstance(m, nn.Conv2d))
    assert layer.groups == 24 and layer.weight.shape[1] == 1
    onnx = pytest.importorskip("onnx")
    nodes = onnx.load(write_onnx(graph, 1, tmp_path / "model.onnx")).graph.node
    (node,) = (node for node in nodes if node.op_type == "Conv")
    assert [a.i for a in node.attribute if a.name == "group"] == [24]


def test_every_peer_is_listed() -> None:
    """If this fails, a peer can be made but not be asked for, or the other way round."""
    assert list(KINDS) == list(PEERS)
    assert [name for name in FLOAT32_PEERS if not name.startswith("mnn")] == list(DENSE_PEERS)
    assert all(KINDS[name].precision == "float32" for name in FLOAT32_PEERS)
    assert {"openvino", *PEERS} - {*FLOAT32_PEERS} >= {*INT8_PEERS} - {"openvino"}
    assert [name for name, kind in KINDS.items() if kind.sparse] == ["mnn-sparse"]


def test_mnn_stores_what_is_sparse(graph: Graph, tmp_path: Path) -> None:
    """If this fails, "mnn-sparse" is the dense peer under another name."""
    dense = Path(convert_peer("mnn", graph, 1, tmp_path).path)
    sparse = Path(convert_peer("mnn-sparse", graph, 1, tmp_path).path)
    assert sparse.stat().st_size < 0.7 * dense.stat().st_size


def test_mnn_is_quiet(graph: Graph, capfd: pytest.CaptureFixture[str]) -> None:
    """If this fails, MNN's own messages are mixed into the tables; or ours are lost."""
    make_peer("mnn", graph, random_inputs([(3, 10, 10)], 1, 0), 1)
    assert capfd.readouterr() == ("", "")
    print("still here")
    assert capfd.readouterr().out == "still here\n"


@pytest.mark.parametrize("mode", ["eager, contiguous", "eager, channels_last"])
def test_torch_takes_the_mode_it_is_given(graph: Graph, tmp_path: Path, mode: str) -> None:
    """If this fails, start-up is measured for another mode than the one that was raced."""
    inputs = random_inputs([(3, 10, 10)], 2, 0)
    job = dataclasses.replace(convert_peer("torch", graph, 2, tmp_path), mode=mode)
    peer = load_peer(job, inputs)
    assert (peer.mode, peer.job.mode) == (mode, mode)
    expected = make_peer("onnxruntime", graph, inputs, 1).outputs()[0]
    assert close(peer.outputs()[0], expected)


def test_torch_compiles(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the compiled mode is never tried, or wins without having been measured."""
    import torch

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    speed = {"compiled, channels_last": 0.1}
    real = pytorch._call
    named = {}

    def call(mode: str, *rest: object):
        made = real(mode, *rest)
        named[made] = mode
        return made

    monkeypatch.setattr(pytorch, "_call", call)
    monkeypatch.setattr(pytorch, "quick_time", lambda made: speed.get(named[made], 1.0))
    inputs = random_inputs([(3, 10, 10)], 1, 0)
    peer = make_peer("torch", graph, inputs, 1, torch_compile=True)
    assert peer.mode == "compiled, channels_last" and len(named) == 3
    assert close(peer.outputs()[0], make_peer("onnxruntime", graph, inputs, 1).outputs()[0])
    assert "compiled" not in make_peer("torch", graph, inputs, 1).mode


def test_torch_without_a_compiler(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, torch cannot be raced on a machine without a C++ compiler."""
    import torch

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    inputs = random_inputs([(3, 10, 10)], 1, 0)
    peer = make_peer("torch", graph, inputs, 1, torch_compile=True)
    assert peer.mode.startswith("eager") and "torch.compile failed: RuntimeError" in peer.mode
    assert peer.job.mode is not None and peer.job.mode.startswith("eager")


def test_a_peer_that_refuses_is_left_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, one peer's bug ends the whole benchmark, or hides as "not installed"."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no such\n operator")

    broken = dataclasses.replace(KINDS["openvino"], load=refuse)
    monkeypatch.setitem(KINDS, "openvino", broken)
    with pytest.raises(Refused, match=r"RuntimeError: no such operator"):
        make_peer("openvino", read(file)[0], random_inputs([(3, 10, 10)], 1, 0), 1)
    result = benchmark(file, against=("openvino", "onnxruntime"), seconds=0.01)
    assert "no such operator" in result.missing["openvino"]
    assert [row.name for row in result.rows] == ["kernelprune", "onnxruntime"]
    monkeypatch.setitem(KINDS, "openvino", dataclasses.replace(broken, load=_not_there))
    with pytest.raises(NotInstalled, match=r"pip install 'kernelprune\[bench\]'"):
        make_peer("openvino", read(file)[0], random_inputs([(3, 10, 10)], 1, 0), 1)


def _not_there(*_: object) -> None:
    raise ImportError("gone")


def test_sparse_peers_run_the_pruned_file(tmp_path: Path, file: Path) -> None:
    """If this fails, MNN's sparse kernels are raced on a network without zeros."""
    build = GraphBuilder(np.random.default_rng(4))
    y = build.conv2d(build.input((3, 10, 10)), 64, padding=(1, 1, 1, 1))
    dense = tmp_path / "dense.safetensors"
    dense.write_bytes(build.file(y))
    result = benchmark(
        file, dense_path=str(dense), against=("mnn", "mnn-sparse"), seconds=0.01, warm_up=0
    )
    # Each would differ from the engine's outputs on the other file.
    assert [row.name for row in result.rows] == ["kernelprune", "mnn", "mnn-sparse"]
    assert all(row.difference < 1e-4 for row in result.rows)


def test_start_up_of_the_engine_and_of_a_peer(file: Path, graph: Graph, tmp_path: Path) -> None:
    """If this fails, load time, first inference or memory are missing, or all the same."""
    engine = measure_start_up((file, {"threads": 1, "isa": "portable"}), [(3, 10, 10)], 4)
    peer = measure_start_up(convert_peer("mnn", graph, 4, tmp_path), [(3, 10, 10)], 4)
    for found in (engine, peer):
        assert isinstance(found, StartUp)
        assert found.load > 0 and found.first > 0
        assert found.memory is None or 0 <= found.memory < 1 << 30
    assert engine != peer


def test_memory_of_a_large_batch_shows(file: Path) -> None:
    """If this fails, the memory column does not measure what the engine holds."""
    small, large = (
        measure_start_up((file, {"threads": 1, "isa": None}), [(3, 10, 10)], batch)
        for batch in (1, 4096)
    )
    if small.memory is None or large.memory is None:
        pytest.skip("this system does not tell a process's memory")
    # The output alone: 4096 x 32 x 10 x 10 floats.
    assert large.memory - small.memory > 40e6


def test_start_up_that_fails_is_an_error(tmp_path: Path) -> None:
    """If this fails, a crash in the other process looks like a measurement."""
    with pytest.raises(Error, match="start-up of kernelprune.*no such file"):
        measure_start_up((tmp_path / "none", {"threads": 1}), [(3, 10, 10)], 1)


def test_benchmark_with_start_up(file: Path) -> None:
    """If this fails, a benchmark measures start-up and does not report it."""
    result = benchmark(file, against=("mnn-sparse",), seconds=0.01, start_up=True)
    ours, peer = result.rows
    assert ours.start_up is not None and peer.start_up is not None
    workspace = Engine(file).workspace_bytes(1)
    assert ours.own_bytes == Engine(file).weight_bytes + workspace and peer.own_bytes is None
    found = result.to_dict()["rows"][0]
    assert set(found["start_up"]) == {"load", "first", "memory"}
