"""What the engine's reader says to unary, prelu, affine, binary and constant nodes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from op_files import OpFile

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes

MAP = [4, 3, 5]


def unary(function: object, alpha: object = 0, beta: object = 0) -> OpFile:
    return OpFile("unary", [MAP], MAP, {"function": function, "alpha": alpha, "beta": beta})


def binary(a: list[int], b: list[int], shape: list[int], function: object = "mul") -> OpFile:
    return OpFile("binary", [a, b], shape, {"function": function})


def channels(op: str, *names: str, size: int = 4, dtype: str = "<f4") -> OpFile:
    return OpFile(op, [MAP], MAP, {}, {name: np.ones(size, dtype) for name in names})


def without(name: str, file: OpFile) -> OpFile:
    del file.params[name]
    return file


def valued(file: OpFile, name: str, value: float) -> OpFile:
    file.tensors[name][0] = value
    return file


def constant(shape: list[int], value: list[int]) -> OpFile:
    return OpFile("constant", [], shape, {}, {"value": np.ones(value, "<f4")})


def load(file: OpFile) -> None:
    _core.Engine.load_bytes(file.model().to_bytes(), "file", 1, "portable", 1)


ACCEPTED = [
    unary("clamp", -1, 6), unary("clamp", 6, -1),
    unary("softplus", 0.5, 1e30), unary("pow", 0), unary("threshold", -1e-3, 7),
    binary([1], [1], [1]), binary([5, 1], [1, 7], [5, 7]), binary(MAP, [1, 1, 1], MAP),
    binary([2, 1, 4, 1], [1, 3, 1, 5], [2, 3, 4, 5]), channels("prelu", "slope"),
    channels("affine", "scale", "shift"), constant([1], [1]), constant([2, 3, 4, 5], [2, 3, 4, 5]),
]  # fmt: skip


@pytest.mark.parametrize("file", ACCEPTED, ids=str)
def test_accepted(file: OpFile) -> None:
    """If this fails, files that the writer may write do not load."""
    load(file)


REFUSED: list[tuple[Callable[[], OpFile], str]] = [
    (lambda: unary("swish"), "unknown function 'swish'"),
    (lambda: unary(3), "parameter 'function' is not a string"),
    (lambda: unary("silu", 1), "alpha is not 0, but silu has no such number"),
    (lambda: unary("elu", 1, 0.5), "beta is not 0, but elu has no such number"),
    (lambda: unary("celu"), "alpha is 0, by which celu divides"),
    (lambda: unary("softplus", 0, 20), "alpha is 0, by which softplus divides"),
    (lambda: unary("elu", "1"), "parameter 'alpha' is not a number"),
    (lambda: unary("elu", True), "parameter 'alpha' is not a number"),
    (
        lambda: unary("elu", 1e39),
        "parameter 'alpha' is not true, false, a string or numbers that a float",
    ),
    (
        lambda: unary("clamp", 0, -1e39),
        "parameter 'beta' is not true, false, a string or numbers that a float",
    ),
    (lambda: without("beta", unary("silu")), "parameter 'beta' is missing"),
    (lambda: without("function", unary("silu")), "parameter 'function' is missing"),
    (lambda: OpFile("unary", [MAP, MAP], MAP, unary("exp").params), "does not take 2 inputs"),
    (lambda: OpFile("unary", [MAP], [4, 15], unary("exp").params), "declares the shape [4,15]"),
    (lambda: binary(MAP, MAP, MAP, "mod"), "unknown function 'mod'"),
    (lambda: binary(MAP, [4, 3, 4], MAP), "[4,3,5] and [4,3,4] do not go together"),
    (lambda: binary(MAP, [4], MAP), "[4,3,5] and [4] do not go together"),
    (lambda: binary([4, 1, 5], [1, 3, 1], [4, 1, 5]), "computes [4,3,5]"),
    (lambda: OpFile("binary", [MAP], MAP, {"function": "add"}), "does not take 1 inputs"),
    (lambda: channels("prelu"), "tensor 'node.slope' is missing"),
    (lambda: channels("prelu", "slope", size=1), "has shape [1], not [4]"),
    (lambda: channels("prelu", "slope", dtype="<u4"), "has dtype U32"),
    (lambda: valued(channels("prelu", "slope"), "slope", np.nan), "slope 0 is not a finite"),
    (lambda: channels("affine", "scale"), "tensor 'node.shift' is missing"),
    (lambda: channels("affine", "scale", "shift", "slope"), "'node.slope' belongs to no node"),
    (lambda: valued(channels("affine", "scale", "shift"), "shift", np.inf), "shift 0 is not a fin"),
    (lambda: constant([2, 3], [3, 2]), "has shape [3,2], not [2,3]"),
    (lambda: constant([2, 3], [6]), "has shape [6], not [2,3]"),
    (lambda: OpFile("constant", [[1]], [1], {}, {"value": np.ones(1, "<f4")}), "not take 1 inputs"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(make: Callable[[], OpFile], message: str) -> None:
    """If this fails, a wrong file loads, or its author is not told what is wrong with it."""
    with pytest.raises(FormatError, match=re.escape(message)):
        load(make())


@pytest.mark.parametrize(
    "file",
    [
        unary("silu", 1e-60),
        unary("elu", 1, -1e-60),
        OpFile("pad", [MAP], [4, 4, 5], {
            "before": [0, 1, 0], "after": [0, 0, 0], "mode": "reflect", "value": 1e-60}),
    ],
    ids=str,
)  # fmt: skip
def test_a_number_that_is_0_as_float32_is_not_0(file: OpFile) -> None:
    """If this fails, one of the two readers takes a file that the other refuses: FORMAT.md asks for
    the number 0."""
    content = file.model().to_bytes()
    with pytest.raises(FormatError, match="is not 0"):
        load(file)
    with pytest.raises(FormatError, match="is not 0"):
        read_bytes(content, "file")


@pytest.mark.parametrize("file", [unary("exp"), channels("prelu", "slope"), constant([1], [1])])
def test_not_in_version_1(file: OpFile) -> None:
    """If this fails, a file that says version 1 needs an engine of version 2."""
    model = file.model()
    model.metadata["version"] = "1"
    with pytest.raises(FormatError, match=f"unknown op '{file.op}'"):
        _core.Engine.load_bytes(model.to_bytes(), "file", 1, "portable", 1)
