"""Peers in int8 and bfloat16: what they compute, and how they answer where they cannot."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

from kernelprune.benchmarking.peers import (
    KINDS,
    NotInstalled,
    Refused,
    convert_peer,
    load_peer,
    make_peer,
    onnx_runtime,
)
from kernelprune.format import Graph, read
from kernelprune.runtime import Engine

INT8 = ["openvino-int8", "onnxruntime-int8", "mnn-int8"]


def network(g: GraphBuilder) -> str:
    """Every kind of step of the networks that are raced."""
    x = g.input((3, 12, 12))
    y = g.conv2d(x, 8, padding=(1, 1, 1, 1), activation="relu")
    y = g.conv2d(y, 8, padding=(1, 1, 1, 1), activation="relu6", residual=y)
    y = g.pool("max_pool2d", y, (3, 3), (2, 2), (1, 1, 1, 1))
    y = g.node("global_avg_pool", [y], (8, 1, 1))
    return g.linear(g.node("flatten", [y], (8,)), 7)


def two_inputs(g: GraphBuilder) -> str:
    a, b = g.input((4, 6, 6), "a"), g.input((4, 6, 6), "b")
    y = g.node("add", [g.conv2d(a, 4, padding=(1, 1, 1, 1)), b], (4, 6, 6), activation="none")
    return g.conv2d(y, 5)


def made(case: Callable[[GraphBuilder], str], folder: Path, batch: int):
    """The graph, inputs, and what float32 gives for them."""
    build = GraphBuilder(np.random.default_rng(7))
    path = folder / "model.safetensors"
    path.write_bytes(build.file(case(build)))
    inputs = build.batch(batch)
    return read(path)[0], inputs, Engine(path).run_reference(*inputs)


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape and found.dtype == np.float32
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("case", [network, two_inputs], ids=lambda case: case.__name__)
@pytest.mark.parametrize("name", INT8)
def test_int8_is_near_float32(tmp_path: Path, case, name: str) -> None:
    """If this fails, int8 is raced against another network, or against float32 by another name; or
    only at the one image that it was quantised with."""
    graph, inputs, expected = made(case, tmp_path, 3)
    peer = make_peer(name, graph, inputs, 1, folder=tmp_path)
    assert 1e-3 < distance(peer.outputs()[0], expected) < 0.1
    assert "S8" in peer.mode and peer.name == peer.job.name == name


def test_bfloat16_rounds(tmp_path: Path) -> None:
    """If this fails, "openvino-bf16" is float32 under another name, or the other way round."""
    graph, inputs, expected = made(network, tmp_path, 2)
    assert distance(make_peer("openvino", graph, inputs, 1).outputs()[0], expected) < 1e-5
    try:
        peer = make_peer("openvino-bf16", graph, inputs, 1)
    except Refused as error:
        assert "on this processor it computes in" in str(error)
        return
    assert 1e-4 < distance(peer.outputs()[0], expected) < 0.05


@pytest.mark.parametrize("name", INT8)
def test_images_of_the_user_are_taken(tmp_path: Path, name: str) -> None:
    """If this fails, peers are fitted to random numbers where images are of another size."""
    graph, inputs, _ = made(two_inputs, tmp_path, 2)
    images = [100 * np.concatenate([each, -each]) for each in inputs]
    fitted = make_peer(name, graph, images, 1, calibration=images).outputs()[0]
    # Only its own calibration does not cut these numbers off.
    wide = Engine(tmp_path / "model.safetensors").run(*images)
    assert distance(fitted, wide) < 0.1
    assert distance(make_peer(name, graph, images, 1).outputs()[0], wide) > 0.3


def test_the_faster_format_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, ONNX Runtime is raced with the slower of its two formats, or start-up is
    measured for the other one."""
    graph, inputs, _ = made(network, tmp_path, 1)
    job = convert_peer("onnxruntime-int8", graph, 1, tmp_path)
    for times, best in (((1.0, 2.0), "QOperator"), ((2.0, 1.0), "QDQ")):
        given = iter(times)
        monkeypatch.setattr(onnx_runtime, "quick_time", lambda call, given=given: next(given))
        peer = load_peer(job, inputs)
        assert peer.job == dataclasses.replace(job, mode=best) and best in peer.mode
        # With a mode nothing is measured: the times are used up.
        assert load_peer(peer.job, inputs).mode == peer.mode


def test_nncf_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the message says to install openvino, which is there."""
    monkeypatch.setitem(sys.modules, "nncf", None)
    graph, inputs, _ = made(network, tmp_path, 1)
    with pytest.raises(NotInstalled, match=r"pip install 'kernelprune\[bench\]'.*nncf"):
        make_peer("openvino-int8", graph, inputs, 1)


def test_nncf_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If this fails, progress bars are mixed into the tables, or usage is reported to the
    network, or the environment of the process is changed."""
    import nncf

    genuine, seen = nncf.quantize, []

    def quantize(*arguments, **options):
        seen.append(os.environ.get("NNCF_CI"))
        return genuine(*arguments, **options)

    monkeypatch.setattr(nncf, "quantize", quantize)
    monkeypatch.delenv("NNCF_CI", raising=False)
    graph, inputs, _ = made(network, tmp_path, 1)
    make_peer("openvino-int8", graph, inputs, 1)
    assert capfd.readouterr() == ("", "")
    assert seen == ["1"] and "NNCF_CI" not in os.environ


def test_what_mnn_quantises_wrongly_is_refused(tmp_path: Path) -> None:
    """If this fails, a race ends because MNN makes another model, or times it."""

    def pruned(g: GraphBuilder) -> str:
        # With so few connections some output channels have none.
        return g.conv2d(g.input((3, 9, 9)), 16, padding=(1, 1, 1, 1), density=0.1)

    graph, inputs, _ = made(pruned, tmp_path, 1)
    with pytest.raises(Refused, match="makes another model"):
        make_peer("mnn-int8", graph, inputs, 1)


def test_a_quantiser_that_dies_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, MNN's quantiser takes the whole benchmark down with it."""
    monkeypatch.setattr("kernelprune.benchmarking.peers.mnn._QUANTISE", "import os; os.abort()")
    graph, inputs, _ = made(network, tmp_path, 1)
    with pytest.raises(Refused, match="quantiser refuses"):
        make_peer("mnn-int8", graph, inputs, 1)


@pytest.mark.parametrize("name", ["openvino-bf16", *INT8])
def test_precision_is_told(name: str) -> None:
    """If this fails, outputs of bytes are held to the bound of float32, or the other way round."""
    assert KINDS[name].precision == ("bfloat16" if name.endswith("bf16") else "int8")
    assert KINDS[name].tolerance >= 0.1 > KINDS["openvino"].tolerance


def test_a_graph_of_its_own_is_left_alone(tmp_path: Path) -> None:
    """If this fails, converting for one peer changes what the next one gets."""
    graph, inputs, expected = made(network, tmp_path, 1)
    before = [None if n.weight is None else n.weight.copy() for n in graph.nodes]
    assert isinstance(graph, Graph)
    make_peer("onnxruntime-int8", graph, inputs, 1)
    for node, weight in zip(graph.nodes, before, strict=True):
        np.testing.assert_array_equal(node.weight, weight)
