"""resize and adaptive pooling, against the reference and, for the rules of sampling, torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_files import OpFile, check_close, results
from torch.nn import functional

MODES = ("nearest", "nearest_exact", "bilinear", "bicubic")
SIZES = [((4, 5), (8, 10)), ((7, 9), (13, 4)), ((1, 3), (5, 33)), ((16, 17), (16, 8)),
         ((5, 1), (2, 2)), ((8, 8), (1, 1))]  # fmt: skip


def _resize(mode: str, align: bool, size: tuple[int, int], out: tuple[int, int], scale=(0, 0)):
    params = {"mode": mode, "align_corners": align, "scale": list(scale)}
    return OpFile("resize", [[3, *size]], [3, *out], params)


def _torch(file: OpFile, x: np.ndarray) -> np.ndarray:
    mode, align = file.params["mode"].replace("_", "-"), file.params["align_corners"]
    smooth = mode.startswith("bi")
    scale = file.params["scale"]
    size = {"scale_factor": tuple(scale)} if scale[0] else {"size": tuple(file.shape[1:])}
    corners = {"align_corners": align} if smooth else {}
    return functional.interpolate(torch.from_numpy(x), mode=mode, **size, **corners).numpy()


RESIZES = [
    _resize(mode, align, *sizes)
    for mode in MODES
    for align in ((False, True) if mode.startswith("bi") else (False,))
    for sizes in SIZES
] + [
    _resize("nearest", False, (5, 6), (12, 15), (2.5, 2.5)),
    _resize("bilinear", False, (5, 6), (8, 10), (1.7, 1.7)),
    _resize("bicubic", False, (9, 9), (4, 4), (0.45, 0.5)),
    _resize("nearest", False, (7, 7), (14, 14), (2.0, 2.0)),
]


@pytest.mark.parametrize("file", RESIZES, ids=str)
def test_resize(file: OpFile) -> None:
    """If this fails, upsampling takes other pixels or weights than torch's interpolate."""
    check_close(file)
    x = file.batch(2)
    _, found, expected = next(results(file, x))
    assert np.abs(expected - _torch(file, x[0])).max() < 1e-5
    assert np.abs(found - expected).max() < 1e-5


ADAPTIVE = [
    OpFile(f"adaptive_{kind}_pool2d", [[5, *size]], [5, *out], {"size": list(out)})
    for kind in ("avg", "max")
    for size, out in [((7, 9), (3, 2)), ((5, 33), (4, 6)), ((1, 1), (3, 2)), ((16, 40), (6, 1))]
]


@pytest.mark.parametrize("file", ADAPTIVE, ids=str)
def test_adaptive_pool(file: OpFile) -> None:
    """If this fails, windows of unequal size begin or end elsewhere than torch's."""
    check_close(file)
    x = file.batch(2)
    pool = getattr(functional, f"adaptive_{'max' if 'max' in file.op else 'avg'}_pool2d")
    _, _, expected = next(results(file, x))
    wanted = pool(torch.from_numpy(x[0]).double(), file.params["size"]).numpy()
    assert np.abs(expected - wanted).max() < 1e-12


@pytest.mark.parametrize("file", ADAPTIVE, ids=str)
def test_adaptive_pool_keeps_nan(file: OpFile) -> None:
    """If this fails, a NaN disappears in a maximum, and broken numbers look like good ones."""
    x = file.batch(5)
    x[0].reshape(-1)[:: x[0].size // 7] = np.nan
    for what, found, expected in results(file, x):
        assert np.array_equal(np.isnan(found), np.isnan(expected)), what


def _avg_pool(out: tuple[int, int], **params: object) -> OpFile:
    window = {
        "kernel": [3, 2],
        "stride": [2, 2],
        "padding": [1, 1, 2, 1],
        "count_include_pad": True,
    }
    return OpFile("avg_pool2d", [[4, 7, 9]], [4, *out], {**window, **params})


@pytest.mark.parametrize("file", [
    _avg_pool((4, 5), uncounted=[1, 1]), _avg_pool((4, 5), uncounted=[2, 0]),
    _avg_pool((4, 5), divisor=5), _avg_pool((4, 5), divisor=1, count_include_pad=False),
    _avg_pool((3, 4), kernel=[2, 2], padding=[0, 0, 0, 0], divisor=3),
], ids=str)  # fmt: skip
def test_avg_pool_divisors(file: OpFile) -> None:
    """If this fails, averages at the border of a map with ceil_mode or divisor_override are off."""
    check_close(file)
