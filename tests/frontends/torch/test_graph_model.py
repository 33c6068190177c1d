"""A graph in torch against FORMAT.md's definition in plain loops: the same bytes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quantised_graphs import integer_layer, small
from quantised_reference import run

from kernelprune import Engine, Error
from kernelprune.format import Graph, Node, Value, read, write
from kernelprune.format.writer import to_bytes
from kernelprune.frontends.torch import to_torch
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.quantization import Quantization
from kernelprune.graph.validate import check_graph

WINDOW = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}
MEAN = {"kernel": [3, 2], "stride": [2, 1], "padding": [1, 0, 2, 1], "count_include_pad": False}
BYTES = Quantization(0.037, 77)


def all_bytes(graph: Graph) -> Graph:
    """Every value is an output, so that each is compared."""
    graph.outputs = [node.output for node in graph.nodes]
    check_graph(graph)
    return graph


def assert_same(graph: Graph, *inputs: np.ndarray) -> None:
    found = GraphModel(graph)(*map(torch.from_numpy, inputs))
    found = found if isinstance(found, tuple) else (found,)
    for name, have, want in zip(graph.outputs, found, run(graph, list(inputs)), strict=True):
        assert have.dtype == torch.float32
        np.testing.assert_array_equal(have.numpy(), want, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_network(seed: int) -> None:
    """If this fails, the module's bytes are not those that FORMAT.md defines."""
    rng = np.random.default_rng(seed)
    graph = all_bytes(small(rng))
    assert_same(graph, rng.normal(0, 1.5, (3, 3, 8, 8)).astype(np.float32))
    graph.inputs[0].dtype = "u8"
    assert_same(graph, rng.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8))


def layer(rng: np.random.Generator, activation: str, **params: Any) -> Node:
    sides = {"kernel": [3, 2], "stride": [2, 1], "padding": [1, 0, 0, 1], "dilation": [1, 2]}
    node = Node("conv2d", "c", ["x"], "y", (5, 3, 4), {**sides, **params, "activation": activation})
    return integer_layer(node, 4, 0.7, rng)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("residual", [None, "numbers", "bytes"])
@pytest.mark.parametrize("to", [None, BYTES, Quantization(0.5, 250)])
def test_layers(to: Quantization | None, residual: str | None, activation: str) -> None:
    """If this fails, a residual or an activation is not where FORMAT.md has it."""
    rng = np.random.default_rng(3)
    node = layer(rng, activation)
    node.quantization = to
    graph = Graph([Value("x", (4, 6, 5), quantization=Quantization(0.0625, 9))], ["y"], [node])
    given = [rng.normal(2, 3, (2, 4, 6, 5)).astype(np.float32)]
    if residual is not None:
        own = Quantization(0.11, 100) if residual == "bytes" else None
        graph.inputs.append(Value("r", node.shape, quantization=own))
        node.inputs.append("r")
        given.append(rng.normal(0, 5, (2, *node.shape)).astype(np.float32))
    check_graph(graph)
    assert_same(graph, *given)


OPS = {
    "add": ("add", {"activation": "none"}, 2),
    "add relu": ("add", {"activation": "relu"}, 2),
    "add relu6": ("add", {"activation": "relu6"}, 2),
    "binary add": ("binary", {"function": "add"}, 2),
    "binary mul": ("binary", {"function": "mul"}, 2),
    "binary sub": ("binary", {"function": "sub"}, 2),
    "max_pool2d": ("max_pool2d", WINDOW, 1),
    "avg_pool2d": ("avg_pool2d", MEAN, 1),
    "avg_pool2d with padding": ("avg_pool2d", {**MEAN, "count_include_pad": True}, 1),
    "avg_pool2d uncounted": (
        "avg_pool2d", {**MEAN, "count_include_pad": True, "uncounted": [1, 1]}, 1),
    "avg_pool2d divisor": ("avg_pool2d", {**MEAN, "divisor": 5}, 1),
    "global_avg_pool": ("global_avg_pool", {}, 1),
    "concat": ("concat", {}, 2),
    "flatten": ("flatten", {}, 1),
    "pad": ("pad", {"before": [1, 0, 2], "after": [0, 1, 0], "mode": "constant", "value": 1.3}, 1),
    "silu": ("unary", {"function": "silu", "alpha": 0, "beta": 0}, 1),
    "gelu": ("unary", {"function": "gelu", "alpha": 0, "beta": 0}, 1),
    "hardswish": ("unary", {"function": "hardswish", "alpha": 0, "beta": 0}, 1),
    "relu6": ("activation", {"activation": "relu6"}, 1),
    "affine": ("affine", {}, 1),
    "prelu": ("prelu", {}, 1),
}  # fmt: skip


