"""Operators other than convolutions on the emulated CUDA device, in float32 and in half
precision."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from op_files import OpFile
from runtime.operators import (
    test_functions as functions,
    test_matmul as products,
    test_movement as movement,
    test_normalizations as normalizations,
    test_reductions as reductions,
    test_sampling as sampling,
)

from kernelprune import _core
from kernelprune.errors import Error

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("strict", "half")


def run(
    file: OpFile, precision: str, inputs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, str]:
    """What the device gives, what the reference gives, and the kernel's name."""
    engine = _core.Engine.load_bytes(
        file.model().to_bytes(), str(file), 1, "", 0, precision, device="cuda-emulated"
    )
    kernel = engine.layers(len(inputs[0]))[0].kernel
    return engine.run(inputs)[0], engine.run_reference(inputs)[0], kernel


def check_exact(file: OpFile, precision: str, images: int = 2) -> None:
    found, expected, _ = run(file, precision, file.batch(images, integers=True))
    assert np.array_equal(found, expected.astype(np.float32))


def check_close(
    file: OpFile, precision: str, bound: float = 1e-6, inputs: list[np.ndarray] | None = None
) -> None:
    """The largest error is at most ``bound`` times the largest of the expected values; 5e-3 in half
    precision."""
    found, expected, _ = run(file, precision, file.batch(2) if inputs is None else inputs)
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error <= (5e-3 if precision == "half" else bound)


def small(files: list[OpFile]) -> list[OpFile]:
    """Those with few elements: the emulator runs every thread."""
    return [file for file in files if max(np.prod(s) for s in [*file.inputs, file.shape]) < 1000]


# --- movement ------------------------------------------------------------------------------------

MOVES = [file for tables in ("_slices", "_permutes", "_pads", "_others")
         for file in getattr(movement, tables)()]  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("file", small(MOVES), ids=str)
def test_moves(file: OpFile, precision: str) -> None:
    """If this fails, an operator takes an entry from another place, or leaves a gap, which in half
    precision are the ends of rows of odd length."""
    check_exact(file, precision)


def test_a_reshape_that_moves_nothing_has_no_step() -> None:
    """If this fails, a reshape costs a launch and memory, where the elements lie as they should."""
    for precision, shapes in [("strict", [(3, 5, 7), (105,)]), ("half", [(3, 5, 7), (15, 7)])]:
        file = OpFile("reshape", [shapes[0]], shapes[1])
        assert run(file, precision, file.batch(1))[2] == ""


# --- functions of elements -----------------------------------------------------------------------

FUNCTIONS = ROOT / "csrc" / "ops" / "functions.h"
# Of the rows of one function the first.
NUMBERS = {name: (alpha, beta) for name, alpha, beta, _ in reversed(functions.FUNCTIONS)}
POSITIVE = ("log", "sqrt", "rsqrt", "reciprocal")


def words(table: str) -> list[str]:
    """The functions of KERNELPRUNE_<table>_FUNCTIONS."""
    text = FUNCTIONS.read_text().split(f"KERNELPRUNE_{table}_FUNCTIONS")[1].split("#define")[0]
    return re.findall(r'ROW\(\w+, "(\w+)"', text)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("function", words("UNARY"))
def test_unary(function: str, precision: str) -> None:
    """If this fails, a function of one element is another on a GPU, is not near 0 what it should
    be, hides a NaN, or spoils what pads a row."""
    alpha, beta = NUMBERS[function]
    params = {"function": function, "alpha": alpha, "beta": beta}
    file = OpFile("unary", [(3, 2, 5)], (3, 2, 5), params)
    points = np.concatenate([np.linspace(-6, 6, 29), [np.nan], np.geomspace(1e-3, 25, 15),
                             -np.geomspace(1e-3, 25, 15)])  # fmt: skip
    x = np.resize(np.abs(points) + 0.01 if function in POSITIVE else points, (2, 3, 2, 5))
    found, expected, _ = run(file, precision, [x.astype(np.float32)])
    nan = np.isnan(x)
    assert np.isnan(found[nan]).all()
    rtol, atol = (4e-3, 3e-3) if precision == "half" else (2e-6, 1e-30)
    if precision == "half" and function == "exp":
        rtol, expected = 2e-2, np.where(expected > 65504, np.inf, expected)  # of the rounded x
    np.testing.assert_allclose(found[~nan], expected[~nan], rtol=rtol, atol=atol)


