"""Element-wise functions of what a convolution has just written: computed while it is in cache, in
pieces, and never where something else reads the convolution's own result."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from graphs import GraphBuilder
from op_files import MODES
from runtime.test_kernels import Build, engines

from kernelprune import _core

SAME = (1, 1, 1, 1)


def file_of(b: GraphBuilder, *outputs: str) -> bytes:
    metadata = {"format": "kernelprune", "version": "2", "graph": json.dumps(b.graph(*outputs))}
    return safetensors.numpy.save(b.tensors, metadata=metadata)


def unary(b: GraphBuilder, x: str, function: str, alpha: float = 0) -> str:
    return b.node("unary", [x], b.shapes[x], function=function, alpha=alpha, beta=0)


def by_channel(b: GraphBuilder, op: str, x: str, *tensors: str) -> str:
    y = b.node(op, [x], b.shapes[x])
    for name in tensors:
        b.tensors[f"{b.nodes[-1]['name']}.{name}"] = b.random(b.shapes[x][:1])
    return y


def functions_of(b: GraphBuilder, x: str) -> str:
    """Three in a row, exact on whole numbers; the last two differ by channel."""
    y = by_channel(b, "affine", unary(b, x, "clamp_min", -20), "scale", "shift")
    return by_channel(b, "prelu", y, "slope")


def pointwise(b: GraphBuilder) -> str:
    return b.conv2d(b.input((6, 23, 50)), 40, (1, 1))  # more than one piece


def sparse(b: GraphBuilder) -> str:
    return b.conv2d(b.input((20, 30, 33)), 40, (1, 1), density=0.3)


def residual(b: GraphBuilder) -> str:
    x = b.input((40, 23, 50))
    return b.conv2d(x, 40, (1, 1), density=0.2, residual=unary(b, x, "neg"))


def depthwise(kernel: int, stride: int, channels: int = 20, size: int = 41) -> Build:
    def build(b: GraphBuilder) -> str:
        x, pad, mask = b.input((channels, size, size)), kernel // 2, np.eye(channels, dtype=bool)
        return b.conv2d(x, channels, (kernel,) * 2, (stride,) * 2, (pad,) * 4, mask=mask)

    return build


def stem(b: GraphBuilder) -> str:
    return b.conv2d(b.input((3, 65, 71)), 40, (3, 3), (2, 2), SAME)


def small(b: GraphBuilder) -> str:
    return b.conv2d(b.input((7, 4, 4)), 9, (3, 3), padding=SAME, density=0.5)


def linear(b: GraphBuilder) -> str:
    return b.linear(b.input((50,)), 33, density=0.4)


CASES = {
    "pointwise": pointwise, "sparse": sparse, "residual": residual, "stem": stem, "small": small,
    "linear": linear, "depthwise 3x3": depthwise(3, 1), "depthwise 5x5": depthwise(5, 1),
    "depthwise 3x3 stride 2": depthwise(3, 2), "depthwise 3x3 large": depthwise(3, 1, 9, 70),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_convolution(case: str) -> None:
    """If this fails, a piece is left out, is computed twice, or takes another channel's numbers;
    or the result depends on the number of threads."""
    b = GraphBuilder(np.random.default_rng(1), integers=True)
    model = file_of(b, functions_of(b, CASES[case](b)))
    x = b.batch(3)
    expected = None
    for isa, lanes in MODES:
        for engine in engines(model, isa, lanes, "strict"):
            if expected is None:
                expected = engine.run_reference(x)[0]
            assert np.array_equal(engine.run(x)[0], expected), (isa, lanes)
        three = _core.Engine.load_bytes(model, case, 3, isa, lanes, precision="strict")
        assert np.array_equal(three.run(x)[0], expected), (isa, lanes)


def test_winograd() -> None:
    """If this fails, the tiles of Winograd's method are taken for rows."""
    b = GraphBuilder(np.random.default_rng(2))
    x = b.input((16, 24, 40))
    model = file_of(b, unary(b, b.conv2d(x, 16, padding=SAME), "silu"))
    inputs = b.batch(3)
    for isa, lanes in MODES:
        for engine in engines(model, isa, lanes, "fast"):
            expected = engine.run_reference(inputs)[0]
            np.testing.assert_allclose(engine.run(inputs)[0], expected, rtol=1e-3, atol=1e-3)


def test_read_by_others() -> None:
    """If this fails, a function overwrites what another node, or the user, reads."""
    b = GraphBuilder(np.random.default_rng(3), integers=True)
    x = b.input((4, 6, 7))
    read_later = b.conv2d(x, 5, (1, 1))
    a = unary(b, read_later, "square")
    output = b.conv2d(x, 5, (1, 1))
    c = unary(b, output, "square")
    viewed = b.conv2d(x, 5, (1, 1))
    flat = b.node("flatten", [viewed], (5 * 6 * 7,))
    d = unary(b, viewed, "square")
    sums = b.node("concat", [a, c, d, read_later], (20, 6, 7))
    model = file_of(b, sums, output, flat)
    inputs = b.batch(2)
    for isa, lanes in MODES:
        engine = _core.Engine.load_bytes(model, "read", 1, isa, lanes)
        for found, expected in zip(engine.run(inputs), engine.run_reference(inputs), strict=True):
            assert np.array_equal(found, expected)


def test_end_of_the_planar_part() -> None:
    """If this fails, the last value that is computed one image at a time is not where the images
    side by side look for it."""
    b = GraphBuilder(np.random.default_rng(4), integers=True)
    y = functions_of(b, b.conv2d(b.input((3, 20, 20)), 24, (1, 1)))
    model = file_of(b, b.conv2d(y, 4, (1, 1)))
    inputs = b.batch(19)
    for isa, lanes in MODES:
        for nodes in range(1, 5) if lanes > 1 else ():
            for threads in (1, 2):
                engine = _core.Engine.load_bytes(
                    model, "cut", threads, isa, lanes, planar_nodes=nodes
                )
                assert np.array_equal(engine.run(inputs)[0], engine.run_reference(inputs)[0])


def test_no_step_of_their_own() -> None:
    """If this fails, the functions behind a convolution read and write memory once more: with large
    maps nearly as much time again. The kernels are still listed."""
    b = GraphBuilder(np.random.default_rng(5))
    x = b.input((6, 64, 64))
    alone = unary(b, x, "silu")
    model = file_of(b, functions_of(b, b.conv2d(alone, 24, (1, 1))))
    engine = _core.Engine.load_bytes(model, "steps", 1, "portable", 1)
    kernels = [layer.kernel.split("/")[0] for layer in engine.layers(1)]
    assert kernels[:1] + kernels[2:] == ["unary", "unary", "affine", "prelu"]
    seconds = [layer.seconds > 0 for layer in engine.profile(b.batch(1), 1)]
    assert seconds == [True, True, False, False, False]
