"""The writer and the reader agree, the file keeps its promises on size and alignment, and every
rule is checked before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from kernelprune import Error, FormatError
from kernelprune.format import Graph, Node, Value, read, write
from kernelprune.graph.connections import Connections

GOLDEN = Path(__file__).parent / "golden_v1.safetensors"


def conv(name: str, source: str, weight: np.ndarray, shape: tuple[int, ...], **extra) -> Node:
    side = weight.shape[2]
    params = {
        "kernel": [side, side],
        "stride": [1, 1],
        "padding": [side // 2] * 4,
        "dilation": [1, 1],
        "activation": "relu",
    }
    node = Node("conv2d", name, [source], name, shape, params, weight=weight)
    node.bias = np.arange(weight.shape[0], dtype=np.float64)
    for key, value in extra.items():
        setattr(node, key, value)
    return node


def sample_graph() -> Graph:
    """conv -> conv with residual -> pool -> flatten -> linear -> softmax, with empty rows."""
    rng = np.random.default_rng(0)
    first = rng.integers(-3, 4, (4, 3, 3, 3)) * (rng.random((4, 3, 1, 1)) < 0.6)
    second = rng.integers(-3, 4, (4, 4, 3, 3)) * (rng.random((4, 4, 1, 1)) < 0.4)
    second[1] = 0
    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 1], "dilation": [1, 1]}
    return Graph(
        [Value("x", (3, 6, 6))],
        ["prob", "a"],
        [
            conv("a", "x", first.astype(np.float64), (4, 6, 6)),
            conv("b", "a", second.astype(np.float64), (4, 6, 6), inputs=["a", "a"]),
            Node("max_pool2d", "pool", ["b"], "pool", (4, 3, 3), pool),
            Node("flatten", "flat", ["pool"], "flat", (36,)),
            Node("linear", "fc", ["flat"], "fc", (5,), {"activation": "none"},
                 weight=rng.integers(-2, 3, (5, 36)).astype(np.float64)),
            Node("softmax", "prob", ["fc"], "prob", (5,)),
        ],
    )  # fmt: skip


def assert_same(first: Graph, second: Graph) -> None:
    assert first.inputs == second.inputs and first.outputs == second.outputs
    assert len(first.nodes) == len(second.nodes)
    for a, b in zip(first.nodes, second.nodes, strict=True):
        assert (a.op, a.name, a.inputs, a.output, a.shape, a.params) == (
            b.op, b.name, b.inputs, b.output, b.shape, b.params,
        )  # fmt: skip
        if a.has_weight():
            assert np.array_equal(a.weight, b.weight)
            assert np.array_equal(np.zeros(a.shape[0]) if a.bias is None else a.bias, b.bias)


def test_round_trip(tmp_path: Path) -> None:
    """If this fails, what is read is not what was written."""
    graph = sample_graph()
    write(graph, tmp_path / "m.safetensors", {"method": "test", "accuracy": 0.5})
    found, metadata = read(tmp_path / "m.safetensors")
    assert metadata == {"method": "test", "accuracy": "0.5"}
    assert found.kept_connections() == graph.kept_connections()
    assert_same(graph, found)
    assert found.node("b").density() == np.count_nonzero(graph.node("b").weight.any((2, 3))) / 16


def test_a_read_graph_can_be_written_again(tmp_path: Path) -> None:
    """If this fails, tools that change a model file (metadata, a layer) corrupt it."""
    write(sample_graph(), tmp_path / "a", {"k": "v"})
    write(*read(tmp_path / "a")[:1], tmp_path / "b", {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    graph, _ = read(tmp_path / "a")
    weight = graph.node("a").weight.copy()
    weight[0] = 0
    graph.node("a").weight = weight
    write(graph, tmp_path / "c")
    assert np.array_equal(read(tmp_path / "c")[0].node("a").weight, weight)


def test_golden_file_stays_readable() -> None:
    """If this fails, model files that users already have no longer load, or load differently."""
    graph, metadata = read(GOLDEN)
    assert_same(sample_graph(), graph)
    assert metadata == {"created_by": "golden"}


def test_safetensors_reads_it_and_tensors_are_aligned(tmp_path: Path) -> None:
    """If this fails, the file is no safetensors file, or a reader that maps it reads misaligned."""
    path = tmp_path / "m.safetensors"
    write(sample_graph(), path)
    tensors = safetensors.numpy.load_file(path)
    layers = ("a", "b", "fc")
    roles = ("row_ptr", "col", "weight", "bias")
    assert set(tensors) == {f"{layer}.{role}" for layer in layers for role in roles}
    assert tensors["a.col"].dtype == np.uint16 and tensors["fc.weight"].shape[1:] == (1, 1)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert size % 8 == 0
    for name, entry in header.items():
        if name != "__metadata__":
            width = 2 if entry["dtype"] == "U16" else 4
            assert entry["data_offsets"][0] % width == 0


def test_size_over_the_weights(tmp_path: Path) -> None:
    """If this fails, a VGG-16 at density 0.1 holds more than 11 % beside its 3x3 weights."""
    rng = np.random.default_rng(0)
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    nodes, weights = [], 0
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        weight = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
        weight *= rng.random((outputs, inputs, 1, 1)) < 0.1
        source = nodes[-1].name if nodes else "x"
        nodes.append(conv(f"features.{3 * i}", source, weight, (outputs, 4, 4)))
        weights += 36 * nodes[-1].kept_connections()
    write(Graph([Value("x", (3, 4, 4))], [nodes[-1].name], nodes), tmp_path / "m")
    assert (tmp_path / "m").stat().st_size <= 1.11 * weights


@pytest.mark.parametrize(("inputs", "index"), [(65536, np.uint16), (65537, np.uint32)])
def test_index_type(tmp_path: Path, inputs: int, index: type) -> None:
    """If this fails, the last channels of a wide layer are read from the wrong place."""
    weight = np.zeros((1, inputs), np.float32)
    weight[0, [0, inputs - 1]] = 1
    node = Node("linear", "fc", ["x"], "fc", (1,), {"activation": "none"}, weight=weight)
    write(Graph([Value("x", (inputs,))], ["fc"], [node]), tmp_path / "m")
    found = read(tmp_path / "m")[0].nodes[0]
    assert found.connections.col.dtype == index
    assert found.connections.col.tolist() == [0, inputs - 1]


def test_connection_is_dropped_exactly_when_all_weights_are_zero(tmp_path: Path) -> None:
    """If this fails, a kept kernel with some zeros is lost, or rounding to float32 leaves
    connections that carry nothing."""
    weight = np.zeros((2, 3, 3, 3))
    weight[0, 1, 2, 2] = 1.0
    weight[1, 0, 0, 0] = 1e-60  # is zero in float32
    node = conv("a", "x", weight, (2, 4, 4))
    write(Graph([Value("x", (3, 4, 4))], ["a"], [node]), tmp_path / "m")
    found = read(tmp_path / "m")[0].nodes[0].sparse()
    assert (found.row_ptr.tolist(), found.col.tolist()) == ([0, 1, 1], [1])


def test_all_empty_layer(tmp_path: Path) -> None:
    """If this fails, a layer that lost all its connections cannot be stored."""
    node = conv("a", "x", np.zeros((2, 3, 3, 3)), (2, 4, 4))
    write(Graph([Value("x", (3, 4, 4))], ["a"], [node]), tmp_path / "m")
    found = read(tmp_path / "m")[0].nodes[0]
    assert found.kept_connections() == 0 and found.weight.shape == (2, 3, 3, 3)


def test_connections_and_dense_are_inverse() -> None:
    """If this fails, ``Node.weight`` of a read graph is not the layer."""
    rng = np.random.default_rng(1)
    dense = rng.standard_normal((7, 5, 2, 3)) * (rng.random((7, 5, 1, 1)) < 0.4)
    sparse = Connections.from_dense(dense)
    assert np.array_equal(sparse.dense(), dense)
    assert sparse.count() == np.count_nonzero(dense.any((2, 3)))


def break_shape(graph: Graph) -> None:
    graph.node("pool").shape = (4, 3, 2)


def break_order(graph: Graph) -> None:
    graph.nodes.reverse()


def break_weight(graph: Graph) -> None:
    graph.node("fc").weight = np.full((5, 36), np.nan)


def break_overflow(graph: Graph) -> None:
    graph.node("fc").weight = np.full((5, 36), 1e300)


def break_params(graph: Graph) -> None:
    graph.node("a").params["groups"] = 1


def break_activation(graph: Graph) -> None:
    graph.node("a").params["activation"] = "gelu"


def break_name(graph: Graph) -> None:
    graph.node("a").name = "a b"


def break_duplicate(graph: Graph) -> None:
    graph.node("b").name = "a"


def break_output(graph: Graph) -> None:
    graph.outputs.append("nowhere")


def break_residual(graph: Graph) -> None:
    graph.node("b").inputs[1] = "x"


def break_padding(graph: Graph) -> None:
    graph.node("pool").params["padding"] = [2, 0, 0, 0]


def break_bias(graph: Graph) -> None:
    graph.node("a").bias = np.zeros(3)


def break_op(graph: Graph) -> None:
    graph.node("flat").op = "batch_norm"


BROKEN = [
    (break_shape, "'pool'.*computes"), (break_order, "no earlier node"),
    (break_weight, "'fc'.*finite"), (break_overflow, "'fc'.*overflow"),
    (break_params, "unknown parameter 'groups'"), (break_activation, "activation"),
    (break_name, "space"), (break_duplicate, "two nodes"), (break_output, "'nowhere'"),
    (break_residual, "residual"), (break_padding, "extent"), (break_bias, "bias"),
    (break_op, "unknown op"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[b[0].__name__ for b in BROKEN])
def test_writer_refuses_a_broken_graph(tmp_path: Path, damage, message: str) -> None:
    """If this fails, a file is written that no reader loads, and the user learns it too late."""
    graph = sample_graph()
    damage(graph)
    with pytest.raises(FormatError, match=message):
        write(graph, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_reserved_metadata(tmp_path: Path) -> None:
    """If this fails, a user's metadata replaces the graph."""
    with pytest.raises(FormatError, match="'graph' is reserved"):
        write(sample_graph(), tmp_path / "m", {"graph": "{}"})


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """If this fails, a mistyped path ends in a traceback instead of one line."""
    with pytest.raises(Error, match="no such file"):
        read(tmp_path / "nothing")
    with pytest.raises(Error, match="not a regular file"):
        read(tmp_path)
    with pytest.raises(Error, match="cannot write"):
        write(sample_graph(), tmp_path / "no" / "folder")
