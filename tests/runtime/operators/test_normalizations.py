"""group_norm, layer_norm and l2_normalize, softmax and log_softmax, against the reference and, for
what they mean, torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_files import OpFile, check_close, results
from torch.nn import functional

RNG = np.random.default_rng(3)

# Sides around the widths of vectors; what has gaps between channels, and what has none.
SHAPES = [(1,), (7,), (16,), (33,), (5, 9), (3, 40), (3, 1, 1), (6, 5, 7), (4, 3, 16), (2, 9, 15),
          (3, 4, 5, 17), (2, 3, 70, 1), (1, 2, 4, 8)]  # fmt: skip
AXES = [(shape, axis) for shape in SHAPES for axis in range(len(shape))]


def _affine(count: int) -> dict[str, np.ndarray]:
    """Scale and shift of so many entries."""
    return {name: RNG.standard_normal(count).astype("<f4") for name in ("scale", "shift")}


def _group_norm(shape: tuple[int, ...], groups: int, eps: float = 1e-5) -> OpFile:
    params = {"groups": groups, "eps": eps}
    return OpFile("group_norm", [shape], shape, params, _affine(shape[0]))


def _layer_norm(shape: tuple[int, ...], axis: int, eps: float = 1e-6) -> OpFile:
    params = {"axis": axis, "eps": eps}
    return OpFile("layer_norm", [shape], shape, params, _affine(shape[axis]))


def _along(op: str, shape: tuple[int, ...], axis: int) -> OpFile:
    params = {"axis": axis, "eps": 1e-12} if op == "l2_normalize" else {"axis": axis}
    return OpFile(op, [shape], shape, params)


def torch_result(file: OpFile, x: np.ndarray) -> np.ndarray:
    """By torch in float64."""
    values = torch.from_numpy(x).double()
    scale, shift = (
        torch.from_numpy(file.tensors[name]).double() if file.tensors else None
        for name in ("scale", "shift")
    )
    if file.op == "group_norm":
        groups, eps = file.params["groups"], file.params["eps"]
        return functional.group_norm(values, groups, scale, shift, eps).numpy()
    dim = file.params["axis"] + 1
    if file.op == "layer_norm":
        last = values.movedim(dim, -1)
        found = functional.layer_norm(last, last.shape[-1:], scale, shift, file.params["eps"])
        return found.movedim(-1, dim).numpy()
    if file.op == "l2_normalize":
        return functional.normalize(values, dim=dim, eps=file.params["eps"]).numpy()
    function = functional.softmax if file.op == "softmax" else functional.log_softmax
    return function(values, dim=dim).numpy()


FILES = (
    [_group_norm(shape, groups) for shape in SHAPES for groups in {1, shape[0]}]
    + [_group_norm((12, 5, 7), groups) for groups in (2, 3, 4, 6)]
    + [_group_norm((8,), 2), _group_norm((8, 1, 1), 4), _group_norm((6, 4, 4), 3)]
    + [_layer_norm(*place) for place in AXES]
    + [_along(op, *place) for op in ("l2_normalize", "softmax", "log_softmax") for place in AXES]
)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_is_torch(file: OpFile) -> None:
    """If this fails, the op goes over other elements than torch's, or a layout loses some."""
    check_close(file, 2e-6)
    x = file.batch(2)
    _, _, expected = next(results(file, x))
    np.testing.assert_allclose(expected, torch_result(file, x[0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "file",
    [_group_norm((8, 7, 9), 2), _layer_norm((40, 5, 7), 0), _layer_norm((3, 5, 50), 2),
     _along("softmax", (40, 5, 7), 0), _along("log_softmax", (3, 5, 50), 2)],
    ids=str,
)  # fmt: skip
def test_many_images(file: OpFile) -> None:
    """If this fails, lanes meet, or an image of the second group reads the first one's."""
    check_close(file, 2e-6, images=17)


LARGE = [
    _group_norm((64, 56, 56), 1),
    _group_norm((4, 224, 225), 2),
    _layer_norm((3000, 5, 5), 0),
    _layer_norm((2, 2, 50000), 2),
]


@pytest.mark.parametrize("file", LARGE, ids=str)
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_statistics_of_many(file: OpFile, mean: float) -> None:
    """If this fails, means and variances of large maps drift, most where the mean is far from 0."""
    x = file.batch(2)[0] + np.float32(mean)
    check_close(file, 5e-7, inputs=[x])


@pytest.mark.parametrize("file", [_group_norm((6, 9, 11), 2), _layer_norm((70, 3, 3), 0)], ids=str)
def test_constant_rows(file: OpFile) -> None:
    """If this fails, the variance of equal numbers is not 0, and a flat map becomes noise."""
    levels = np.array([0.1, -3.7, 1e4], np.float32)[:, None, None, None]
    x = levels + np.zeros((1, *file.shape), np.float32)
    shift = file.tensors["shift"][:, None, None] + np.zeros(x.shape)
    for what, found, _ in results(file, [x]):
        assert np.abs(found - shift).max() < 2e-5, what


@pytest.mark.parametrize("axis", [0, 2])
def test_norm_of_zeros(axis: int) -> None:
    """If this fails, a vector of zeros becomes NaN instead of zeros: eps is not used."""
    file = _along("l2_normalize", (5, 3, 20), axis)
    for what, found, _ in results(file, [np.zeros((2, 5, 3, 20), np.float32)]):
        assert not found.any(), what


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_of_extremes(op: str, axis: int) -> None:
    """If this fails, large scores overflow, or masked ones (minus infinity) get a share."""
    file = _along(op, (20, 3, 20), axis)
    x = file.batch(3)[0] * 300
    x[1, ::3] = -np.inf
    x[1, :, :, ::3] = -np.inf
    x[1, 1, :, 1] = 5.0
    for what, found, expected in results(file, [x]):
        # A logarithm near 0 is that of a float near 1; a share may be a subnormal number.
        atol = 1e-7 if op == "log_softmax" else 1e-37
        np.testing.assert_allclose(found, expected, rtol=5e-6, atol=atol, err_msg=what)


NOT_FINITE = [_group_norm((6, 5, 7), 3), _layer_norm((6, 5, 7), 0), _layer_norm((6, 5, 37), 2)] + [
    _along(op, (6, 5, 37), axis)
    for op in ("l2_normalize", "softmax", "log_softmax")
    for axis in (0, 2)
]


@pytest.mark.parametrize("file", NOT_FINITE, ids=str)
def test_not_finite(file: OpFile) -> None:
    """If this fails, a NaN or an infinity disappears in a row, or reaches rows that have none."""
    x = file.batch(4)[0]
    for image, value in enumerate([np.nan, np.inf, -np.inf]):
        x[image].flat[[3, x[image].size - 1]] = value
    expected = torch_result(file, x)
    for what, found, reference in results(file, [x]):
        np.testing.assert_allclose(reference, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=what)
