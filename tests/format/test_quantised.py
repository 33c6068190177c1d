"""Files with quantised values: written as version 2, read back as they were, and checked."""

from __future__ import annotations

import json
from pathlib import Path

import model_bytes as mb
import numpy as np
import pytest
from quantised_graphs import integer_layer, small

from kernelprune import FormatError
from kernelprune.format import Graph, Node, Value, read, write
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes
from kernelprune.graph.quantization import Quantization, quantizations


def parts_of(data: bytes) -> mb.ModelBytes:
    """A written file in parts, to be changed."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    graph = json.loads(metadata.pop("graph"))
    types = {name: np.dtype(key) for key, name in mb.DTYPES.items()}
    tensors = {
        name: np.frombuffer(data[8 + size :][slice(*entry["data_offsets"])], types[entry["dtype"]])
        .reshape(entry["shape"])
        .copy()
        for name, entry in header.items()
    }
    return mb.ModelBytes(graph, tensors, metadata)


def model() -> mb.ModelBytes:
    return parts_of(to_bytes(small(np.random.default_rng(0))))


def test_read_as_written(tmp_path: Path) -> None:
    """If this fails, what is run is not what was quantised."""
    graph = small(np.random.default_rng(1))
    write(graph, tmp_path / "m")
    found, _ = read(tmp_path / "m")
    assert parts_of((tmp_path / "m").read_bytes()).metadata["version"] == "2"
    assert quantizations(found) == quantizations(graph)
    assert found.inputs == graph.inputs
    for a, b in zip(found.nodes, graph.nodes, strict=True):
        assert (a.op, a.params, a.shape) == (b.op, b.params, b.shape)
        for have, want in (
            (a.weight, b.weight),
            (a.bias, b.bias),
            (a.weight_scale, b.weight_scale),
        ):
            assert (have is None) == (want is None)
            if want is not None:
                assert have.dtype == want.dtype and np.array_equal(have, want)
    assert to_bytes(found) == (tmp_path / "m").read_bytes()


def test_copies_keep_the_quantization() -> None:
    """If this fails, a pass on a copy loses what the bytes stand for."""
    graph = small(np.random.default_rng(1))
    assert to_bytes(graph.copy()) == to_bytes(graph)


@pytest.mark.parametrize(("density", "share"), [(1.0, 0.3), (0.2, 0.31)])
def test_file_is_about_a_quarter(density: float, share: float) -> None:
    """11 bytes for 38, with the index. If this fails, bytes are stored as something wider."""
    rng = np.random.default_rng(2)
    params = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}
    node = Node("conv2d", "c", ["x"], "y", (128, 8, 8), {**params, "activation": "none"})
    integer_layer(node, 128, density, rng)
    graph = Graph([Value("x", (128, 8, 8), quantization=Quantization(1.0, 0))], ["y"], [node])
    quantised = to_bytes(graph)
    node.weight = node.weight.astype(np.float32)
    node.weight_scale, node.bias = None, node.bias.astype(np.float32)
    assert len(quantised) < share * len(to_bytes(graph))


def test_float_layer_between_bytes() -> None:
    """If this fails, no layer can be left in float32."""
    graph = small(np.random.default_rng(3))
    body = graph.nodes[1]
    body.weight = body.weight.astype(np.float32)
    body.weight_scale, body.bias = None, body.bias.astype(np.float32)
    found, _ = read_bytes(to_bytes(graph), "file")
    assert found.nodes[1].weight_scale is None and found.nodes[1].weight.dtype == np.float32
    assert found.nodes[1].quantization == body.quantization


def an_input(**keys) -> mb.Edit:
    return mb.graph(lambda graph: graph["inputs"][0].update(keys))


def a_scale(scale, zero_point=0, **more):
    return {"quantization": {"scale": scale, "zero_point": zero_point, **more}}


def without(*names: str) -> mb.Edit:
    def edit(file: mb.ModelBytes) -> bytes:
        for name in names:
            del file.tensors[name]
        return file.to_bytes()

    return edit


def added(name: str, array: np.ndarray) -> mb.Edit:
    def edit(file: mb.ModelBytes) -> bytes:
        file.tensors[name] = array
        return file.to_bytes()

    return edit


def version_1(change) -> mb.Edit:
    def edit(file: mb.ModelBytes) -> bytes:
        file.metadata["version"] = "1"
        change(file)
        return file.to_bytes()

    return edit


def only_input(file: mb.ModelBytes) -> None:
    for node in file.graph["nodes"]:
        node.pop("quantization", None)


def float_input(file: mb.ModelBytes) -> bytes:
    del file.graph["inputs"][0]["quantization"]
    return file.to_bytes()


def bias(index: int, value: int) -> mb.Edit:
    return mb.put("stem.bias", index, value)


def sums_to(excess: int) -> mb.Edit:
    """Output channel 2 of the stem may just reach 2^31 - 1 + ``excess``."""

    def edit(file: mb.ModelBytes) -> bytes:
        begin, end = file.tensors["stem.row_ptr"][2:4]
        size = np.abs(file.tensors["stem.weight"][begin:end].astype(np.int64)).sum()
        file.tensors["stem.bias"][2] = -(2**31 - 1 - 255 * size + excess)
        return file.to_bytes()

    return edit


TAKEN = {
    "as it is": lambda file: file.to_bytes(),
    "bytes as input": an_input(dtype="u8"),
    "scale is an integer": an_input(**a_scale(2)),
    "smallest scale": an_input(**a_scale(2.0**-40)),
    "largest scale": an_input(**a_scale(2.0**40)),
    "largest zero point": an_input(**a_scale(1, 255)),
    "output of the graph": mb.node("head", **a_scale(1.5, 3)),
    "numbers between": mb.node("gap", "quantization"),
    "largest sum": sums_to(0),
    "largest weight": mb.put("head.weight", 0, 127),
    "smallest weight": mb.put("head.weight", 0, -127),
    "a kept connection of zeros": mb.put("stem.weight", 0, 0),
    "smallest scale of weights": mb.put("stem.scale", 0, 2.0**-40),
    "largest scale of weights": mb.put("stem.scale", 0, 2.0**40),
}  # fmt: skip


@pytest.mark.parametrize("edit", TAKEN.values(), ids=list(TAKEN))
def test_takes(edit: mb.Edit) -> None:
    """If this fails, a valid file is refused."""
    read_bytes(edit(model()), "file")


REFUSED = {
    "scale 0": (an_input(**a_scale(0)), "'x'.*scale"),
    "scale below 0": (an_input(**a_scale(-1.0)), "scale"),
    "scale NaN": (mb.graph_text(lambda t: t.replace("0.03125", "NaN")), "JSON"),
    "scale infinite": (an_input(**a_scale(1e999)), "JSON|scale"),
    "scale past float32": (an_input(**a_scale(1e300)), "scale"),
    "scale denormal": (an_input(**a_scale(1e-40)), "scale"),
    "scale too small": (an_input(**a_scale(0.99 * 2.0**-40)), "scale"),
    "scale too large": (an_input(**a_scale(1.01 * 2.0**40)), "scale"),
    "scale of 400 digits": (an_input(**a_scale(10**400)), "scale"),
    "scale is text": (an_input(**a_scale("1")), "scale"),
    "scale is true": (an_input(**a_scale(True)), "scale"),
    "scale is a list": (an_input(**a_scale([1.0])), "scale"),
    "zero point below 0": (an_input(**a_scale(1, -1)), "zero point"),
    "zero point 256": (an_input(**a_scale(1, 256)), "zero point"),
    "zero point with fraction": (an_input(**a_scale(1, 2.0)), "zero point"),
    "zero point is null": (an_input(**a_scale(1, None)), "zero point"),
    "zero point is true": (an_input(**a_scale(1, True)), "zero point"),
    "no zero point": (an_input(quantization={"scale": 1}), "keys"),
    "unknown key": (an_input(**a_scale(1, axis=0)), "keys"),
    "quantization is a list": (an_input(quantization=[1, 0]), "keys"),
    "quantization is null": (an_input(quantization=None), "keys"),
    "of a node": (mb.node("pool", **a_scale(0)), "'pool'.*scale"),
    "unknown key of a node": (mb.node("pool", **a_scale(1, type="u8")), "'pool'.*keys"),
    "in version 1": (version_1(lambda file: None), "keys"),
    "of a node in version 1": (
        version_1(lambda file: file.graph["inputs"][0].pop("quantization")),
        "version 1|quantised|uint8",
    ),
    "integer weights in version 1": (
        version_1(lambda f: (only_input(f), f.graph["inputs"][0].pop("quantization"))), "stem"),
    "integer weights on numbers": (float_input, "'stem'.*'x' is not quantised"),
    "weight -128": (mb.put("head.weight", 3, -128), "'head'.*-128"),
    "sum past 31 bits": (sums_to(1), "'stem'.*channel 2"),
    "bias -2^31": (bias(0, -(2**31)), "'stem'.*overflow"),
    "no scale": (without("stem.scale"), "'stem.scale' is missing"),
    "scale without integers": (added("pool.scale", np.ones(6, "<f4")), "belongs to no node"),
    "scale too short": (mb.tensor("stem.scale", lambda a: a[:-1]), "scale"),
    "scale of rank 2": (mb.tensor("stem.scale", lambda a: a[:, None]), "rank 2"),
    "scale holds 0": (mb.put("stem.scale", 1, 0), "scale"),
    "scale holds a negative": (mb.put("stem.scale", 1, -1), "scale"),
    "scale holds NaN": (mb.put("stem.scale", 1, np.nan), "scale"),
    "scale holds infinity": (mb.put("stem.scale", 1, np.inf), "scale"),
    "scale holds a denormal": (mb.put("stem.scale", 1, 1e-40), "scale"),
    "scale is integers": (mb.tensor("stem.scale", lambda a: a.astype("<i4")), "type int32"),
    "bias is numbers": (mb.tensor("stem.bias", lambda a: a.astype("<f4")), "type float32"),
    "weight is integers of 32 bits": (
        mb.tensor("stem.weight", lambda a: a.astype("<i4")), "type int32"),
    "numbers with an integer bias": (
        mb.tensor("stem.weight", lambda a: a.astype("<f4")), "'stem.bias' has type int32"),
    "bytes as row_ptr": (mb.tensor("stem.row_ptr", lambda a: a.astype("i1")), "type int8"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=list(REFUSED))
def test_refuses(edit: mb.Edit, message: str) -> None:
    """If this fails, a file that breaks a rule of FORMAT.md loads, or raises something else."""
    with pytest.raises(FormatError, match=message):
        read_bytes(edit(model()), "file")


def test_writer_refuses(tmp_path: Path) -> None:
    """If this fails, a file is written that no reader loads."""

    def refuse(match: str, **changes) -> None:
        graph = small(np.random.default_rng(0))
        for name, value in changes.items():
            setattr(graph.nodes[0], name, value)
        with pytest.raises(FormatError, match=match):
            write(graph, tmp_path / "m")

    refuse("'stem'.*scale", quantization=Quantization(float("nan"), 0))
    refuse("'stem'.*zero point", quantization=Quantization(1.0, 256))
    refuse("'stem'.*bias", bias=np.zeros(6))
    refuse("'stem'.*bias", bias=None)
    refuse("'stem'.*not int8", weight=np.ones((6, 3, 3, 3), np.float32))
    refuse("'stem'.*-128", weight=np.full((6, 3, 3, 3), -128, np.int8))
    refuse("'stem'.*scale", weight_scale=np.ones(5, np.float32))
    assert list(tmp_path.iterdir()) == []


# --- what bytes stand for ------------------------------------------------------------------------


def test_numbers_to_bytes() -> None:
    """If this fails, halves, NaN or numbers outside of the range become other bytes than in the
    engine."""
    half = Quantization(0.5, 10)
    numbers = [0.0, 0.25, 0.75, -0.25, -5.0, -6.0, 122.5, 1e30, -np.inf, np.inf, np.nan]
    found = half.quantize(np.array(numbers))
    assert found.tolist() == [10, 10, 12, 10, 0, 0, 255, 255, 0, 255, 10]
    assert (half.low, half.high) == (-5.0, 122.5)


def test_bytes_come_back() -> None:
    """If this fails, a value that is only moved changes."""
    rng = np.random.default_rng(0)
    every = np.arange(256).astype(np.uint8)
    for scale in [2.0**-40, 2.0**40, *10.0 ** rng.uniform(-12, 12, 500)]:
        own = Quantization(scale, int(rng.integers(256)))
        numbers = own.dequantize(every)
        assert numbers.dtype == np.float32 and np.array_equal(own.quantize(numbers), every)
