"""What holds of every operator class, and what the passes do with any op that says which channels
its own are made of."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from graph.graphs_for_passes import Builder, assert_same_function
from graph.made_up_ops import MADE_UP

import kernelprune
from kernelprune import FormatError
from kernelprune.errors import UnsupportedOperator
from kernelprune.format import Graph
from kernelprune.graph import passes
from kernelprune.graph.channels import analyse
from kernelprune.graph.ops import OPS, _first_of
from kernelprune.graph.ops.base import Op, Parameter, broadcast
from kernelprune.graph.paths import between

PACKAGE = Path(kernelprune.__file__).parent
FORMAT = (PACKAGE / "format" / "FORMAT.md").read_text()


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in MADE_UP:
        monkeypatch.setitem(OPS, op.name, op)


# --- every class ---------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_class_is_complete(op: Op) -> None:
    """If this fails, a file cannot hold the op's parameters, or FORMAT.md does not tell of it."""
    names = [parameter.name for parameter in op.parameters]
    assert len(set(names)) == len(names)
    assert not set(names) & {"op", "name", "inputs", "output", "shape"}
    for parameter in op.parameters:
        if parameter.optional:
            parameter.check(parameter.default, 3)
    if op.in_file:
        rows = [
            line for line in FORMAT.splitlines() if line.startswith("|") and f"`{op.name}`" in line
        ]
        assert all(any(f"`{name}`" in row for row in rows) for name in names), names
        assert rows


def test_no_pass_names_an_operator() -> None:
    """If this fails, an op that is added as one class is forgotten somewhere else."""
    folders = ("graph", "format", "prune", "quantization")
    for path in [path for folder in folders for path in sorted((PACKAGE / folder).glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in set(OPS) - {"activation"}, f"{path.name}:{node.lineno}"


def test_rows_of_one_operator_are_asked_in_turn() -> None:
    """If this fails, a general op never sees the calls that a special one leaves to it, or the user
    reads why the special one does not do instead of why none does."""

    def refuses(call: str) -> str:
        raise UnsupportedOperator(f"not {call}")

    def takes(call: str) -> str:
        return call * 2

    assert _first_of([refuses, takes])("ab") == "abab"
    assert _first_of([takes, refuses])("ab") == "abab"
    with pytest.raises(UnsupportedOperator, match="not ab"):
        _first_of([refuses, refuses])("ab")


NUMBER = Parameter("p", "number", low=0)
GOOD = [
    (Parameter("p", "integer", low=1, high=3), 3), (Parameter("p", "integer"), np.int64(2)),
    (NUMBER, 0), (NUMBER, 0.5), (NUMBER, np.float32(1)), (NUMBER, 3e38),
    (Parameter("p", "axis"), 2), (Parameter("p", "flag"), False),
    (Parameter("p", "choice", choices=("a", "b")), "b"),
    (Parameter("p", "integers", count=2), [1, 2]), (Parameter("p", "integers"), (1, 2, 3, 4)),
    (Parameter("p", "integers", per_axis=True), [1, 2, 3]),
    (Parameter("p", "numbers", count=2, low=0), [0, 1.5]),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "value"), GOOD)
def test_parameter_takes(parameter: Parameter, value) -> None:
    """If this fails, a valid file is refused."""
    parameter.check(value, 3)


BAD = [
    (Parameter("p", "integer", low=1, high=3), 4), (Parameter("p", "integer", low=1), 0),
    (Parameter("p", "integer"), True), (Parameter("p", "integer"), 1.0),
    (Parameter("p", "integer"), "1"), (Parameter("p", "integer"), None),
    (Parameter("p", "integer"), 10**400),
    (NUMBER, -1), (NUMBER, float("nan")), (NUMBER, float("inf")), (NUMBER, 1e39),
    (NUMBER, 10**400), (NUMBER, True), (NUMBER, "1"), (NUMBER, [1]),
    (Parameter("p", "axis"), 3), (Parameter("p", "axis"), -1), (Parameter("p", "axis"), False),
    (Parameter("p", "flag"), 1), (Parameter("p", "choice", choices=("a",)), "b"),
    (Parameter("p", "choice", choices=("a",)), ["a"]),
    (Parameter("p", "integers", count=2), [1]), (Parameter("p", "integers", count=2), 1),
    (Parameter("p", "integers"), []), (Parameter("p", "integers"), [1] * 5),
    (Parameter("p", "integers", per_axis=True), [1, 2]),
    (Parameter("p", "integers", count=1), [1.5]), (Parameter("p", "numbers", count=1), [None]),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "value"), BAD)
def test_parameter_refuses(parameter: Parameter, value) -> None:
    """If this fails, a hostile file makes an op compute with what it was never written for."""
    with pytest.raises(FormatError, match="^(parameter '|)p"):
        parameter.check(value, 3)