BROADCASTS = [((3, 2, 5), (3, 2, 5)), ((3, 2, 5), (3, 1, 1)), ((1, 2, 5), (3, 2, 1)),
              ((3, 1, 5), (1, 4, 1)), ((7,), (1,)), ((3, 5), (1, 5)), ((3, 5), (3, 1)),
              ((2, 3, 4, 5), (2, 1, 4, 1)), ((2, 3, 1, 5), (1, 3, 4, 1)),
              ((2, 3, 4, 1), (1, 1, 1, 5))]  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("first", "second"), BROADCASTS, ids=str)
def test_broadcasting(first: tuple[int, ...], second: tuple[int, ...], precision: str) -> None:
    """If this fails, an operand of side 1 is not repeated, or another is."""
    shape = np.broadcast_shapes(first, second)
    check_exact(OpFile("binary", [first, second], shape, {"function": "sub"}), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("function", words("BINARY"))
def test_binary(function: str, precision: str) -> None:
    """If this fails, a function of two elements is another on a GPU, or hides a NaN."""
    file = OpFile("binary", [(3, 2, 5), (3, 2, 5)], (3, 2, 5), {"function": function})
    a, b = file.batch(2)
    a, b = (np.abs(a), b) if function == "pow" else (a, b + np.sign(b))
    a[0, 0, 0, 0], b[0, 0, 0, 1] = np.nan, np.nan
    found, expected, _ = run(file, precision, [a, b])
    rtol, atol = (6e-3, 3e-3) if precision == "half" else (1e-6, 0)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(5,), (3, 7), (4, 3, 5), (2, 3, 4, 5)], ids=str)
def test_numbers_of_channels(shape: tuple[int, ...], precision: str) -> None:
    """If this fails, a channel has the slope, scale or shift of another, or an image another
    constant than the first."""
    rng = np.random.default_rng(1)
    numbers = [rng.integers(-4, 5, shape[0]).astype("<f4") for _ in range(2)]
    check_exact(OpFile("prelu", [shape], shape, {}, {"slope": numbers[0]}), precision)
    tensors = dict(zip(("scale", "shift"), numbers, strict=True))
    check_exact(OpFile("affine", [shape], shape, {}, tensors), precision)
    value = rng.integers(-9, 9, shape).astype("<f4")
    check_exact(OpFile("constant", [], shape, {}, {"value": value}), precision)


# --- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("file", [*sampling.RESIZES, *sampling.ADAPTIVE], ids=str)
def test_sampling_of_maps(file: OpFile, precision: str) -> None:
    """If this fails, a sample or a window is made of other pixels or weights than it should be."""
    check_close(file, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_adaptive_pools_keep_a_nan(precision: str) -> None:
    """If this fails, a pool of windows hides a NaN."""
    for kind in ("avg", "max"):
        file = OpFile(f"adaptive_{kind}_pool2d", [(2, 5, 7)], (2, 2, 3), {"size": [2, 3]})
        x = file.batch(1)
        x[0][0, 0, 2, 2] = np.nan
        found, expected, _ = run(file, precision, x)
        assert np.isnan(expected).any()
        assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "params",
    [{"divisor": 5}, {"uncounted": [1, 0]}, {"uncounted": [1, 1]}],
    ids=str,
)
def test_divisors_of_average_pools(params: dict, precision: str) -> None:
    """If this fails, an average over a window is divided by another number than the file says."""
    window = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 2, 2]}
    file = OpFile("avg_pool2d", [(2, 6, 5)], (2, 4, 3),
                  {**window, "count_include_pad": True, **params})  # fmt: skip
    check_close(file, precision)


# --- rows ----------------------------------------------------------------------------------------

ROW_SHAPES = [(7,), (70,), (5, 9), (3, 40), (3, 1, 1), (6, 5, 7), (4, 3, 16), (3, 4, 2, 5),
              (2, 3, 7, 1)]  # fmt: skip
AXES = [(shape, axis) for shape in ROW_SHAPES for axis in range(len(shape))]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
def test_rows_along_an_axis(shape: tuple[int, ...], axis: int, precision: str) -> None:
    """If this fails, a normalization or softmax takes other elements together than those along the
    axis, or gives one the scale of another."""
    check_close(normalizations._layer_norm(shape, axis), precision, 4e-6)
    for op in ("l2_normalize", "softmax", "log_softmax"):
        check_close(normalizations._along(op, shape, axis), precision, 4e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((6,), 2), ((6, 5), 3), ((6, 5, 7), 2), ((6, 5, 7), 6), ((6, 5, 7), 1), ((4, 3, 8), 2),
     ((4, 3, 2, 5), 2)], ids=str,
)  # fmt: skip
def test_group_norm(shape: tuple[int, ...], groups: int, precision: str) -> None:
    """If this fails, a group has the mean or a channel the scale of another, or what pads the rows
    counts."""
    check_close(normalizations._group_norm(shape, groups), precision, 4e-6)


