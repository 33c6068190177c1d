"""The ONNX twin of a graph, and every peer, computes what the engine's reference computes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

from kernelprune.benchmarking.options import FLOAT32_PEERS, PEERS
from kernelprune.benchmarking.peers import KINDS, NotInstalled, Refused, make_peer
from kernelprune.errors import UnsupportedOperator
from kernelprune.format import Graph, Node, Value, read
from kernelprune.frontends.onnx import onnx_model
from kernelprune.runtime import Engine


def convolutions(g: GraphBuilder) -> str:
    x = g.input((3, 11, 9))
    y = g.conv2d(x, 8, padding=(1, 1, 1, 1), activation="relu", density=0.5)
    y = g.conv2d(y, 8, padding=(1, 1, 1, 1), activation="relu6", density=0.3, residual=y)
    y = g.conv2d(y, 6, kernel=(5, 3), stride=(2, 1), padding=(2, 0, 1, 1), density=0.5)
    return g.conv2d(y, 4, kernel=(1, 1), activation="none", density=0.5)


def dilated(g: GraphBuilder) -> str:
    x = g.input((4, 12, 12))
    return g.conv2d(x, 5, dilation=(2, 3), padding=(2, 3, 1, 0), activation="relu")


def max_pools(g: GraphBuilder) -> str:
    x = g.input((3, 10, 10))
    y = g.pool("max_pool2d", x, (3, 3), (2, 2), (1, 1, 1, 1))
    return g.pool("max_pool2d", y, (2, 2), (2, 2), (0, 0, 1, 1))


def dilated_max_pool(g: GraphBuilder) -> str:
    return g.pool("max_pool2d", g.input((3, 10, 10)), (2, 2), (1, 1), (0, 0, 0, 0), (2, 2))


def average_pools(g: GraphBuilder) -> str:
    x = g.input((3, 10, 10))
    a = g.pool("avg_pool2d", x, (3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=True)
    b = g.pool("avg_pool2d", x, (3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=False)
    return g.node("concat", [a, b], (6, *g.shapes[a][1:]))


def joins(g: GraphBuilder) -> str:
    x = g.input((4, 6, 6))
    y = g.conv2d(x, 4, padding=(1, 1, 1, 1))
    y = g.node("add", [x, y], (4, 6, 6), activation="relu6")
    y = g.node("activation", [y], (4, 6, 6), activation="relu")
    return g.node("add", [y, x], (4, 6, 6), activation="none")


def classifier(g: GraphBuilder) -> str:
    x = g.input((4, 6, 6))
    y = g.node("global_avg_pool", [x], (4, 1, 1))
    y = g.node("flatten", [y], (4,))
    y = g.linear(y, 7, activation="relu", density=0.7)
    return g.node("softmax", [g.linear(y, 5)], (5,))


CASES = [
    convolutions,
    dilated,
    max_pools,
    dilated_max_pool,
    average_pools,
    joins,
    classifier,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("peer", FLOAT32_PEERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_peers_agree_with_the_reference(tmp_path: Path, case, peer: str, batch: int) -> None:
    """If this fails, the engine is raced against something that does other work."""
    build = GraphBuilder(np.random.default_rng(7))
    output = case(build)
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(output))
    inputs = build.batch(batch)
    expected = Engine(path).run_reference(*inputs)
    graph, _ = read(path)
    if peer.startswith("mnn") and case is dilated_max_pool:
        with pytest.raises(Refused, match="dilation"):
            make_peer(peer, graph, inputs, 1)
        return
    found = make_peer(peer, graph, inputs, 1).outputs()
    assert len(found) == 1 and found[0].shape == expected.shape
    assert np.linalg.norm(found[0] - expected) <= 1e-5 * np.linalg.norm(expected)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    """If this fails, inputs are swapped or outputs left out."""
    build = GraphBuilder(np.random.default_rng(7))
    a, b = build.input((2, 4, 4), "a"), build.input((2, 4, 4), "b")
    first = build.conv2d(a, 2)
    second = build.node("add", [a, b], (2, 4, 4), activation="none")
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(first, second))
    inputs = build.batch(2)
    expected = Engine(path).run_reference(*inputs)
    for peer in FLOAT32_PEERS:
        found = make_peer(peer, read(path)[0], inputs, 1).outputs()
        for have, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_the_model_is_valid_onnx(tmp_path: Path) -> None:
    """If this fails, the runtimes accept something that is not ONNX, until one does not."""
    import onnx

    build = GraphBuilder(np.random.default_rng(7))
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(convolutions(build)))
    onnx.checker.check_model(onnx_model(read(path)[0], 4), full_check=True)


def test_unknown_op_is_named() -> None:
    """If this fails, an op without a twin ends in a KeyError."""
    node = Node("opaque", "strange", ["x"], "y", (3,))
    with pytest.raises(UnsupportedOperator, match="strange"):
        onnx_model(Graph([Value("x", (3,))], ["y"], [node]), 1)


@pytest.mark.parametrize("peer", PEERS)
def test_missing_peer_is_reported(monkeypatch: pytest.MonkeyPatch, peer: str) -> None:
    """If this fails, a benchmark needs every peer to be installed."""
    monkeypatch.setitem(sys.modules, KINDS[peer].package, None)
    graph = Graph([Value("x", (3,))], ["x"], [])
    with pytest.raises(NotInstalled, match="pip install"):
        make_peer(peer, dataclasses.replace(graph), [np.zeros((1, 3), np.float32)], 1)
