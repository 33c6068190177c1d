"""The rules for normalizations, softmax, reductions, argmax and matmul: each mistake in a
parameter, shape or tensor is refused by both readers, by the engine's with a message that says what
is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_files import OpFile

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes

MAP = [6, 4, 5]


def _norm(count: int) -> dict[str, np.ndarray]:
    return {name: np.ones(count, "<f4") for name in ("scale", "shift")}


GROUP_NORM = OpFile("group_norm", [MAP], MAP, {"groups": 2, "eps": 1e-5}, _norm(6))
LAYER_NORM = OpFile("layer_norm", [MAP], MAP, {"axis": 1, "eps": 0}, _norm(4))
L2 = OpFile("l2_normalize", [MAP], MAP, {"axis": 2, "eps": 1e-12})
SOFTMAX = OpFile("softmax", [MAP], MAP, {"axis": 2})
LOG_SOFTMAX = OpFile("log_softmax", [MAP], MAP, {"axis": 0})
ARGMAX = OpFile("argmax", [MAP], [4, 5], {"axis": 0, "keepdim": False})
REDUCE = OpFile("reduce", [MAP], [4], {"function": "mean", "axes": [0, 2], "keepdim": False})
MATMUL = OpFile(
    "matmul", [[3, 4, 5], [1, 6, 5]], [3, 4, 6], {"transpose_a": False, "transpose_b": True}
)
VALID = [GROUP_NORM, LAYER_NORM, L2, SOFTMAX, LOG_SOFTMAX, ARGMAX, REDUCE, MATMUL]


def load(file: OpFile, version: str = "2") -> _core.Engine:
    model = file.model()
    model.metadata["version"] = version
    return _core.Engine.load_bytes(model.to_bytes(), "test", 1, "", 0)


@pytest.mark.parametrize("file", VALID, ids=str)
def test_valid(file: OpFile) -> None:
    """If this fails, the mistakes below may be refused for another reason than they should be."""
    load(file)
    read_bytes(file.model().to_bytes(), "test")


@pytest.mark.parametrize("file", [file for file in VALID if file is not SOFTMAX], ids=str)
def test_not_in_version_1(file: OpFile) -> None:
    """If this fails, a file says version 1 that older readers cannot read."""
    file = OpFile(file.op, [[4], [4]][: len(file.inputs)], [4], file.params, file.tensors)
    with pytest.raises(FormatError, match="unknown op|finite|whole numbers"):
        load(file, "1")


# The file, what is set, removed (None) or declared instead, and what the message must hold.
REFUSED: list[tuple[OpFile, dict[str, Any], str]] = [
    (GROUP_NORM, {"groups": 4}, "6 channels are not 4 equal groups"),
    (GROUP_NORM, {"groups": 0}, "'groups' holds 0"),
    (GROUP_NORM, {"groups": -2}, "'groups' holds -2"),
    (GROUP_NORM, {"groups": 2.0}, "'groups' is not a whole number"),
    (GROUP_NORM, {"groups": None}, "'groups' is missing"),
    (GROUP_NORM, {"eps": -1e-5}, "'eps' is negative"),
    (GROUP_NORM, {"eps": "1e-5"}, "'eps' is not a number"),
    (GROUP_NORM, {"eps": 1e39}, "numbers that a float holds"),
    (GROUP_NORM, {"axis": 0}, "unknown parameter 'axis'"),
    (GROUP_NORM, {"shape": [6, 5, 4]}, "declares the shape [6,5,4] but computes [6,4,5]"),
    (LAYER_NORM, {"axis": 3}, "axis 3 of an input [6,4,5]"),
    (LAYER_NORM, {"axis": 4}, "'axis' holds 4"),
    (LAYER_NORM, {"axis": -1}, "'axis' holds -1"),
    (LAYER_NORM, {"axis": True}, "'axis' is not a whole number"),
    (LAYER_NORM, {"axis": 0}, "tensor 'node.scale' has shape [4], not [6]"),
    (LAYER_NORM, {"eps": -1}, "'eps' is negative"),
    (L2, {"axis": 3}, "axis 3 of an input"),
    (L2, {"eps": -1e-30}, "'eps' is negative"),
    (L2, {"eps": None}, "'eps' is missing"),
    (SOFTMAX, {"axis": 3}, "axis 3 of an input"),
    (SOFTMAX, {"axis": [0]}, "'axis' is not a whole number"),
    (LOG_SOFTMAX, {"axis": 3}, "axis 3 of an input"),
    (LOG_SOFTMAX, {"axis": None}, "'axis' is missing"),
    (ARGMAX, {"axis": 3}, "axis 3 of an input"),
    (ARGMAX, {"keepdim": True}, "declares the shape [4,5] but computes [1,4,5]"),
    (ARGMAX, {"keepdim": 0}, "'keepdim' is not true or false"),
    (REDUCE, {"function": "max"}, "unknown function 'max'"),
    (REDUCE, {"axes": [2, 0]}, "axes are not ascending"),
    (REDUCE, {"axes": [0, 0, 2]}, "axes are not ascending"),
    (REDUCE, {"axes": [0, 3]}, "axis 3 of an input [6,4,5]"),
    (REDUCE, {"axes": []}, "'axes' has 0 numbers"),
    (REDUCE, {"axes": [0, 1, 2, 3, 4]}, "'axes' has 5 numbers"),
    (REDUCE, {"axes": [-1]}, "'axes' holds -1"),
    (REDUCE, {"axes": 0}, "'axes' is not a list of integers"),
    (REDUCE, {"keepdim": None}, "'keepdim' is missing"),
    (REDUCE, {"axes": [0, 1, 2]}, "computes [1]"),
    (MATMUL, {"transpose_b": False}, "multiplies [3,4,5] and [1,6,5]"),
    (MATMUL, {"transpose_a": True}, "multiplies [3,4,5] and [1,6,5]"),
    (MATMUL, {"transpose_a": 1}, "'transpose_a' is not true or false"),
    (MATMUL, {"inputs": ["x0"]}, "does not take 1 inputs"),
    (MATMUL, {"shape": [1, 4, 6]}, "computes [3,4,6]"),
]


@pytest.mark.parametrize(("file", "changes", "message"), REFUSED, ids=str)
def test_refused(file: OpFile, changes: dict[str, Any], message: str) -> None:
    """If this fails, a broken file loads, or its owner does not learn what is wrong with it."""
    model = file.model()
    node = model.node("node")
    for key, value in changes.items():
        node.pop(key, None)
        if value is not None:
            node[key] = value
    with pytest.raises(FormatError) as caught:
        _core.Engine.load_bytes(model.to_bytes(), "test", 1, "", 0)
    assert message in str(caught.value)
    assert "node 'node'" in str(caught.value)
    with pytest.raises(FormatError):
        read_bytes(model.to_bytes(), "test")


@pytest.mark.parametrize(
    ("a", "b"),
    [([4, 5], [1, 5, 6]), ([5], [5]), ([2, 4, 5], [3, 5, 6]), ([2, 3, 4, 5], [3, 2, 5, 6])],
    ids=str,
)
def test_matmul_of_other_ranks_and_sides(a: list[int], b: list[int]) -> None:
    """If this fails, a product reads beyond a matrix."""
    params = {"transpose_a": False, "transpose_b": False}
    with pytest.raises(FormatError, match="do not go together"):
        load(OpFile("matmul", [a, b], [2, 4, 6], params))


@pytest.mark.parametrize("file", [GROUP_NORM, LAYER_NORM], ids=str)
@pytest.mark.parametrize("name", ["scale", "shift"])
def test_tensors(file: OpFile, name: str) -> None:
    """If this fails, a normalization runs with numbers that are missing or not finite."""
    broken = {**file.tensors, name: np.where([True] + [False] * (len(file.tensors[name]) - 1),
                                             np.nan, 1).astype("<f4")}  # fmt: skip
    with pytest.raises(FormatError, match=f"{name} 0 is not a finite number"):
        load(OpFile(file.op, file.inputs, file.shape, file.params, broken))
    kept = {key: array for key, array in file.tensors.items() if key != name}
    with pytest.raises(FormatError, match=f"'node.{name}' is missing"):
        load(OpFile(file.op, file.inputs, file.shape, file.params, kept))
