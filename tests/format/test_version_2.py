"""What version 2 of the file adds: it is written only where it is used, read back as it was, and
checked as strictly as the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import model_bytes as mb
import numpy as np
import pytest
from graph.made_up_ops import MADE_UP

from kernelprune import FormatError
from kernelprune.format import Graph, Node, Value, read, write
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes
from kernelprune.graph.ops import OPS

POOL = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 2, 2], "count_include_pad": True}


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in MADE_UP:
        monkeypatch.setitem(OPS, op.name, op)


def header_of(data: bytes) -> dict[str, Any]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def plain() -> Graph:
    """x [3,6,6] -> average pool -> softmax, nothing of version 2."""
    pool = Node("avg_pool2d", "pool", ["x"], "p", (3, 4, 4), dict(POOL))
    return Graph(
        [Value("x", (3, 6, 6))], ["y"], [pool, Node("softmax", "s", ["p"], "y", (3, 4, 4))]
    )


def gated() -> Graph:
    """Ops that own tensors of both types, and a parameter of each sort."""
    rng = np.random.default_rng(0)
    pick = Node("made_up_pick", "pick", ["x"], "k", (4, 6, 6))
    pick.tensors = {"index": np.array([2, 0, 2, 1], np.uint32)}
    gate = Node("made_up_gate", "gate", ["k", "x"], "y", (4, 6, 6), {"sides": [1, 2, 3]})
    gate.tensors = {"scale": rng.standard_normal(4).astype(np.float32)}
    return Graph([Value("x", (3, 6, 6))], ["y"], [pick, gate])


def named(graph: Graph) -> None:
    graph.outputs.append("p")
    graph.output_names = ["scores", "p"]


def bytes_in(graph: Graph) -> None:
    graph.inputs[0].dtype = "u8"


def other_axis(graph: Graph) -> None:
    graph.nodes[1].params["axis"] = 2


def divisor(graph: Graph) -> None:
    graph.nodes[0].params["divisor"] = 7


def uncounted(graph: Graph) -> None:
    graph.nodes[0].params["uncounted"] = [1, 2]


def rank_4(graph: Graph) -> None:
    graph.inputs.append(Value("z", (2, 3, 4, 5)))
    graph.outputs.append("z")


def rank_2(graph: Graph) -> None:
    graph.inputs.append(Value("z", (7, 5)))
    graph.nodes.append(Node("flatten", "f", ["z"], "f", (35,)))
    graph.outputs.append("f")


NEWER = [named, bytes_in, other_axis, divisor, uncounted, rank_4, rank_2]


@pytest.mark.parametrize("change", NEWER, ids=lambda change: change.__name__)
def test_written_as_version_2_and_read_back(change, tmp_path: Path) -> None:
    """If this fails, an older engine misreads a file, or what is read is not what was written."""
    graph = plain()
    change(graph)
    write(graph, tmp_path / "m")
    assert header_of((tmp_path / "m").read_bytes())["version"] == "2"
    found, _ = read(tmp_path / "m")
    assert found.inputs == graph.inputs and found.outputs == graph.outputs
    assert found.output_names == graph.output_names
    for a, b in zip(found.nodes, graph.nodes, strict=True):
        assert (a.op, a.params, a.shape) == (b.op, b.params, b.shape)
    assert to_bytes(found) == (tmp_path / "m").read_bytes()


def test_tensors_of_any_op(tmp_path: Path) -> None:
    """If this fails, the numbers of a gather or a normalization change on the way."""
    graph = gated()
    graph.nodes[1].params["shift"] = np.float32(0.25)
    write(graph, tmp_path / "m")
    found, _ = read(tmp_path / "m")
    assert header_of((tmp_path / "m").read_bytes())["version"] == "2"
    assert found.nodes[0].tensors["index"].tolist() == [2, 0, 2, 1]
    assert np.array_equal(found.nodes[1].tensors["scale"], graph.nodes[1].tensors["scale"])
    assert found.nodes[1].params == {"sides": [1, 2, 3], "shift": 0.25}
    assert to_bytes(found) == (tmp_path / "m").read_bytes()


def test_defaults_are_left_out() -> None:
    """If this fails, a graph that uses nothing of version 2 is refused by older engines."""
    graph = plain()
    graph.nodes[0].params |= {"divisor": 0, "uncounted": (0, 0)}
    graph.nodes[1].params["axis"] = 0
    data = to_bytes(graph)
    assert data == to_bytes(plain()) and header_of(data)["version"] == "1"


def test_output_names_follow_the_values() -> None:
    """If this fails, a pass that renames a value leaves an output with a name of nothing, or a copy
    loses the user's names."""
    graph = plain()
    graph.outputs[0] = "p"
    assert graph.output_names == ["p"]
    graph.output_names = ["mine"]
    graph.outputs[0] = "y"
    assert graph.output_names == graph.copy().output_names == ["mine"]


