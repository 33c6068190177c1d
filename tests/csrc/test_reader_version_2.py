"""What version 2 of the file adds: both readers take it, or both refuse it."""

from __future__ import annotations

import json

import model_bytes as mb
import numpy as np
import pytest

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes


def with_version(version: str, change=lambda model: None) -> mb.Edit:
    def edit(model: mb.ModelBytes) -> bytes:
        model.metadata["version"] = version
        change(model)
        return model.to_bytes()

    return edit


def both(change) -> tuple[mb.Edit, mb.Edit]:
    return with_version("1", change), with_version("2", change)


def outputs(*entries):
    return lambda model: model.graph.update(outputs=list(entries))


def an_input(**keys):
    return lambda model: model.graph["inputs"][0].update(keys)


def a_node(name: str, **keys):
    return lambda model: model.node(name).update(keys)


def softmax_of(*shape: int, **params):
    """A second input of this shape, and its softmax."""

    def change(model: mb.ModelBytes) -> None:
        model.graph["inputs"].append({"name": "z", "shape": list(shape)})
        node = {"op": "softmax", "name": "last", "inputs": ["z"], "output": "last", **params}
        model.graph["nodes"].append({**node, "shape": list(shape)})

    return change


def concat_rows(model: mb.ModelBytes) -> None:
    node = {"op": "concat", "name": "tall", "inputs": ["x", "x"], "output": "t", "axis": 1}
    model.graph["nodes"].append({**node, "shape": [3, 16, 8]})


def text_of(number: str):
    """The model whose average pool has this text as its divisor."""

    def edit(model: mb.ModelBytes) -> bytes:
        model.metadata["version"] = "2"
        model.node("mean")["divisor"] = 123456789
        return model.to_bytes().replace(b"123456789", number.encode().rjust(9))

    return edit


# Taken in version 2, refused in version 1.
NEWER = {
    "dtype f32": an_input(dtype="f32"),
    "dtype u8": an_input(dtype="u8"),
    "named output": outputs({"name": "mine", "value": "k"}, "j"),
    "one value, two names": outputs({"name": "a", "value": "k"}, {"name": "b", "value": "k"}),
    "named as another value": outputs({"name": "j", "value": "k"}),
    "axis 0": a_node("prob", axis=0),
    "axis of concat": concat_rows,
    "rank 2": softmax_of(3, 4, axis=1),
    "rank 4": softmax_of(3, 4, 5, 6, axis=3),
    "rank 4 alone": softmax_of(3, 4, 5, 6),
    "divisor": a_node("mean", divisor=3),
    "largest divisor": a_node("mean", divisor=1 << 31),
    "uncounted 0": a_node("mean", uncounted=[0, 0]),
    "uncounted": a_node("mean", padding=[0, 0, 1, 1], uncounted=[1, 1]),
}


@pytest.mark.parametrize("name", NEWER)
def test_newer(name: str) -> None:
    """If this fails, one reader refuses what the writer writes, or what says version 1 is none."""
    old, new = both(NEWER[name])
    _core.check_bytes(new(mb.every_op()))
    read_bytes(new(mb.every_op()), "file")
    with pytest.raises(FormatError):
        _core.check_bytes(old(mb.every_op()))
    with pytest.raises(FormatError):
        read_bytes(old(mb.every_op()), "file")


REFUSED = {
    "version 3": with_version("3"),
    "version 02": with_version("02"),
    "unknown dtype": an_input(dtype="f16"),
    "dtype is a list": an_input(dtype=["u8"]),
    "rank 0": an_input(shape=[]),
    "rank 5": softmax_of(1, 1, 1, 1, 1),
    "2^32 elements": softmax_of(256, 256, 256, 256),
    "a side of 2^21": softmax_of(1, 1, 1, 1 << 21),
    "one value twice": outputs("k", "k"),
    "one name twice": outputs({"name": "a", "value": "k"}, {"name": "a", "value": "j"}),
    "a name that is an output": outputs("k", {"name": "k", "value": "j"}),
    "output without value": outputs({"name": "a"}),
    "output with more": outputs({"name": "a", "value": "k", "shape": [5]}),
    "name with a space": outputs({"name": "a b", "value": "k"}),
    "empty name": outputs({"name": "", "value": "k"}),
    "name too long": outputs({"name": "a" * 201, "value": "k"}),
    "value is nowhere": outputs({"name": "a", "value": "nowhere"}),
    "value is a number": outputs({"name": "a", "value": 1}),
    "axis past the rank": a_node("prob", axis=1),
    "axis 4": softmax_of(1, 1, 1, 1, axis=4),
    "axis below 0": a_node("prob", axis=-1),
    "axis is true": a_node("prob", axis=True),
    "axis is a list": a_node("prob", axis=[0]),
    "axis with fraction": a_node("prob", axis=0.0),
    "concat of other sides": a_node("join", axis=1),
    "divisor below 0": a_node("mean", divisor=-1),
    "divisor too large": a_node("mean", divisor=(1 << 31) + 1),
    "divisor is null": a_node("mean", divisor=None),
    "uncounted past the padding": a_node("mean", uncounted=[0, 1]),
    "uncounted below 0": a_node("mean", uncounted=[0, -1]),
    "uncounted of three": a_node("mean", uncounted=[0, 0, 0]),
    "uncounted as numbers": a_node("mean", uncounted=[0, 0.0]),
    "divisor of a max pool": a_node("pool", divisor=1),
    "unknown parameter": a_node("prob", dim=0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, a file that breaks a rule reaches the kernels, which trust it, or the readers
    have drifted apart."""
    edit = REFUSED[name]
    edit = edit if name.startswith("version") else with_version("2", edit)
    with pytest.raises(FormatError):
        _core.check_bytes(edit(mb.every_op()))
    with pytest.raises(FormatError):
        read_bytes(edit(mb.every_op()), "file")


def takes(check, data: bytes) -> bool:
    try:
        check(data)
    except FormatError:
        return False
    return True


@pytest.mark.parametrize(
    "number",
    [
        "3",
        "3.0",
        "3e0",
        "-0",
        "1e400",
        "NaN",
        "2147483649",
        "9223372036854775808",
        "0x3",
        "03",
        "+3",
    ],
)
def test_same_numbers(number: str) -> None:
    """If this fails, one reader takes a number that the other does not."""
    data = text_of(number)(mb.every_op())
    expected = number in ("3", "-0")
    assert takes(_core.check_bytes, data) == expected
    assert takes(lambda found: read_bytes(found, "file"), data) == expected


@pytest.mark.parametrize("array", [np.ones(4, "<f4"), np.ones((1, 1, 2, 2), "<f4")])
def test_tensors_of_ops_without_any(array: np.ndarray) -> None:
    """If this fails, a file holds numbers that nobody looks at."""

    def change(model: mb.ModelBytes) -> None:
        model.tensors["prob.scale"] = array

    data = with_version("2", change)(mb.every_op())
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["prob.scale"]
    assert not takes(_core.check_bytes, data)
    assert not takes(lambda found: read_bytes(found, "file"), data)
