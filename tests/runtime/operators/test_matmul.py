"""matmul, against the reference and, for what it means, numpy."""

from __future__ import annotations

import numpy as np
import pytest
from op_files import MODES, OpFile, check_close, check_exact, results

from kernelprune import _core


def _matmul(
    a: tuple[int, ...], b: tuple[int, ...], transpose_a: bool = False, transpose_b: bool = False
) -> OpFile:
    """Of matrices [.., rows, depth] and [.., depth, columns], stored transposed where said."""
    leading = np.broadcast_shapes(a[:-2], b[:-2])
    stored_a = (*a[:-2], a[-1], a[-2]) if transpose_a else a
    stored_b = (*b[:-2], b[-1], b[-2]) if transpose_b else b
    params = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    return OpFile("matmul", [stored_a, stored_b], [*leading, a[-2], b[-1]], params)


def numpy_result(file: OpFile, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In float64."""
    a, b = (
        x.swapaxes(-1, -2) if file.params[f"transpose_{name}"] else x
        for name, x in (("a", a.astype(np.float64)), ("b", b.astype(np.float64)))
    )
    return a @ b


TRANSPOSES = [(False, False), (True, False), (False, True), (True, True)]
# Rows, depth, columns: around the sides of tiles, vectors and blocks.
SIZES = [(1, 1, 1), (1, 7, 5), (3, 16, 8), (5, 33, 17), (7, 3, 49), (13, 65, 33), (6, 64, 64),
         (4, 130, 3), (17, 1, 100), (130, 2, 16)]  # fmt: skip


@pytest.mark.parametrize("transposes", TRANSPOSES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(size: tuple[int, int, int], transposes: tuple[bool, bool]) -> None:
    """If this fails, a product of whole numbers is wrong: a tile at the border reads or writes
    beyond it, or a transposed matrix is read as it lies."""
    rows, depth, columns = size
    for leading in ((), (3,), (2, 3)):
        file = _matmul((*leading, rows, depth), (*leading, depth, columns), *transposes)
        check_exact(file)
        x = file.batch(2)
        _, _, expected = next(results(file, x))
        np.testing.assert_allclose(expected, numpy_result(file, *x), rtol=1e-9, atol=1e-9)


LEADING = [((1,), (4,)), ((4,), (1,)), ((2, 3), (1, 3)), ((2, 1), (2, 3)), ((1, 3), (2, 1)),
           ((1, 1), (2, 3))]  # fmt: skip


@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_leading_sides_are_repeated(leading: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """If this fails, the keys that several heads share (multi-query attention) are read from the
    wrong place."""
    file = _matmul((*leading[0], 9, 10), (*leading[1], 10, 21), transpose_b=True)
    check_exact(file, images=17)
    x = file.batch(2)
    _, _, expected = next(results(file, x))
    np.testing.assert_allclose(expected, numpy_result(file, *x), rtol=1e-9, atol=1e-9)


def test_of_itself() -> None:
    """If this fails, both inputs cannot be one value."""
    file = _matmul((3, 9, 9), (3, 9, 9), transpose_b=True)
    model = file.model()
    model.node("node")["inputs"] = ["x0", "x0"]
    model.graph["inputs"].pop()
    x = file.batch(5, integers=True)[0]
    for isa, lanes in MODES:
        engine = _core.Engine.load_bytes(model.to_bytes(), "square", 1, isa, lanes)
        assert np.array_equal(engine.run([x])[0], x @ x.swapaxes(-1, -2)), (isa, lanes)


# Queries by keys, then weights by values.
ATTENTION = [
    _matmul((2, 400, 32), (2, 32, 400), transpose_a=True),
    _matmul((2, 64, 400), (2, 400, 400), transpose_b=True),
    _matmul((4, 49, 64), (1, 64, 49), transpose_b=True),
    _matmul((3, 197, 64), (3, 64, 197), transpose_b=True),
    _matmul((3, 197, 197), (3, 197, 64)),
]


@pytest.mark.parametrize("file", ATTENTION, ids=str)
def test_attention(file: OpFile) -> None:
    """If this fails, products of the sizes of attention lose digits."""
    check_close(file, 2e-6, images=2)


def test_not_finite() -> None:
    """If this fails, what is not finite reaches rows and columns that do not read it, or hides."""
    file = _matmul((2, 9, 20), (2, 20, 23))
    a, b = file.batch(3)
    a[0, 0, 3, 4], a[1, 1, 5, 6] = np.nan, np.inf
    b[1, 0, 7, 22], b[1, 1, 3, 3] = np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        expected = numpy_result(file, a, b)
    for what, found, _ in results(file, [a, b]):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=what)