def set_version(version: str) -> mb.Edit:
    def edit(model: mb.ModelBytes) -> bytes:
        model.metadata["version"] = version
        return model.to_bytes()

    return edit


def edited(change) -> mb.Edit:
    def edit(model: mb.ModelBytes) -> bytes:
        model.metadata["version"] = "2"
        change(model)
        return model.to_bytes()

    return edit


def outputs(*entries: Any) -> mb.Edit:
    return edited(lambda model: model.graph.update(outputs=list(entries)))


def an_input(**keys: Any) -> mb.Edit:
    return edited(lambda model: model.graph["inputs"][0].update(keys))


def a_node(name: str, **keys: Any) -> mb.Edit:
    return edited(lambda model: model.node(name).update(keys))


def a_tensor(name: str, array: np.ndarray | None) -> mb.Edit:
    def change(model: mb.ModelBytes) -> None:
        model.tensors[name] = array
        if array is None:
            del model.tensors[name]

    return edited(change)


def model() -> mb.ModelBytes:
    """The file of ``gated`` behind an average pool and a softmax."""
    nodes = [
        {"op": "avg_pool2d", "name": "pool", "inputs": ["x"], "output": "p",
         "shape": [3, 4, 4], **POOL},
        {"op": "made_up_pick", "name": "pick", "inputs": ["p"], "output": "k", "shape": [4, 4, 4]},
        {"op": "made_up_gate", "name": "gate", "inputs": ["k", "k"], "output": "g",
         "shape": [4, 4, 4], "sides": [1, 2, 3]},
        {"op": "softmax", "name": "soft", "inputs": ["g"], "output": "y", "shape": [4, 4, 4]},
    ]  # fmt: skip
    tensors = {
        "pick.index": np.array([2, 0, 2, 1], "<u4"),
        "gate.scale": np.array([1, 2, 3, 4], "<f4"),
    }
    graph = {"inputs": [{"name": "x", "shape": [3, 6, 6]}], "outputs": ["y"], "nodes": nodes}
    return mb.ModelBytes(graph, tensors)


