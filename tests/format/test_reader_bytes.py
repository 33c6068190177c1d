"""Any bytes either load or raise FormatError, quickly and in little memory."""

from __future__ import annotations

import json
import tracemalloc

import model_bytes as mb
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from kernelprune import FormatError
from kernelprune.format.reader import read_bytes
from kernelprune.graph.validate import check_graph

VALID = mb.every_op().to_bytes()
HEADER_END = 8 + int.from_bytes(VALID[:8], "little")


def load(data: bytes) -> bool:
    """True when it loads; then the graph must keep every rule and every weight must expand."""
    try:
        graph, _ = read_bytes(data, "file")
    except FormatError as error:
        assert str(error).startswith("file: ") and "\n" not in str(error)
        return False
    check_graph(graph)
    for node in graph.nodes:
        assert not node.has_weight() or node.weight.size < 1 << 20
    return True


def test_valid() -> None:
    """If this fails, the other tests here prove nothing."""
    assert load(VALID)


@pytest.mark.parametrize("step", range(7))
def test_truncated(step: int) -> None:
    """If this fails, half a download loads as a model or raises something else."""
    for size in range(step, len(VALID), 7):
        assert not load(VALID[:size])


def test_longer() -> None:
    """If this fails, two files glued together load."""
    assert not load(VALID + b"\0")


@given(st.integers(0, len(VALID) - 1), st.integers(0, 7))
@settings(max_examples=400)
def test_flipped_bit(position: int, bit: int) -> None:
    """If this fails, one flipped bit makes the reader raise something else than FormatError."""
    data = bytearray(VALID)
    data[position] ^= 1 << bit
    load(bytes(data))


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_random_header(header: bytes) -> None:
    """If this fails, garbage makes the reader raise something else than FormatError."""
    load(len(header).to_bytes(8, "little") + header + VALID[HEADER_END:])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["a", "x", "conv2d", "linear", "U16", "F32", "relu"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip


def places(value, path=()):
    """Every place in a JSON document, as a path of keys."""
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


HEADER = mb.every_op().header()
GRAPH = mb.every_op().graph
HEADER_PLACES = [path for path in places(HEADER) if path[:1] != ("__metadata__",)]
GRAPH_PLACES = list(places(GRAPH))


@given(st.sampled_from(HEADER_PLACES), JSON)
@settings(max_examples=200)
def test_edited_header(path, new) -> None:
    """If this fails, a hostile header makes the reader raise something else than FormatError."""
    load(mb.join(json.dumps(replaced(HEADER, path, new)), VALID[HEADER_END:]))


@given(st.sampled_from(GRAPH_PLACES), JSON)
@settings(max_examples=300)
def test_edited_graph(path, new) -> None:
    """If this fails, a hostile graph makes the reader raise something else than FormatError."""
    model = mb.every_op()
    model.graph = replaced(GRAPH, path, new)
    load(model.to_bytes())


def test_small_file_cannot_claim_memory() -> None:
    """If this fails, a file of a few megabytes can exhaust the memory of whoever opens it."""
    rows = 1 << 18
    layer = {
        "row_ptr": np.zeros(rows + 1, "<u4"),
        "col": np.zeros(0, "<u2"),
        "weight": np.zeros((0, 1, 1), "<f4"),
        "bias": np.zeros(rows, "<f4"),
    }
    node = {"op": "linear", "name": "fc", "inputs": ["x"], "output": "fc", "shape": [rows]}
    graph = {
        "inputs": [{"name": "x", "shape": [1 << 20]}],
        "outputs": ["fc"],
        "nodes": [{**node, "activation": "none"}],
    }
    data = mb.ModelBytes(graph, {f"fc.{role}": array for role, array in layer.items()}).to_bytes()
    tracemalloc.start()
    found, _ = read_bytes(data, "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.kept_connections() == 0 and found.all_connections() == 1 << 38
    assert peak < 8 * len(data)


@pytest.mark.parametrize("shape", [[0, 1 << 62, 4], [1 << 40, 1 << 40, 0], [0, 0, 0]])
def test_empty_tensor_of_absurd_shape(shape: list[int]) -> None:
    """If this fails, an empty tensor with huge sides escapes as an error of numpy."""
    header = json.loads(json.dumps(HEADER))
    header["spare"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    assert not load(mb.join(json.dumps(header), VALID[HEADER_END:]))


def test_deep_nesting_and_huge_numbers() -> None:
    """If this fails, Python's own limits (recursion, digits) escape as other errors."""
    for text in ("{" + '"a":[' * 100_000, '{"a":' + "9" * 5000 + "}", '{"a":NaN}', '{"a":1}' * 2):
        assert not load(mb.join(text, b""))
