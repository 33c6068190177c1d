"""What both readers say to quantised values and to layers of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from int8_files import Int8File, integer_layer, quantization, window

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes

BYTES = quantization(0.02, 128)
CONV = window((3, 3), padding=(1, 1, 1, 1)) | {"activation": "relu"}


def layer() -> Int8File:
    """A conv2d of 3 to 4 channels on a map of 5x6, all of it quantised."""
    rng = np.random.default_rng(0)
    kept = rng.random((4, 3)) < 0.8
    tensors = integer_layer(kept, (3, 3), rng)
    return Int8File("conv2d", [[3, 5, 6]], [4, 5, 6], CONV, tensors, [BYTES], BYTES)


def linear() -> Int8File:
    rng = np.random.default_rng(0)
    tensors = integer_layer(np.ones((2, 5), bool), (1, 1), rng)
    return Int8File("linear", [[5]], [2], {"activation": "none"}, tensors, [BYTES], None)


def add(a: dict[str, Any] | None, b: dict[str, Any] | None, result: Any) -> Int8File:
    """The sum of two maps."""
    params = {"activation": "none"}
    return Int8File("add", [[2, 3, 4]] * 2, [2, 3, 4], params, {}, [a, b], result)


def with_result(**changes: Any) -> Int8File:
    """A sum whose quantization has other entries; None takes one away."""
    found = {**BYTES, **changes}
    return add(None, None, {key: value for key, value in found.items() if value is not None})


def with_input(**changes: Any) -> Int8File:
    return add({**BYTES, **changes}, None, None)


def with_tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Int8File:
    file = layer()
    file.tensors[name] = change(file.tensors[name].copy())
    return file


def with_entry(name: str, value: float, index: int = 0) -> Int8File:
    file = layer()
    file.tensors[name].reshape(-1)[index] = value
    return file


def with_given(file: Int8File, *given: Any) -> Int8File:
    file.given = given
    return file


def without(name: str) -> Int8File:
    file = layer()
    del file.tensors[name]
    return file


def full_row(bias: int) -> Int8File:
    """A linear layer with one output, whose sums may reach |bias| + 255 * 2 * 127."""
    tensors = {
        "row_ptr": np.array([0, 2], "<u4"),
        "col": np.array([0, 1], "<u2"),
        "weight": np.array([-127, 127], "<i1").reshape(2, 1, 1),
        "scale": np.ones(1, "<f4"),
        "bias": np.array([bias], "<i4"),
    }
    return Int8File("linear", [[2]], [1], {"activation": "none"}, tensors, [BYTES], None)


def floats(given: dict[str, Any] | None) -> Int8File:
    """A layer of float32 weights between values of either kind."""
    file = with_given(layer(), given)
    file.tensors = {
        "row_ptr": file.tensors["row_ptr"],
        "col": file.tensors["col"],
        "weight": file.tensors["weight"].astype("<f4"),
        "bias": file.tensors["bias"].astype("<f4"),
    }
    return file


MOST = (1 << 31) - 1 - 255 * 2 * 127

ACCEPTED: dict[str, Int8File] = {
    "layer of integers": layer(),
    "linear layer of integers": linear(),
    "float32 weights between bytes": floats(BYTES),
    "float32 weights, bytes made of the result": floats(None),
    "sums of bytes": add(BYTES, BYTES, BYTES),
    "bytes and numbers": add(BYTES, None, BYTES),
    "least scale": with_result(scale=2.0**-40),
    "largest scale": with_result(scale=2.0**40),
    "whole scale": with_result(scale=1),
    "scale that is no float32": with_result(scale=0.1),
    "zero point 0": with_result(zero_point=0),
    "zero point 255": with_result(zero_point=255),
    "largest sum": full_row(MOST),
    "largest sum below 0": full_row(-MOST),
    "least weight": with_entry("weight", -127),
    "least scale of weights": with_entry("scale", 2.0**-40),
    "no connections": with_given(
        Int8File(
            "linear",
            [[5]],
            [2],
            {"activation": "none"},
            integer_layer(np.zeros((2, 5), bool), (1, 1), np.random.default_rng(0)),
        ),
        BYTES,
    ),
    "wide columns": with_tensor("col", lambda col: col.astype("<u4")),
}

REFUSED: dict[str, Int8File] = {
    "scale 0": with_result(scale=0),
    "scale below 0": with_result(scale=-0.5),
    "scale NaN": with_result(scale=float("nan")),
    "scale infinite": with_result(scale=float("inf")),
    "scale beyond double": with_result(scale=10**400),
    "scale denormal": with_result(scale=1e-40),
    "scale below 2^-40": with_result(scale=2.0**-40 * (1 - 2.0**-50)),
    "scale above 2^40": with_result(scale=2.0**40 + 1),
    "scale is text": with_result(scale="1"),
    "scale is true": with_result(scale=True),
    "scale is null": add(None, None, {"scale": None, "zero_point": 0}),
    "scale is a list": with_result(scale=[0.5]),
    "scale is missing": with_result(scale=None),
    "zero point below 0": with_result(zero_point=-1),
    "zero point 256": with_result(zero_point=256),
    "zero point of 2^64": with_result(zero_point=1 << 64),
    "zero point with fraction": with_result(zero_point=1.0),
    "zero point is true": with_result(zero_point=True),
    "zero point is missing": with_result(zero_point=None),
    "unknown key": with_result(axis=0),
    "quantization is a list": add(None, None, [0.5, 0]),
    "quantization is a number": add(None, None, 0.5),
    "input: scale 0": with_input(scale=0),
    "input: zero point 256": with_input(zero_point=256),
    "input: unknown key": with_input(axis=0),
    "input: quantization is text": with_given(add(None, None, None), "u8"),
    "integers of numbers": with_given(layer(), None),
    "integers of numbers, in a linear layer": with_given(linear(), None),
    "weight -128": with_entry("weight", -128),
    "last weight -128": with_entry("weight", -128, -1),
    "weights of 16 bits": with_tensor("weight", lambda weight: weight.astype("<u2")),
    "weights without sign": with_tensor("weight", lambda weight: weight.view("|u1")),
    "weights of another shape": with_tensor("weight", lambda weight: weight[:-1]),
    "sum too large": full_row(MOST + 1),
    "sum too large, below 0": full_row(-MOST - 1),
    "bias -2^31": with_entry("bias", -(1 << 31)),
    "bias of floats": with_tensor("bias", lambda bias: bias.astype("<f4")),
    "bias without sign": with_tensor("bias", lambda bias: bias.view("<u4")),
    "bias of another shape": with_tensor("bias", lambda bias: bias[:-1]),
    "no bias": without("bias"),
    "no scale of weights": without("scale"),
    "scale of weights 0": with_entry("scale", 0.0),
    "scale of weights below 0": with_entry("scale", -1.0),
    "scale of weights NaN": with_entry("scale", np.nan, -1),
    "scale of weights infinite": with_entry("scale", np.inf),
    "scale of weights denormal": with_entry("scale", 1e-40),
    "scale of weights of another shape": with_tensor("scale", lambda scale: scale[:1]),
    "scale of weights as integers": with_tensor("scale", lambda scale: scale.view("<i4")),
}


def with_spare_scale() -> Int8File:
    file = floats(BYTES)
    file.tensors["scale"] = np.ones(4, "<f4")
    return file


REFUSED["scale beside float32 weights"] = with_spare_scale()


def verdicts(data: bytes) -> list[str]:
    """What the engine's reader and the Python reader say; empty: they take it."""
    said = []
    for read in (_core.check_bytes, lambda found: read_bytes(found, "<bytes>")):
        try:
            read(data)
            said.append("")
        except FormatError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    """If this fails, files that the writer may write do not load."""
    assert verdicts(ACCEPTED[name].model().to_bytes()) == ["", ""]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, a scale or a sum reaches the kernels that is none, or overflows there."""
    for message in verdicts(REFUSED[name].model().to_bytes()):
        assert message.startswith("<bytes>: ")
        assert "\n" not in message


@pytest.mark.parametrize("name", ["layer of integers", "sums of bytes", "linear layer of integers"])
def test_version_1_has_none(name: str) -> None:
    """If this fails, a file says version 1, and older readers take its bytes for numbers."""
    model = ACCEPTED[name].model()
    model.metadata["version"] = "1"
    assert all(verdicts(model.to_bytes()))
