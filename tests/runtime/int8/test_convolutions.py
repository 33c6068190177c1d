"""Layers of integers: every way to compute one gives the reference's bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from int8_files import (
    Int8File,
    check_bits,
    check_file,
    engines,
    integer_layer,
    quantization,
    window,
)

from kernelprune import _core

IN, OUT, OTHER = quantization(0.031, 121), quantization(0.087, 130), quantization(0.05, 3)


def conv(
    channels: tuple[int, int] = (7, 5),
    size: tuple[int, int] = (9, 11),
    kernel: tuple[int, int] = (3, 3),
    density: float = 0.5,
    *,
    activation: str = "none",
    residual: Any = "none",
    given: Any = IN,
    result: Any = OUT,
    **geometry: Any,
) -> Int8File:
    """One conv2d; ``residual``: what it is quantised to, None for floats."""
    rng = np.random.default_rng(0)
    params = window(kernel, **geometry)
    top, left, bottom, right = params["padding"]
    extents = [d * (k - 1) + 1 for d, k in zip(params["dilation"], kernel, strict=True)]
    height = (size[0] + top + bottom - extents[0]) // params["stride"][0] + 1
    width = (size[1] + left + right - extents[1]) // params["stride"][1] + 1
    shape = [channels[1], height, width]
    kept = rng.random((channels[1], channels[0])) < density
    inputs, quantized = [[channels[0], *size]], [given]
    if residual != "none":
        inputs.append(shape)
        quantized.append(residual)
    tensors = integer_layer(kept, kernel, rng)
    params["activation"] = activation
    return Int8File("conv2d", inputs, shape, params, tensors, quantized, result)


def layer_of(engine: _core.Engine) -> Any:
    """The candidates of the only layer."""
    (layer,) = engine.candidates
    return layer.candidates


def check_every_way(file: Int8File, images: int = 2, **options: Any) -> None:
    """All candidates of the layer, by one thread and by two."""
    names = {}
    for _, engine in engines(file.model().to_bytes(), threads=(1,)):
        names[engine.isa] = engine.candidates[0].names
    for name in {name for each in names.values() for name in each}:
        isas = [isa for isa, known in names.items() if name in known]
        check_file(file, images, choices={(1, "node"): name}, isas=isas, **options)


PAD = (1, 1, 1, 1)
FILES = {
    "3x3": conv(padding=PAD),
    "3x3, stride 2": conv(padding=PAD, stride=(2, 2)),
    "3x3, stride 2, even": conv(size=(8, 12), padding=(0, 0, 1, 1), stride=(2, 2)),
    "3x3, no padding": conv(),
    "3x3, dilated": conv(padding=(2, 2, 2, 2), dilation=(2, 2)),
    "3x3 of 14x14": conv(size=(14, 14), padding=PAD),
    "3x3 of 16x16": conv(size=(16, 16), padding=PAD),
    "3x3 of 7x7": conv(size=(7, 7), padding=PAD),
    "3x3 of 4x4": conv(size=(4, 4), padding=PAD),
    "3x3 of 2x2": conv(size=(2, 2), padding=PAD),
    "3x3 of 1x1": conv(size=(1, 1), padding=PAD),
    "3x3 of a row of 70": conv(size=(3, 70), padding=PAD),
    "3x3 of 33x65": conv((3, 4), (33, 65), padding=PAD),
    "3x3, stride 2 of 33x65": conv((3, 4), (33, 65), padding=PAD, stride=(2, 2)),
    "many channels": conv((130, 67), (5, 6), density=0.3, padding=PAD),
    "1x1": conv(kernel=(1, 1)),
    "1x1 of 8x8": conv(kernel=(1, 1), size=(8, 8), channels=(37, 19)),
    "1x1 of 17x19": conv(kernel=(1, 1), size=(17, 19), channels=(9, 6)),
    "1x1 of one pixel": conv(kernel=(1, 1), size=(1, 1), channels=(70, 35)),
    "1x1, stride 2": conv(kernel=(1, 1), stride=(2, 2)),
    "1x1, padded": conv(kernel=(1, 1), size=(3, 5)),
    "5x5": conv(kernel=(5, 5), padding=(2, 2, 2, 2)),
    "7x7, stride 2": conv((3, 8), (23, 25), (7, 7), 1.0, padding=(3, 3, 3, 3), stride=(2, 2)),
    "1x7": conv(kernel=(1, 7), padding=(0, 3, 0, 3)),
    "2x2, stride 2": conv(kernel=(2, 2), stride=(2, 2)),
    "4x4, stride 3, odd": conv(kernel=(4, 4), stride=(3, 2), padding=(1, 2, 3, 0)),
    "8x8 to a pixel": conv(kernel=(8, 8), size=(8, 8)),
    "dense": conv(density=1.0, padding=PAD),
    "no connections": conv(density=0.0, padding=PAD),
    "one channel to one": conv((1, 1), padding=PAD),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_windows(file: Int8File) -> None:
    """If this fails, a kernel or its weights take other taps than the file has."""
    check_every_way(file)


RANGES = {
    "3x3": conv((64, 6), (40, 41), density=0.3, padding=PAD, residual=OTHER),
    "3x3, stride 2": conv((64, 6), (81, 80), density=0.3, padding=PAD, stride=(2, 2)),
    "5x5": conv((48, 6), (40, 41), (5, 5), 0.3, padding=(2, 2, 2, 2), result=None),
}


@pytest.mark.parametrize("file", RANGES.values(), ids=RANGES)
def test_several_ranges(file: Int8File) -> None:
    """If this fails, a layer that is computed in pieces has seams, or threads use each other's
    memory."""
    for _, engine in engines(file.model().to_bytes(), threads=(1,)):
        ways = {way.name: max(stage.calls for stage in way.stages) for way in layer_of(engine)}
        assert max(ways.values()) > 3
    check_every_way(file, 1, threads=(1, 2, 3))


def depthwise(size: tuple[int, int], kernel: tuple[int, int], **geometry: Any) -> Int8File:
    file = conv((6, 6), size, kernel, **geometry)
    rng = np.random.default_rng(1)
    return replace(file, tensors=integer_layer(np.eye(6, dtype=bool), kernel, rng))


DEPTHWISE = {
    "3x3": depthwise((9, 11), (3, 3), padding=PAD),
    "3x3 of 14x14": depthwise((14, 14), (3, 3), padding=PAD),
    "3x3, stride 2": depthwise((9, 11), (3, 3), padding=PAD, stride=(2, 2)),
    "5x5": depthwise((12, 13), (5, 5), padding=(2, 2, 2, 2)),
    "5x5, stride 2": depthwise((12, 70), (5, 5), padding=(2, 2, 2, 2), stride=(2, 2)),
    "7x7 of 7x7": depthwise((7, 7), (7, 7), padding=(3, 3, 3, 3)),
    "7x7 of 2x2": depthwise((2, 2), (7, 7), padding=(3, 3, 3, 3)),
    "3x3 of 1x1": depthwise((1, 1), (3, 3), padding=PAD),
}


@pytest.mark.parametrize("file", DEPTHWISE.values(), ids=DEPTHWISE)
def test_depthwise(file: Int8File) -> None:
    """If this fails, a layer with one connection for each channel is computed wrongly."""
    check_every_way(file)


EPILOGUES = {
    "relu": {"activation": "relu"},
    "relu6": {"activation": "relu6"},
    "relu6 below 255": {"activation": "relu6", "result": quantization(0.03, 7)},
    "residual of bytes": {"residual": OTHER},
    "residual of bytes, relu": {"residual": OTHER, "activation": "relu"},
    "residual of floats": {"residual": None},
    "floats": {"result": None},
    "floats, relu6": {"result": None, "activation": "relu6"},
    "floats, residual of bytes": {"result": None, "residual": OTHER},
    "floats, residual of floats, relu": {"result": None, "residual": None, "activation": "relu"},
    "zero points 0": {"given": quantization(0.02, 0), "result": quantization(0.1, 0)},
    "zero points 255": {"given": quantization(0.02, 255), "result": quantization(0.1, 255)},
    "large multipliers": {"given": quantization(2.0**40, 9), "result": quantization(2.0**-40, 200)},
    "small multipliers": {"given": quantization(2.0**-40, 9), "result": quantization(2.0**40, 200)},
    "large residual": {"residual": quantization(2.0**40, 9), "result": quantization(2.0**-40, 20)},
}


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)], ids=["1x1", "3x3"])
@pytest.mark.parametrize("changes", EPILOGUES.values(), ids=EPILOGUES)
def test_epilogues(changes: dict[str, Any], kernel: tuple[int, int]) -> None:
    """If this fails, sums become other bytes, or numbers, than the format says."""
    pad = (kernel[0] // 2,) * 4
    check_every_way(conv(kernel=kernel, padding=pad, **changes))
    check_every_way(conv(size=(8, 8), kernel=kernel, padding=pad, **changes))


def linear(features: tuple[int, int], density: float, **changes: Any) -> Int8File:
    rng = np.random.default_rng(0)
    kept = rng.random(features[::-1]) < density
    params = {"activation": "none"}
    file = Int8File("linear", [[features[0]]], [features[1]], params, {}, [IN], OUT)
    return replace(file, tensors=integer_layer(kept, (1, 1), rng), **changes)


LINEAR = {
    "dense": linear((70, 33), 1.0),
    "sparse": linear((70, 33), 0.2),
    "one to one": linear((1, 1), 1.0),
    "without connections": linear((9, 3), 0.0),
    "1000 outputs of floats": linear((65, 1000), 0.3, result=None),
    "residual": linear(
        (31, 17), 0.5, inputs=[[31], [17]], given=[IN, OTHER], params={"activation": "relu"}
    ),
}


@pytest.mark.parametrize("file", LINEAR.values(), ids=LINEAR)
def test_linear(file: Int8File) -> None:
    """If this fails, classifiers of integers give other scores."""
    check_every_way(file, images=17)


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_sums(sign: int) -> None:
    """If this fails, a sum near 2^31, which readers take, wraps around."""
    file = linear((65000, 1), 1.0, given=[quantization(1, 0)], result=None, dtypes=["u8"])
    file.tensors["weight"][:] = 127 * sign
    file.tensors["bias"][:] = sign * ((1 << 31) - 1 - 255 * 127 * 65000)
    file.tensors["scale"][:] = 1
    data, inputs = file.model().to_bytes(), [np.full((2, 65000), 255, np.float32)]
    check_bits(data, inputs)
    for _, engine in engines(data, threads=(1,)):
        assert abs(engine.run(inputs)[0][0, 0]) == 2.0**31


def test_names_of_the_ways() -> None:
    """If this fails, a kernel is not among the candidates, so that no layer is computed by it and
    tuning cannot choose it."""
    found = set()
    for file in [*FILES.values(), *DEPTHWISE.values(), *LINEAR.values()]:
        for _, engine in engines(file.model().to_bytes(), threads=(1,)):
            for layer in engine.candidates:  # of blocks of images and of single ones
                assert layer.chosen in layer.names
                found.update(name.split("/")[0] for name in layer.names)
    assert found == {
        "int8_windows",
        "int8_quads",
        "int8_dense",
        "int8_rows3x3",
        "int8_interleaved1x1",
        "int8_depthwise",
        "int8_linear",
    }
