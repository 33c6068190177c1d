"""reduce and argmax, against the reference and, for what they mean, torch."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from op_files import OpFile, check_close, check_exact, results

FUNCTIONS = ("mean", "sum", "amax", "amin", "l2")
SHAPES = [(1,), (7,), (33,), (5, 9), (3, 40), (6, 5, 7), (4, 3, 16), (33, 1, 2), (3, 4, 5, 17),
          (2, 3, 8, 1)]  # fmt: skip


def reduced(shape: tuple[int, ...], axes: tuple[int, ...], keepdim: bool) -> list[int]:
    """The shape of the result."""
    if keepdim:
        return [1 if axis in axes else side for axis, side in enumerate(shape)]
    return [side for axis, side in enumerate(shape) if axis not in axes] or [1]


def _reduce(shape: tuple[int, ...], axes: tuple[int, ...], function: str, keep: bool) -> OpFile:
    params = {"function": function, "axes": list(axes), "keepdim": keep}
    return OpFile("reduce", [shape], reduced(shape, axes, keep), params)


def _argmax(shape: tuple[int, ...], axis: int, keep: bool) -> OpFile:
    params = {"axis": axis, "keepdim": keep}
    return OpFile("argmax", [shape], reduced(shape, (axis,), keep), params)


def torch_result(file: OpFile, x: np.ndarray) -> np.ndarray:
    """By torch in float64."""
    values = torch.from_numpy(x).double()
    if file.op == "argmax":
        found = values.argmax(file.params["axis"] + 1).double()
    else:
        name = file.params["function"]
        function = torch.linalg.vector_norm if name == "l2" else getattr(torch, name)
        found = function(values, dim=[axis + 1 for axis in file.params["axes"]])
    return found.reshape(len(x), *file.shape).numpy()


def axes_of(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every choice of axes but none."""
    counts = range(1, len(shape) + 1)
    return [axes for count in counts for axes in combinations(range(len(shape)), count)]


PLACES = [(shape, axes) for shape in SHAPES for axes in axes_of(shape)]


@pytest.mark.parametrize(("shape", "axes"), PLACES, ids=str)
def test_every_axis_of_every_layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """If this fails, a layout adds up other elements than those along the axes, or puts the result
    into another place."""
    for keep in (False, True):
        file = _reduce(shape, axes, "sum", keep)
        check_exact(file)
        x = file.batch(2)
        _, _, expected = next(results(file, x))
        np.testing.assert_allclose(expected, torch_result(file, x[0]), rtol=1e-9, atol=1e-9)


FUNCTION_PLACES = [((6, 5, 7), (0,)), ((6, 5, 37), (2,)), ((3, 9, 16), (1, 2)), ((5, 6, 7), (1,)),
                   ((70,), (0,)), ((3, 4, 5, 17), (0, 2)), ((2, 3, 4, 5), (0, 1, 2, 3)),
                   ((9, 1, 1), (0,))]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("shape", "axes"), FUNCTION_PLACES, ids=str)
def test_functions(shape: tuple[int, ...], axes: tuple[int, ...], function: str) -> None:
    """If this fails, a reduction computes another function than torch's of its name."""
    for keep in (False, True):
        file = _reduce(shape, axes, function, keep)
        check_close(file, images=17)
        x = file.batch(2)
        _, _, expected = next(results(file, x))
        np.testing.assert_allclose(expected, torch_result(file, x[0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", ["mean", "l2"])
@pytest.mark.parametrize(("shape", "axes"), [((64, 56, 57), (0, 1, 2)), ((9000, 5, 5), (0,))])
def test_of_many(shape: tuple[int, ...], axes: tuple[int, ...], function: str) -> None:
    """If this fails, sums of many equal numbers drift, as one long chain of additions does."""
    file = _reduce(shape, axes, function, False)
    x = np.random.default_rng(4).random((3, 1, 1, 1), np.float32) + np.zeros((1, *shape))
    for what, found, expected in results(file, [x.astype(np.float32)]):
        np.testing.assert_allclose(found, expected, rtol=6e-7, err_msg=what)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("shape", "axes"), FUNCTION_PLACES[:3], ids=str)
def test_not_finite(shape: tuple[int, ...], axes: tuple[int, ...], function: str) -> None:
    """If this fails, a reduction hides a NaN or an infinity, makes one a NaN that is none in torch,
    or lets it into rows that do not have it."""
    file = _reduce(shape, axes, function, False)
    x = file.batch(6)[0]
    for image, value in enumerate([np.nan, np.inf, -np.inf]):
        x[image].flat[[3, x[image].size - 1]] = value
    x[3].flat[[0, 5]] = np.inf, np.nan
    x[4] = -np.inf
    expected = torch_result(file, x)
    for what, found, _ in results(file, [x]):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=what)


ARGMAX = [_argmax(shape, axis, axis % 2 == 0) for shape in SHAPES for axis in range(len(shape))]


@pytest.mark.parametrize("file", ARGMAX, ids=str)
def test_argmax(file: OpFile) -> None:
    """If this fails, argmax finds another place than the first of the largest, of which there are
    many among small whole numbers."""
    x = file.batch(5, integers=True)[0]
    x[1] = -np.inf
    x[2] = 3.0
    expected = torch_result(file, x)
    for what, found, reference in results(file, [x]):
        assert np.array_equal(reference, expected)
        assert np.array_equal(found, expected), what


@pytest.mark.parametrize(
    "file", [_argmax((70,), 0, True), _argmax((70, 3, 5), 0, False), _argmax((3, 5, 70), 2, False)],
    ids=str,
)  # fmt: skip
def test_argmax_of_nan(file: OpFile) -> None:
    """If this fails, argmax does not point at the first NaN, as torch's does."""
    rng = np.random.default_rng(6)
    x = file.batch(20)[0]
    x[rng.random(x.shape) < 0.03] = np.nan
    x[rng.random(x.shape) < 0.03] = np.inf
    expected = torch_result(file, x)
    for what, found, reference in results(file, [x]):
        assert np.array_equal(reference, expected)
        assert np.array_equal(found, expected), what