REDUCED = [((7,), (0,)), ((70,), (0,)), ((5, 9), (0,)), ((5, 9), (1,)), ((5, 9), (0, 1)),
           *[((6, 5, 7), axes) for axes in reductions.axes_of((6, 5, 7))],
           *[((2, 3, 4, 5), axes) for axes in reductions.axes_of((2, 3, 4, 5))]]  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("shape", "axes"), REDUCED, ids=str)
def test_reductions_along_axes(shape, axes, precision: str) -> None:
    """If this fails, a reduction takes other elements together than those along the axes, or puts
    the result into another place."""
    for keep in (False, True):
        check_exact(reductions._reduce(shape, axes, "sum", keep), precision)
        if len(axes) == 1:
            check_exact(reductions._argmax(shape, axes[0], keep), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("function", reductions.FUNCTIONS)
def test_reductions(function: str, precision: str) -> None:
    """If this fails, a reduction computes another function than that of its name, or hides a
    NaN."""
    file = reductions._reduce((3, 4, 37), (2,), function, False)
    check_close(file, precision)
    x = file.batch(2)
    x[0][0, 1, 2, 35] = np.nan
    found, expected, _ = run(file, precision, x)
    assert np.isnan(expected).sum() == 1
    assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_argmax_takes_the_first(precision: str) -> None:
    """If this fails, argmax of equal elements, of NaNs or of minus infinities is not the first."""
    file = reductions._argmax((6, 40), 1, False)
    x = np.zeros((1, 6, 40), np.float32)
    x[0, 0, [3, 35]] = 2
    x[0, 1, [38, 5]] = np.nan
    x[0, 2] = -np.inf
    x[0, 3, 39] = np.inf
    x[0, 4, :39] = -1
    found, expected, _ = run(file, precision, [x])
    assert found[0].tolist() == expected[0].tolist() == [3, 5, 0, 39, 39, 0]


def test_rows_of_one_thread() -> None:
    """If this fails, many rows whose elements lie apart, which a thread takes each, are computed
    wrongly."""
    shape = (3, 66, 65)
    layer_norm = normalizations._layer_norm(shape, 0)
    softmax = normalizations._along("softmax", shape, 0)
    argmax = reductions._argmax(shape, 0, False)
    norm = reductions._reduce(shape, (0,), "l2", False)
    for file, precision in [(layer_norm, "strict"), (layer_norm, "half"), (softmax, "half"),
                            (argmax, "strict"), (norm, "strict")]:  # fmt: skip
        if file is argmax:
            check_exact(file, precision)
        else:
            check_close(file, precision, 4e-6)


# --- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("transposes", products.TRANSPOSES, ids=str)
def test_products(transposes: tuple[bool, bool], precision: str) -> None:
    """If this fails, a product of whole numbers is wrong, with a matrix that is read as it lies or
    as if it were transposed."""
    for leading in ((), (3,), (2, 3)):
        for rows, depth, columns in ((1, 7, 5), (5, 3, 8), (4, 9, 3)):
            file = products._matmul((*leading, rows, depth), (*leading, depth, columns),
                                       *transposes)  # fmt: skip
            check_exact(file, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("leading", products.LEADING, ids=str)
def test_matrices_are_repeated(leading, precision: str) -> None:
    """If this fails, a matrix that multiplies several is not the same for all of them."""
    first, second = leading
    file = products._matmul((*first, 3, 4), (*second, 4, 5), transpose_b=True)
    check_exact(file, precision)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["unary", "slice", "softmax"])
def test_images_beyond_32_bits_are_refused(op: str) -> None:
    """If this fails, places in an image overflow, and a kernel reads and writes anywhere."""
    shape = (2048, 1024, 1024)
    params = {"unary": {"function": "exp", "alpha": 0, "beta": 0}, "softmax": {"axis": 2},
              "slice": {"axis": 0, "start": 0, "stop": 2048, "step": 1}}[op]  # fmt: skip
    model = OpFile(op, [shape], shape, params).model().to_bytes()
    with pytest.raises(Error, match=r"'node' is too large for one launch: run .* device=\"cpu\""):
        _core.Engine.load_bytes(model, "f", 1, "", 0, "strict", device="cuda-emulated")