def one_op(name: str, given: list[Quantization | None], to: Quantization | None) -> Graph:
    op, params, count = OPS[name]
    rng = np.random.default_rng(5)
    shape = (3, 6, 5)
    inputs = [Value(f"x{i}", shape, quantization=given[i]) for i in range(count)]
    node = Node(op, "n", [each.name for each in inputs], "y", (), dict(params), quantization=to)
    node.tensors = {
        role: rng.normal(0, 1, array_shape).astype(dtype)
        for role, (dtype, array_shape) in node.rule.tensors(node, [shape] * count).items()
    }
    node.shape = node.rule.infer([shape] * count, node.params, (90,))
    graph = Graph(inputs, ["y"], [node])
    check_graph(graph)
    return graph


SOURCES = [Quantization(0.031, 120), Quantization(0.052, 0)]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("to", [BYTES, SOURCES[0]], ids=["other scale", "same scale"])
def test_ops_on_bytes(name: str, to: Quantization) -> None:
    """If this fails, an op on bytes gives others than the engine."""
    rng = np.random.default_rng(6)
    graph = one_op(name, SOURCES, to)
    every = rng.permutation(256 * 3 * 30).reshape(-1, 3, 6, 5) % 256  # each byte, many times
    for value in graph.inputs:
        value.dtype = "u8"
    given = [np.roll(every, 7 * i).astype(np.uint8) for i in range(len(graph.inputs))]
    assert_same(graph, *[each[:40] for each in given])


@pytest.mark.parametrize("name", ["add relu", "binary mul", "max_pool2d", "silu", "concat"])
def test_numbers_to_bytes(name: str) -> None:
    """If this fails, an op that reads numbers, or gives them, takes them for bytes."""
    rng = np.random.default_rng(7)
    given = [rng.normal(0, 2, (2, 3, 6, 5)).astype(np.float32) for _ in range(OPS[name][2])]
    for sources, to in (([None, None], BYTES), ([SOURCES[0], None], BYTES), (SOURCES, None)):
        graph = one_op(name, sources, to)
        found, (want,) = GraphModel(graph)(*map(torch.from_numpy, given)), run(graph, given)
        step = 0 if to is None else to.scale  # where float32 rounds otherwise, a neighbouring byte
        assert np.abs(found.numpy() - want).max() <= max(1.01 * step, 1e-5)


@pytest.mark.parametrize("size", [100, 3000, 60000])
def test_sums_are_exact(size: int) -> None:
    """If this fails, sums past float32's 24 bits are rounded."""
    rng = np.random.default_rng(8)
    node = Node("linear", "n", ["x"], "y", (4,), {"activation": "none"})
    integer_layer(node, size, 1.0, rng)
    node.weight[0] = 127
    node.weight_scale = np.full(4, 2.0**-20, np.float32)
    graph = Graph([Value("x", (size,), "u8", quantization=Quantization(1.0, 0))], ["y"], [node])
    x = rng.integers(200, 256, (3, size)).astype(np.uint8)
    sums = x.astype(np.int64) @ node.weight.T.astype(np.int64) + node.bias
    want = sums.astype(np.float32) * np.float32(2.0**-20)
    assert np.array_equal(GraphModel(graph)(torch.from_numpy(x)).numpy(), want)


def test_depthwise_is_grouped() -> None:
    """If this fails, a depthwise layer of 960 channels takes 960 times the time."""
    rng = np.random.default_rng(9)
    node = Node("conv2d", "c", ["x"], "y", (6, 4, 4), {**WINDOW, "activation": "none"})
    integer_layer(node, 6, 1.0, rng)
    node.weight *= np.eye(6, dtype=np.int8)[:, :, None, None]
    graph = Graph([Value("x", (6, 4, 4), quantization=Quantization(0.02, 50))], ["y"], [node])
    model = GraphModel(graph)
    assert model.steps[0].weight.shape == (6, 1, 3, 3)
    assert to_bytes(model.graph) == to_bytes(graph)
    assert_same(graph, rng.normal(0, 1, (2, 6, 4, 4)).astype(np.float32))