TAKEN = {
    "as it is": edited(lambda m: None),
    "dtype f32": an_input(dtype="f32"),
    "dtype u8": an_input(dtype="u8"),
    "a value under two names": outputs({"name": "a", "value": "y"}, {"name": "b", "value": "y"}),
    "its own name": outputs({"name": "y", "value": "y"}),
    "a name with UTF-8": outputs({"name": "Ergebnis-\u00e4", "value": "y"}),
    "default written out": a_node("soft", axis=0),
    "optional parameter": a_node("soft", axis=2),
    "a number as integer": a_node("gate", shift=1),
    "a number with an exponent": a_node("gate", shift=1e-3),
    "largest divisor": a_node("pool", divisor=1 << 31),
    "all padding uncounted": a_node("pool", uncounted=[2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("edit", TAKEN.values(), ids=list(TAKEN))
def test_takes(edit: mb.Edit) -> None:
    """If this fails, a valid file is refused."""
    read_bytes(edit(model()), "file")


REFUSED = {
    "version 3": (set_version("3"), "version '3'"),
    "an op in version 1": (set_version("1"), "unknown to version 1"),
    "one value twice": (outputs("y", "y"), "two outputs"),
    "unknown dtype": (an_input(dtype="f64"), "dtype"),
    "dtype is a list": (an_input(dtype=["f32"]), "dtype"),
    "other key of an input": (an_input(type="u8"), "keys"),
    "rank 0": (an_input(shape=[]), "rank 0"),
    "rank 5": (an_input(shape=[1, 1, 1, 1, 1]), "rank 5"),
    "2^32 elements": (an_input(shape=[256, 256, 256, 256]), "2\\^31"),
    "same name twice": (
        outputs({"name": "a", "value": "y"}, {"name": "a", "value": "g"}), "two outputs"),
    "a name that is a value": (outputs("y", {"name": "y", "value": "g"}), "two outputs"),
    "output without value": (outputs({"name": "a"}), "keys"),
    "output of another key": (outputs({"name": "a", "value": "y", "type": 1}), "keys"),
    "name with a space": (outputs({"name": "a b", "value": "y"}), "space"),
    "name of 201 bytes": (outputs({"name": "a" * 201, "value": "y"}), "longer"),
    "name is a number": (outputs({"name": 1, "value": "y"}), "string"),
    "value is nowhere": (outputs({"name": "a", "value": "z"}), "not defined"),
    "axis past the rank": (a_node("soft", axis=3), "axis"),
    "axis below 0": (a_node("soft", axis=-1), "axis"),
    "axis is true": (a_node("soft", axis=True), "axis"),
    "divisor 2^31 + 1": (a_node("pool", divisor=(1 << 31) + 1), "outside"),
    "divisor with fraction": (a_node("pool", divisor=2.0), "integer"),
    "uncounted past the padding": (a_node("pool", uncounted=[0, 3]), "uncounted"),
    "uncounted below 0": (a_node("pool", uncounted=[0, -1]), "outside"),
    "number past its limit": (a_node("gate", shift=10.5), "outside"),
    "number past float32": (a_node("gate", shift=1e39), "finite"),
    "number is true": (a_node("gate", shift=True), "finite"),
    "number is null": (a_node("gate", shift=None), "finite"),
    "too few for the axes": (a_node("gate", sides=[1, 2]), "list of 3"),
    "parameter missing": (edited(lambda m: m.node("gate").pop("sides")), "'sides' is missing"),
    "unknown parameter": (a_node("soft", dim=1), "unknown parameter 'dim'"),
    "too few inputs": (a_node("gate", inputs=["k"]), "1 inputs"),
    "tensor missing": (a_tensor("gate.scale", None), "'gate.scale' is missing"),
    "tensor of nobody": (a_tensor("soft.scale", np.ones(4, "<f4")), "belongs to no node"),
    "tensor too short": (a_tensor("gate.scale", np.ones(3, "<f4")), "shape"),
    "tensor of another rank": (a_tensor("gate.scale", np.ones((4, 1), "<f4")), "rank 2"),
    "tensor of rank 5": (a_tensor("gate.scale", np.ones((4, 1, 1, 1, 1), "<f4")), "rank 5"),
    "float as index": (a_tensor("pick.index", np.ones(4, "<f4")), "type float32"),
    "index as float": (a_tensor("gate.scale", np.ones(4, "<u4")), "type uint32"),
    "narrow index": (a_tensor("pick.index", np.ones(4, "<u2")), "type uint16"),
    "index past the side": (a_tensor("pick.index", np.array([0, 0, 0, 3], "<u4")), "channel"),
    "NaN": (a_tensor("gate.scale", np.array([1, 2, np.nan, 3], "<f4")), "finite"),
    "infinite": (a_tensor("gate.scale", np.array([1, 2, np.inf, 3], "<f4")), "finite"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), REFUSED.values(), ids=list(REFUSED))
def test_refuses(edit: mb.Edit, message: str) -> None:
    """If this fails, a file that breaks a rule of FORMAT.md loads, or raises something else."""
    with pytest.raises(FormatError, match=message):
        read_bytes(edit(model()), "file")


def test_version_1_allows_a_value_twice() -> None:
    """If this fails, a model that returns a value twice and was exported before no longer loads."""
    graph = plain()
    graph.outputs = ["y", "y"]
    data = to_bytes(graph)
    assert header_of(data)["version"] == "1" and read_bytes(data, "file")[0].outputs == ["y", "y"]
    graph.inputs[0].dtype = "u8"
    with pytest.raises(FormatError, match="two outputs"):
        to_bytes(graph)


NOT_OF_VERSION_1 = {
    "dtype": (lambda m: m.graph["inputs"][0].update(dtype="f32"), "keys"),
    "shape of an input": (lambda m: m.graph["inputs"][0].update(shape=[3, 8, 8, 1]), "rank 4"),
    "named output": (lambda m: m.graph.update(outputs=[{"name": "k", "value": "k"}]), "string"),
    "parameter": (lambda m: m.node("prob").update(axis=0), "'axis'"),
    "number": (lambda m: m.node("mean").update(divisor=0), "'divisor'"),
}


@pytest.mark.parametrize(
    ("change", "message"), NOT_OF_VERSION_1.values(), ids=list(NOT_OF_VERSION_1)
)
def test_version_1_has_nothing_of_version_2(change, message: str) -> None:
    """If this fails, a file loads here that says version 1 and that an older engine refuses."""
    file = mb.every_op()
    change(file)
    with pytest.raises(FormatError, match=message):
        read_bytes(file.to_bytes(), "file")


def test_writer_refuses_wrong_tensors(tmp_path: Path) -> None:
    """If this fails, a file is written that no reader loads."""
    for tensors in ({}, {"index": np.zeros(4)}, {"index": np.array([0, 0, 0, -1])}):
        graph = gated()
        graph.nodes[0].tensors = tensors
        with pytest.raises(FormatError, match="'pick'"):
            write(graph, tmp_path / "m")
    graph = gated()
    graph.nodes[1].tensors = {"scale": np.full(4, 1e300)}
    with pytest.raises(FormatError, match="'gate'.*overflows"):
        write(graph, tmp_path / "m")
    graph = plain()
    graph.output_names = ["a", "b"]
    with pytest.raises(FormatError, match="2 names for 1 outputs"):
        write(graph, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_copies_own_their_tensors() -> None:
    """If this fails, a pass on a copy changes the graph it was copied from."""
    graph = gated()
    twin = graph.copy()
    twin.nodes[0].tensors["index"] = np.zeros(1, np.uint32)
    twin.inputs[0].dtype = "u8"
    assert graph.nodes[0].tensors["index"].size == 4 and graph.inputs[0].dtype == "f32"