def test_broadcast() -> None:
    """If this fails, a binary op is run on shapes that do not go together."""
    assert broadcast((3, 1, 5), (1, 4, 5)) == (3, 4, 5)
    for a, b in (((3,), (3, 1)), ((3, 2), (3, 4))):
        with pytest.raises(kernelprune.ShapeError):
            broadcast(a, b)


# --- channels through any op ---------------------------------------------------------------------


def without_dead(graph: Graph) -> Graph:
    """After the pass, checked to compute the same."""
    after = graph.copy()
    passes.drop_dead_channels(after)
    assert_same_function(graph, after)
    return after


def blind(b: Builder, layer: str, channels: list[int]) -> None:
    """Has the convolution ``layer`` not read these channels."""
    b.graph.node(layer).weight[:, channels] = 0


def shape_of(graph: Graph, op: str) -> tuple[int, ...]:
    return next(node.shape for node in graph.nodes if node.op == op)


def test_picked_channels_go() -> None:
    """If this fails, channels that a gather or slice leaves behind are kept, or its result has the
    wrong ones."""
    b = Builder()
    index = np.array([5, 0, 0, 3], np.uint32)
    picked = b.node("made_up_pick", [b.conv("x", 6)], {}, tensors={"index": index}, channels=4)
    last = b.conv(picked, 2)
    blind(b, last, [1])
    after = without_dead(b.done(last))
    assert after.nodes[0].shape[0] == 3 and shape_of(after, "made_up_pick")[0] == 3
    assert after.nodes[1].tensors["index"].tolist() == [2, 0, 1]


def test_channels_made_of_several_go_together() -> None:
    """If this fails, a pixel shuffle is left with part of the channels of a block: its shape is
    then no whole number of channels."""
    b = Builder()
    last = b.conv(b.node("made_up_stack", [b.conv("x", 8)], {}), 2)
    blind(b, last, [0, 2])
    after = without_dead(b.done(last))
    assert after.nodes[0].shape[0] == 4 and shape_of(after, "made_up_stack")[0] == 2


def test_a_broadcast_input_ties_nothing() -> None:
    """If this fails, a spatial gate keeps every channel that it multiplies, or loses its own."""
    b = Builder()
    scale = b.rng.standard_normal(6).astype(np.float32)
    gate = b.node(
        "made_up_gate", [b.conv("x", 6), b.conv("x", 1)], {"sides": [1, 2, 3]},
        tensors={"scale": scale},
    )  # fmt: skip
    last = b.conv(gate, 2)
    blind(b, last, [1, 4])
    after = without_dead(b.done(last))
    assert [node.shape[0] for node in after.nodes] == [4, 1, 4, 2]
    assert np.array_equal(after.nodes[2].tensors["scale"], scale[[0, 2, 3, 5]])


def test_a_value_without_inputs_shrinks() -> None:
    """If this fails, a constant keeps channels that its reader has lost: shapes then differ."""
    b = Builder((6, 4, 4))
    value = b.rng.standard_normal((6, 6, 5)).astype(np.float32)
    number = b.node("made_up_number", [], {}, tensors={"value": value}, declared=value.shape)
    last = b.conv(number, 2)
    blind(b, last, [0, 1, 5])
    graph = b.done(last)
    passes.drop_dead_channels(graph)
    assert graph.nodes[0].shape == (3, 6, 5)
    assert np.array_equal(graph.nodes[0].tensors["value"], value[2:5])


def test_other_axes_pass_channels_on() -> None:
    """If this fails, a concat or softmax over pixels keeps channels that nobody reads."""
    b = Builder()
    tall = b.node("concat", [b.conv("x", 6), b.conv("x", 6)], {"axis": 1})
    last = b.conv(b.node("softmax", [tall], {"axis": 2}), 2)
    blind(b, last, [2])
    after = without_dead(b.done(last))
    assert [node.shape[0] for node in after.nodes] == [5, 5, 5, 5, 2]


def test_constants_move_through_what_rearranges() -> None:
    """If this fails, a layer that lost its connections is stored for ever behind a shuffle."""
    b = Builder()
    first = b.conv("x", 4)
    b.graph.node(first).weight[:2] = 0
    b.graph.node(first).bias[:] = [2.0, 2.0, 0.0, 1.0]
    stacked = b.node("made_up_stack", [first], {})
    constant = analyse(b.done(stacked)).constant[stacked]
    assert constant[0] == 2.0 and np.isnan(constant[1])


def test_paths_lead_through_any_op() -> None:
    """If this fails, pruning cuts a network in two behind a gather, or takes one for cut off."""
    b = Builder()
    index = np.array([1], np.uint32)
    first = b.conv("x", 2)
    last = b.conv(b.node("made_up_pick", [first], {}, tensors={"index": index}, channels=1), 1)
    graph = b.done(last)
    kept = {name: np.ones(graph.node(name).weight.shape[:2], bool) for name in (first, last)}
    assert between(graph, kept) == {first: True, last: True}
    kept[first][1] = False
    assert between(graph, kept) == {first: False, last: False}