def test_not_finite() -> None:
    """If this fails, a NaN or an infinity becomes a byte that the engine has not."""
    graph = all_bytes(small(np.random.default_rng(10)))
    x = np.zeros((1, 3, 8, 8), np.float32)
    x[0, 0, :3, 0] = [np.nan, np.inf, -np.inf]
    assert_same(graph, x)


def test_float_graph_is_the_twin() -> None:
    """If this fails, ranges are measured on another network than the one that is quantised."""
    graph = small(np.random.default_rng(11))
    for node in graph.nodes:
        node.quantization = graph.inputs[0].quantization = None
        if node.weight_scale is not None:
            node.weight = node.weight * node.weight_scale.reshape(-1, *[1] * (node.weight.ndim - 1))
            node.bias, node.weight_scale = node.bias * np.float32(1e-5), None
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = {}
    model = GraphModel(graph)
    found = model.run((x,), lambda name, value: seen.update({name: value}))
    torch.testing.assert_close(found, to_torch(graph)(x), rtol=1e-5, atol=1e-6)
    assert list(seen) == ["x", *(node.output for node in graph.nodes)]


def test_copies_and_state(tmp_path: Path) -> None:
    """If this fails, a copy, a pickle or a loaded state computes something else, or exports it."""
    rng = np.random.default_rng(12)
    first, second = GraphModel(small(rng)), GraphModel(small(np.random.default_rng(13)))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    want = first(x)
    assert not torch.equal(second(x), want)
    for twin in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert torch.equal(twin(x), want)
    # density differs, so the pattern of a state is its own
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(x), want)
    assert to_bytes(second.graph) == to_bytes(first.graph)
    write(first.graph, tmp_path / "m")
    assert torch.equal(GraphModel(read(tmp_path / "m")[0])(x), want)
    assert torch.equal(copy.deepcopy(first).half()(x), want)
    assert torch.equal(copy.deepcopy(first).double().train()(x.double()), want)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(first(x), want)


def test_state_of_other_ops() -> None:
    """If this fails, the tensors of an op that owns some are not part of the state."""
    graph = one_op("affine", SOURCES, BYTES)
    x = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    first, second = GraphModel(graph), GraphModel(graph)
    first.steps[0].tensor_scale.mul_(3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(x), GraphModel(second.graph)(x))
    assert not torch.equal(second(x), GraphModel(graph)(x))


def test_wrong_number_of_inputs() -> None:
    """If this fails, a second input is ignored."""
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(Error, match="takes 1 inputs, not 2"):
        GraphModel(small(np.random.default_rng(0)))(x, x)


# The same network twice: with indices, as files before had them, and with patterns.
GOLDEN = Path(__file__).parents[2] / "format" / "golden_int8.safetensors"
GOLDEN_PATTERNS = GOLDEN.with_name("golden_int8_patterns.safetensors")
GOLDEN_OUTPUT = [
    ["-0x1.9e638c0p-3", "-0x1.acb1a60p-4", "0x1.69eac80p-2", "0x1.fa3af80p-4", "0x1.8349ba0p-3"],
    ["-0x1.73c4ce0p-3", "-0x1.64093a0p-4", "0x1.3d92aa0p-2", "0x1.16e4940p-3", "0x1.91b51c0p-3"],
]


@pytest.mark.parametrize("path", [GOLDEN, GOLDEN_PATTERNS])
def test_golden_file_stays_the_same(path: Path) -> None:
    """If this fails, quantised files of today are read as other networks tomorrow, by torch or by
    the engine, or are written in another way."""
    graph, told = read(path)
    assert told == {"source": "golden"} and to_bytes(graph, told) == GOLDEN_PATTERNS.read_bytes()
    x = (np.arange(2 * 3 * 8 * 8) * 37 % 101 - 50).reshape(2, 3, 8, 8).astype(np.float32) / 16
    want = np.array([[float.fromhex(number) for number in row] for row in GOLDEN_OUTPUT])
    assert np.array_equal(GraphModel(graph)(torch.from_numpy(x)).numpy(), want)
    assert np.array_equal(Engine(path).run(x), want)


def test_to_torch_of_bytes() -> None:
    """If this fails, the readable twin of a quantised graph computes with integers as if they were
    its numbers."""
    graph = small(np.random.default_rng(14))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_torch(graph)(x), GraphModel(graph)(x))
