"""The functions of ``unary`` and of ``binary`` against their references in double: accurate to some
units of the last place over all of float32, in every instruction set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from op_files import OpFile, check_exact, results

TABLE = Path(__file__).resolve().parents[3] / "csrc" / "ops" / "functions.h"

MAX = float(np.finfo(np.float32).max)
# Function, alpha, beta, and the largest error in units of the last place of the result.
FUNCTIONS = [
    ("clamp", -1.5, 2.25, 0), ("clamp", 2, -1, 0), ("clamp_min", -0.5, 0, 0),
    ("clamp_max", 0.75, 0, 0), ("leaky_relu", 0.125, 0, 0.5), ("elu", 1.5, 0, 1.6),
    ("celu", 0.75, 0, 2), ("celu", 0.25, 0, 2), ("selu", 0, 0, 2.6), ("silu", 0, 0, 3.2),
    ("gelu", 0, 0, 6), ("gelu_tanh", 0, 0, 3), ("mish", 0, 0, 3.8),
    ("softplus", 0.25, 4, 2.6), ("softplus", 1, 20, 1.8), ("softplus", -1.75, 3, 2.6),
    ("hardswish", 0, 0, 2.5), ("hardsigmoid", 0, 0, 1.5), ("sigmoid", 0, 0, 2.3),
    ("tanh", 0, 0, 2.6), ("exp", 0, 0, 1.2), ("log", 0, 0, 1), ("sqrt", 0, 0, 0.5),
    ("rsqrt", 0, 0, 1.6), ("reciprocal", 0, 0, 0.5), ("abs", 0, 0, 0), ("neg", 0, 0, 0),
    ("square", 0, 0, 0.5), ("pow", 3, 0, 0.51), ("pow", 2.5, 0, 0.51), ("pow", -1.75, 0, 0.51),
    ("pow", 0, 0, 0), ("threshold", 0.5, -2, 0), ("hardshrink", 0.5, 0, 0),
    ("hardshrink", -1, 0, 0), ("softshrink", 0.5, 0, 0.5), ("softshrink", -1, 0, 0.5),
    ("erf", 0, 0, 2.6), ("sin", 0, 0, 0.51), ("cos", 0, 0, 0.51), ("softsign", 0, 0, 1.6),
    ("log_sigmoid", 0, 0, 1.8), ("sign", 0, 0, 0),
]  # fmt: skip


def all_floats(count: int) -> np.ndarray:
    """float32 [1, count]: evenly spread over all bit patterns, so that every power of two, both
    signs, subnormals, infinities and NaNs are there, and then what functions have ends at."""
    bits = np.linspace(0, 2**32 - 1, count - 64).astype(np.uint32)
    edges = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, MAX, -MAX, 1e-45, -1e-45, 1, -1, 20, -3,
                      3, 88.72, 88.73, -87.33, -103.9, -104.1, -120, -1e20, 0.5, -0.5, 4.2e8,
                      -4.2e8, 1e9, 3.1415927, 16777216, -16777217, 2, -2, 0.99999994],
                     np.float32)  # fmt: skip
    return np.concatenate([bits.view(np.float32), np.resize(edges, 64)])[None]


def errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """In units of the last place of ``expected`` (float64); infinite where one of the two is NaN or
    infinite and the other is not."""
    exponent = np.frexp(np.where(np.isfinite(expected), expected, 1.0))[1]
    unit = np.ldexp(1.0, np.clip(exponent, -125, 128) - 24)
    # The first number that rounds to infinity stands for it.
    limit = MAX + np.ldexp(1.0, 103)
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.clip(found, -limit, limit) - np.clip(expected, -limit, limit)) / unit
    return np.where(np.isnan(found) | np.isnan(expected), np.inf, apart)


def check(file: OpFile, inputs: list[np.ndarray], bound: float) -> None:
    for what, found, expected in results(file, inputs):
        nan = np.isnan(expected)
        assert np.isnan(found[nan]).all(), f"{what}: a NaN is hidden"
        worst = errors(found[~nan], expected[~nan])
        place = int(worst.argmax())
        at = [float(x[~nan][place]) for x in np.broadcast_arrays(*inputs)]
        # The reference rounds to float too.
        assert worst[place] <= max(bound, 0.501), f"{what}: {worst[place]:.3g} units at {at}"


@pytest.mark.parametrize(("function", "alpha", "beta", "bound"), FUNCTIONS)
def test_accuracy(function: str, alpha: float, beta: float, bound: float) -> None:
    """If this fails, a function is less accurate than its file says, somewhere in float32, or hides
    a NaN."""
    x = all_floats(1 << 16)
    params = {"function": function, "alpha": alpha, "beta": beta}
    check(OpFile("unary", [x.shape[1:]], x.shape[1:], params), [x], bound)


def test_every_function_is_measured() -> None:
    """If this fails, a function was added whose accuracy no test knows."""
    rows = TABLE.read_text().split("KERNELPRUNE_BINARY_FUNCTIONS")[0].splitlines()
    in_engine = {row.split('"')[1] for row in rows if row.startswith("  ROW(")}
    assert in_engine == {name for name, *_ in FUNCTIONS}


@pytest.mark.parametrize(
    "function", ["add", "sub", "mul", "div", "minimum", "maximum", "pow", "mask"]
)
def test_binary_accuracy(function: str) -> None:
    """If this fails, a result of two numbers is not the rounded one, for numbers of any size, or a
    NaN of one of the two is hidden."""
    a, b = all_floats(1 << 14), all_floats(1 << 14)
    b = np.random.default_rng(0).permuted(b, axis=1)
    near = np.random.default_rng(1).uniform(-20, 20, (2, 1, 1 << 13)).astype(np.float32)
    near[1, :, ::4] = np.rint(near[1, :, ::4])
    a, b = np.concatenate([a, near[0]], 1), np.concatenate([b, near[1]], 1)
    file = OpFile("binary", [a.shape[1:], b.shape[1:]], a.shape[1:], {"function": function})
    check(file, [a, b], 0.51)


@pytest.mark.parametrize("side", [1, 3, 7, 8, 9, 15, 16, 17, 33])
def test_sizes(side: int) -> None:
    """If this fails, the last vector of a row is computed wrongly, or written behind its end."""
    for shape in ([side], [5, side], [3, 2, side], [2, 3, 2, side], [side, 1, 1]):
        check_exact(OpFile("unary", [shape], shape, {"function": "abs", "alpha": 0, "beta": 0}))
        rng = np.random.default_rng(side)
        tensors = {name: rng.integers(-4, 5, shape[0]).astype("<f4") for name in ("scale", "shift")}
        check_exact(OpFile("affine", [shape], shape, {}, tensors))
        check_exact(OpFile("prelu", [shape], shape, {}, {"slope": tensors["scale"]}))
        value = rng.standard_normal(shape).astype("<f4")
        check_exact(OpFile("constant", [], shape, {}, {"value": value}))


BROADCASTS = [
    ([7], [7]), ([7], [1]), ([1], [7]), ([5, 9], [5, 1]), ([5, 9], [1, 9]), ([5, 1], [1, 9]),
    ([6, 5, 7], [6, 1, 1]), ([6, 1, 1], [6, 5, 7]), ([6, 5, 7], [1, 5, 7]),
    ([6, 5, 7], [1, 1, 1]), ([6, 5, 7], [6, 5, 1]), ([6, 5, 7], [6, 1, 7]),
    ([6, 5, 7], [1, 1, 7]), ([6, 5, 1], [6, 1, 7]), ([6, 5, 1], [1, 1, 17]),
    ([1, 5, 7], [6, 1, 1]), ([33, 1, 1], [33, 1, 1]), ([3, 4, 4], [3, 4, 4]),
    ([2, 3, 4, 5], [2, 3, 4, 5]), ([2, 3, 4, 5], [1, 3, 1, 5]), ([2, 3, 4, 5], [2, 1, 4, 1]),
    ([2, 1, 4, 1], [1, 3, 1, 5]), ([2, 3, 1, 16], [2, 3, 4, 1]),
]  # fmt: skip


@pytest.mark.parametrize("function", ["sub", "maximum"])
@pytest.mark.parametrize(("a", "b"), BROADCASTS)
def test_broadcasting(a: list[int], b: list[int], function: str) -> None:
    """If this fails, a side of 1 is not repeated as numpy does, or the two values change places."""
    shape = [max(sides) for sides in zip(a, b, strict=True)]
    check_exact(OpFile("binary", [a, b], shape, {"function": function}), images=17)
