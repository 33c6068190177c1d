"""Every other operator on quantised values: with kernels for bytes, or between conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from int8_files import (
    Int8File,
    check_bits,
    check_file,
    engines,
    numbers_for,
    quantization,
    window,
)

A, B, OUT = quantization(0.031, 121), quantization(0.05, 3), quantization(0.087, 130)
MAP, VECTOR = [5, 6, 7], [37]


def op(
    name: str, inputs: Any, shape: Any, given: Any, result: Any = OUT, **params: Any
) -> Int8File:
    return Int8File(name, inputs, shape, params, {}, given, result)


def unary(function: str, alpha: float = 0, beta: float = 0, result: Any = OUT) -> Int8File:
    params = {"function": function, "alpha": alpha, "beta": beta}
    return Int8File("unary", [MAP], MAP, params, {}, [A], result)


def channels(name: str, shape: list[int], *tensors: str) -> Int8File:
    rng = np.random.default_rng(0)
    found = {each: rng.standard_normal(shape[0]).astype("<f4") for each in tensors}
    return Int8File(name, [shape], shape, {}, found, [A], OUT)


def pool(name: str, given: Any, result: Any, kernel: int = 3, **more: Any) -> Int8File:
    stride = more.pop("stride", 2)
    params = window((kernel, kernel), (stride, stride), (1, 1, 1, 1))
    if name == "avg_pool2d":
        del params["dilation"]
    side = [(s + 2 - kernel) // stride + 1 for s in (9, 12)]
    return Int8File(name, [[4, 9, 12]], [4, *side], params | more, {}, given, result)


def moved(name: str, shape: Any, result: Any = A, source: Any = MAP, **params: Any) -> Int8File:
    return Int8File(name, [source], shape, params, {}, [A], result)


def index_of(count: int, below: int) -> dict[str, np.ndarray]:
    return {"index": np.random.default_rng(0).integers(0, below, count).astype("<u4")}


PAD = {"before": [0, 1, 2], "after": [1, 0, 3]}
EXACT = [
    *[
        op("add", [shape, shape], shape, [A, B], activation=activation)
        for shape in (MAP, VECTOR)
        for activation in ("none", "relu", "relu6")
    ],
    op("add", [MAP, MAP], MAP, [A, A], A, activation="none"),
    op("binary", [MAP, MAP], MAP, [A, B], function="add"),
    op("binary", [MAP, MAP], MAP, [A, B], function="mul"),
    op("binary", [VECTOR, VECTOR], VECTOR, [A, B], function="mul"),
    op("binary", [MAP, [5, 1, 1]], MAP, [A, B], function="mul"),
    op("binary", [[5, 1, 1], MAP], MAP, [A, B], function="add"),
    op("binary", [[5, 6, 1], [1, 1, 7]], MAP, [A, B], function="mul"),
    unary("silu"), unary("sigmoid"), unary("log"), unary("rsqrt"), unary("hardswish"),
    unary("clamp", -1, 2), unary("gelu", result=A),
    op("activation", [MAP], MAP, [A], activation="relu"),
    op("activation", [VECTOR], VECTOR, [A], activation="relu6"),
    channels("prelu", MAP, "slope"), channels("prelu", VECTOR, "slope"),
    channels("affine", MAP, "scale", "shift"), channels("affine", [9, 1, 1], "scale", "shift"),
    pool("max_pool2d", [A], A), pool("max_pool2d", [A], OUT), pool("max_pool2d", [A], A, stride=1),
    pool("avg_pool2d", [A], OUT, count_include_pad=True),
    pool("avg_pool2d", [A], OUT, count_include_pad=False),
    pool("avg_pool2d", [A], OUT, stride=1, count_include_pad=False),
    pool("avg_pool2d", [A], None, count_include_pad=False),
    pool("avg_pool2d", [A], OUT, count_include_pad=False, divisor=7),
    pool("avg_pool2d", [A], OUT, count_include_pad=True, uncounted=[1, 0]),
    op("global_avg_pool", [MAP], [5, 1, 1], [A]),
    op("global_avg_pool", [[3, 17, 19]], [3, 1, 1], [A]),
    op("global_avg_pool", [MAP], [5, 1, 1], [A], None),
    op("concat", [MAP, [2, 6, 7]], [7, 6, 7], [A, A], A),
    op("concat", [MAP, [2, 6, 7]], [7, 6, 7], [A, B], OUT),
    op("concat", [MAP, [5, 2, 7]], [5, 8, 7], [A, B], OUT, axis=1),
    op("concat", [MAP, [5, 6, 1]], [5, 6, 8], [A, B], OUT, axis=2),
    op("concat", [[5, 1, 1], [5, 1, 1]], [5, 1, 2], [A, B], OUT, axis=2),
    op("concat", [VECTOR, [3], VECTOR], [77], [A, B, A], OUT),
    moved("flatten", [210]), moved("flatten", [210], OUT), moved("flatten", [9], A, [9, 1, 1]),
    moved("reshape", [7, 5, 6]), moved("reshape", [5, 42], OUT), moved("reshape", [210]),
    moved("reshape", [37, 1, 1], A, VECTOR), moved("reshape", [1, 37], OUT, VECTOR),
    moved("reshape", [3, 7, 5, 2], OUT),
    moved("permute", [7, 5, 6], OUT, axes=[2, 0, 1]), moved("permute", [5, 7, 6], axes=[0, 2, 1]),
    moved("slice", [2, 6, 7], axis=0, start=1, stop=3, step=1),
    moved("slice", [2, 6, 7], OUT, axis=0, start=1, stop=3, step=1),
    moved("slice", [3, 6, 7], axis=0, start=0, stop=5, step=2),
    moved("slice", [5, 6, 3], axis=2, start=1, stop=7, step=2),
    moved("slice", [11], A, VECTOR, axis=0, start=20, stop=31, step=1),
    moved("expand", [5, 6, 7], OUT, [5, 1, 7]), moved("expand", [5, 3, 2], A, [5, 1, 1]),
    moved("pad", [6, 7, 12], mode="constant", value=0, **PAD),
    moved("pad", [6, 7, 12], OUT, mode="constant", value=-1.5, **PAD),
    moved("pad", [6, 7, 12], OUT, mode="replicate", value=0, **PAD),
    moved("depth_to_space", [2, 4, 6], A, [8, 2, 3], block=2),
    moved("space_to_depth", [20, 3, 4], OUT, [5, 6, 8], block=2),
    moved("resize", [5, 12, 14], mode="nearest", align_corners=False, scale=[2, 2]),
    moved("resize", [5, 3, 9], OUT, mode="nearest_exact", align_corners=False, scale=[0, 0]),
    moved("resize", [2, 3, 601], OUT, [2, 2, 300], mode="nearest", align_corners=False,
          scale=[0, 0]),
    Int8File("gather", [MAP], [9, 6, 7], {"axis": 0}, index_of(9, 5), [A], OUT),
    Int8File("gather", [MAP], [5, 6, 3], {"axis": 2}, index_of(3, 7), [A], A),
    # Between conversions, but exact all the same.
    op("binary", [MAP, MAP], MAP, [A, B], function="maximum"),
    op("binary", [MAP, MAP], MAP, [A, None], function="add"),
    op("add", [MAP, MAP], MAP, [None, B], None, activation="relu"),
    op("activation", [MAP], MAP, [None], OUT, activation="relu"),
    unary("abs", result=None),
    pool("max_pool2d", [A], None), pool("max_pool2d", [None], OUT),
    moved("flatten", [210], None),
    op("concat", [MAP, [2, 6, 7]], [7, 6, 7], [A, None], OUT),
    op("reduce", [MAP], [5, 1, 1], [A], A, function="amax", axes=[1, 2], keepdim=True),
    op("argmax", [MAP], [6, 7], [A], None, axis=0, keepdim=False),
    Int8File("constant", [], MAP, {}, {"value": np.linspace(-9, 9, 210, dtype="<f4").reshape(MAP)},
             [], OUT),
]  # fmt: skip


@pytest.mark.parametrize("file", EXACT, ids=str)
def test_exact(file: Int8File) -> None:
    """If this fails, an operator makes other bytes of bytes than the format says, or reads them
    where they are not."""
    check_file(file)


def test_pool_that_sees_nothing() -> None:
    """If this fails, a window with no tap inside the map gives byte 0 of the input, which may be
    another number than the least of the output."""
    params = window((2, 2), (1, 1), (3, 3, 3, 3), (3, 3))
    for result in (A, OUT):
        check_file(Int8File("max_pool2d", [[2, 1, 2]], [2, 4, 5], params, {}, [A], result))


ROUNDED = [
    op("softmax", [VECTOR], VECTOR, [A], quantization(1 / 256, 0)),
    moved("resize", [5, 12, 14], mode="bilinear", align_corners=False, scale=[2, 2]),
    op("matmul", [[6, 7], [7, 5]], [6, 5], [A, B], quantization(1, 120), transpose_a=False,
       transpose_b=False),
    op("reduce", [MAP], [5], [A], A, function="mean", axes=[1, 2], keepdim=False),
    op("binary", [MAP, MAP], MAP, [A, B], function="div"),
]  # fmt: skip


@pytest.mark.parametrize("file", ROUNDED, ids=str)
def test_within_one_step(file: Int8File) -> None:
    """If this fails, an operator without kernels for bytes reads or writes them wrongly: floats may
    round to the next byte, no further."""
    inputs = numbers_for(file, 3)
    for what, engine in engines(file.model().to_bytes()):
        found, right = engine.run(inputs)[0], engine.run_reference(inputs)[0]
        finite = np.isfinite(right)
        assert (np.abs(found - right)[finite] <= 1.01 * file.result["scale"]).all(), what


@pytest.mark.parametrize("shape", [MAP, VECTOR, [3, 1, 1], [2, 3, 4, 5], [1, 8, 8]])
@pytest.mark.parametrize("dtype", ["f32", "u8"])
def test_inputs_and_outputs(shape: list[int], dtype: str) -> None:
    """If this fails, the engine quantises the user's numbers otherwise than the format says, takes
    bytes for numbers, or gives bytes back."""
    file = op("flatten", [shape], [int(np.prod(shape))], [A], A)
    file.dtypes = [dtype]
    for images in (1, 3, 17):
        check_file(file, images)


def test_numbers_that_are_no_bytes() -> None:
    """If this fails, infinities, NaN or halves become other bytes."""
    numbers = [np.inf, -np.inf, np.nan, 0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, 1e-30, -0.0]
    for zero_point in (0, 3, 128, 255):
        kind = quantization(1, zero_point)
        file = op("flatten", [[12]], [12], [kind], kind)
        check_bits(file.model().to_bytes(), [np.array([numbers], np.float32)])
