"""Quantised models on the emulated CUDA device: the reference's bytes, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from int8_files import Int8File, numbers_for, quantization
from runtime.int8 import test_convolutions as convolutions, test_operators as operators
from runtime.int8.test_networks import residual_network

from kernelprune import _core
from kernelprune.errors import UnsupportedOperator


def load(data: bytes, variant: int = 0, precision: str = "strict") -> _core.Engine:
    return _core.Engine.load_bytes(
        data, "file", 1, "", 0, precision, device="cuda-emulated", cuda_variant=variant
    )


def check(data: bytes, inputs: Sequence[np.ndarray], variants: int = 0) -> set[str]:
    """The plan's own kernels and the first ``variants`` others give the reference's numbers.
    Returns the kernels' names."""
    expected = [each.astype(np.float32) for each in load(data).run_reference(list(inputs))]
    names = set()
    for variant in range(variants + 1):
        engine = load(data, variant)
        names |= {layer.kernel.split("/")[0] for layer in engine.layers(len(inputs[0]))}
        for found, right in zip(engine.run(list(inputs)), expected, strict=True):
            assert np.array_equal(found, right, equal_nan=True), names
    return names


def check_file(file: Int8File, images: int = 2, variants: int = 0) -> set[str]:
    return check(file.model().to_bytes(), numbers_for(file, images), variants)


LARGE = {"3x3 of 33x65", "3x3, stride 2 of 33x65", "many channels", "7x7, stride 2"}


@pytest.mark.parametrize("name", convolutions.FILES)
def test_windows(name: str) -> None:
    """If this fails, a CUDA kernel or its packed weights take other taps than the file has, or
    miss the zero point where the map ends."""
    check_file(convolutions.FILES[name], 1 if name in LARGE else 3, 0 if name in LARGE else 3)


@pytest.mark.parametrize("name", convolutions.DEPTHWISE)
def test_depthwise(name: str) -> None:
    """If this fails, a layer with one connection for each channel is computed wrongly on CUDA."""
    check_file(convolutions.DEPTHWISE[name])


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3)], ids=["1x1", "3x3", "general"])
@pytest.mark.parametrize("name", convolutions.EPILOGUES)
def test_epilogues(name: str, kernel: tuple[int, int]) -> None:
    """If this fails, sums become other bytes, or numbers, on CUDA than the format says."""
    pad = (kernel[0] // 2,) * 4
    changes = convolutions.EPILOGUES[name]
    check_file(convolutions.conv(size=(5, 7), kernel=kernel, padding=pad, **changes))


@pytest.mark.parametrize("name", convolutions.LINEAR)
def test_linear(name: str) -> None:
    """If this fails, classifiers of integers give other scores on CUDA."""
    check_file(convolutions.LINEAR[name], images=1 if "1000" in name else 9)


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_sums(sign: int) -> None:
    """If this fails, a bias from which the zero point was taken off does not come back: it wraps
    around, and so must the sums."""
    given = [quantization(1, 255)]
    file = convolutions.linear((65000, 1), 1.0, given=given, result=None, dtypes=["u8"])
    file.tensors["weight"][:] = 127 * sign
    file.tensors["bias"][:] = -sign * ((1 << 31) - 1 - 255 * 127 * 65000)
    file.tensors["scale"][:] = 1
    check(file.model().to_bytes(), [np.zeros((2, 65000), np.float32)])


def test_names_of_kernels() -> None:
    """If this fails, a convolution kernel of bytes is compiled for a GPU and never planned, or the
    tables above no longer reach it."""
    found = set()
    for name in ("3x3", "3x3, stride 2", "1x1 of 8x8", "1x1, stride 2", "5x5", "7x7, stride 2",
                 "2x2, stride 2", "1x1 of one pixel"):  # fmt: skip
        found |= check_file(convolutions.FILES[name], 1, 8)
    tiles = {
        f"int8_{shape}_{tile}"
        for shape, sizes in {
            "3x3_s1": ("4x4", "2x4"),
            "3x3_s2": ("2x4", "2x2"),
            "1x1_s1": ("4x4", "2x2"),
            "1x1_s2": ("4x4", "2x2"),
            "5x5_s1": ("1x8", "1x4"),
            "7x7_s2": ("1x8", "1x4"),
        }.items()
        for tile in sizes
    }
    assert found == tiles | {"int8_general", "int8_linear"}


@pytest.mark.parametrize("file", operators.EXACT, ids=str)
def test_operators(file: Int8File) -> None:
    """If this fails, an operator makes other bytes on CUDA than the format says, or reads them
    where they are not."""
    check_file(file)


@pytest.mark.parametrize("batch", [1, 3])
def test_network(batch: int) -> None:
    """If this fails, layers that are right one by one share memory that they must not, or lose
    bytes between a layer of integers and one of float32."""
    b, outputs = residual_network()
    check(b.file(*outputs), b.batch(batch))


def test_bytes_given() -> None:
    """If this fails, an input that is given as bytes is scaled as if it were numbers."""
    given = [quantization(0.1, 7)]
    check_file(convolutions.linear((9, 5), 0.5, given=given, dtypes=["u8"]))


def test_not_in_half_precision() -> None:
    """If this fails, bytes and halves meet in kernels that know of one of them."""
    b, outputs = residual_network()
    with pytest.raises(UnsupportedOperator, match="file: precision 'half' is for float32 models"):
        load(b.file(*outputs), precision="half")
