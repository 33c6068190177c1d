"""Every kernel of every instruction set against the reference, on a table of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from graphs import GraphBuilder

from kernelprune import _core

Build = Callable[[GraphBuilder], str]

MODES = [(isa, lanes) for isa in _core.available_isas() for lanes in (0, 1)] + [
    (isa, {"avx512": 8, "avx2": 8, "portable": 4}[isa]) for isa in _core.available_isas()
]
BATCHES = (1, 7, 16, 17, 64)


@dataclass
class Case:
    name: str
    build: Build
    batches: tuple[int, ...] = BATCHES

    def __str__(self) -> str:
        return self.name


def conv(
    channels: int,
    out_channels: int,
    size: tuple[int, int],
    batches: tuple[int, ...] = BATCHES,
    **options,
) -> Case:
    def build(b: GraphBuilder) -> str:
        return b.conv2d(b.input((channels, *size)), out_channels, **options)

    words = [f"{key}={value}" for key, value in options.items() if key != "mask"]
    name = f"conv {channels}->{out_channels} {size[0]}x{size[1]} " + " ".join(words)
    return Case(name, build, batches)


def grouped(channels: int, out_channels: int, groups: int, size: int, stride: int) -> Case:
    """A grouped convolution is a block-diagonal pattern, a depthwise one the diagonal."""
    block = np.ones((out_channels // groups, channels // groups), bool)
    mask = np.kron(np.eye(groups, dtype=bool), block)
    case = conv(
        channels,
        out_channels,
        (size, size),
        (1, 17),
        stride=(stride, stride),
        padding=(1, 1, 1, 1),
        mask=mask,
    )
    case.name = f"groups={groups} {case.name}"
    return case


def depthwise(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), **options
) -> Case:
    """Rows of one connection each, the diagonal or any other, and one of none."""
    mask = np.roll(np.eye(5, dtype=bool), options.pop("shift", 0), axis=1)
    mask[3] = False
    top, left = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    padding = options.pop("padding", (top, left, kernel[0] // 2, kernel[1] // 2))
    case = conv(
        5, 5, size, (1, 3), kernel=kernel, stride=stride, padding=padding, mask=mask, **options
    )
    case.name = f"depthwise {case.name}"
    return case


def depthwise_residual(b: GraphBuilder) -> str:
    x = b.input((4, 9, 17))
    mask = np.eye(4, dtype=bool)
    mask[2] = False
    return b.conv2d(x, 4, padding=SAME, mask=mask, residual=x, activation="relu")


def empty_rows(b: GraphBuilder) -> str:
    mask = b.mask(9, 8, 0.5)
    mask[[0, 3, 4, 8]] = False
    return b.conv2d(b.input((8, 6, 6)), 9, padding=(1, 1, 1, 1), mask=mask, activation="relu")


def empty_rows_1x1(b: GraphBuilder) -> str:
    mask = b.mask(9, 300, 0.1)
    mask[[0, 3, 8]] = False
    mask[:, :160] = False
    return b.conv2d(b.input((300, 5, 7)), 9, kernel=(1, 1), mask=mask, activation="relu")


def residual_blocks(b: GraphBuilder) -> str:
    x = b.input((270, 4, 9))
    return b.conv2d(x, 270, kernel=(1, 1), density=0.1, residual=x, activation="relu")


def residual(
    kernel: int, size: int, activation: str, in_place: bool = False, channels: int = 5
) -> Build:
    """``in_place``: nothing else needs the residual, so that the sum may be written over it."""

    def build(b: GraphBuilder) -> str:
        x = b.input((channels, size, size))
        pad = kernel // 2
        return b.conv2d(
            x,
            channels,
            kernel=(kernel, kernel),
            padding=(pad, pad, pad, pad),
            density=0.4,
            residual=b.node("activation", [x], b.shapes[x], activation="relu") if in_place else x,
            activation=activation,
        )

    return build


def residuals_needed_again(b: GraphBuilder) -> str:
    """Sums that must not be written over their residual: it is read later, by its own name or as
    the flattened view of it."""
    x = b.input((4, 6, 6))
    a = b.conv2d(x, 4, padding=(1, 1, 1, 1), density=0.6)
    flat = b.node("flatten", [a], (4 * 6 * 6,))
    c = b.conv2d(x, 4, padding=(1, 1, 1, 1), density=0.6, residual=a)
    d = b.conv2d(c, 4, kernel=(1, 1), density=0.6, residual=c)
    e = b.conv2d(d, 4, kernel=(1, 1), density=0.6, residual=c)
    return b.node("concat", [flat, b.node("flatten", [e], (4 * 6 * 6,))], (2 * 4 * 6 * 6,))


def chain(b: GraphBuilder) -> str:
    """Several ops in one plan: buffers are shared by lifetime, a flatten is an alias."""
    x = b.input((3, 13, 11))
    a = b.conv2d(x, 6, padding=(1, 1, 1, 1), density=0.5, activation="relu")
    p = b.pool("max_pool2d", a, (3, 3), (2, 2), (1, 1, 1, 1))
    c = b.conv2d(p, 6, padding=(1, 1, 1, 1), density=0.5)
    d = b.conv2d(c, 6, kernel=(1, 1), density=0.5, residual=p, activation="relu6")
    e = b.node("concat", [c, d, p], (18, *b.shapes[d][1:]))
    f = b.node("add", [e, e], b.shapes[e], activation="relu")
    g = b.node("flatten", [f], (18 * 7 * 6,))
    return b.linear(g, 5, density=0.3)


def unary(op: str, shape: tuple[int, ...], out: tuple[int, ...], **params) -> Build:
    return lambda b: b.node(op, [b.input(shape)], out, **params)


def pool(op: str, size: tuple[int, int], *args, **options) -> Case:
    def build(b: GraphBuilder) -> str:
        return b.pool(op, b.input((5, *size)), *args, **options)

    return Case(f"{op} {size} {args} {options}", build, (1, 17))


SAME = (1, 1, 1, 1)
CASES = [
    # 3x3, stride 1: sizes around the tiles (4x4 lanes; 8 or 16 pixels, up to 16 rows, planar)
    *[conv(5, 6, (n, n), (1, 17), padding=SAME, density=0.5) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9)],
    *[conv(4, 5, (h, w), (1, 16), padding=SAME, density=0.5)
      for h, w in ((1, 17), (17, 1), (15, 16), (16, 15), (17, 33), (32, 32), (33, 31), (7, 48))],
    *[conv(12, 10, (8, 8), padding=SAME, density=d) for d in (0.0, 0.1, 1.0)],
    conv(6, 6, (9, 7), padding=(0, 0, 0, 0), density=0.5, activation="relu"),
    conv(6, 6, (9, 7), padding=(2, 1, 0, 2), density=0.5, activation="relu6"),
    conv(1, 1, (3, 3)),
    # Winograd: edge tiles, rows of tiles that fill a vector or not, several ranges of tiles
    *[conv(3, 4, (h, w), (1, 16), padding=SAME, density=0.6)
      for h, w in ((14, 14), (9, 50), (70, 20), (6, 5), (2, 30))],
    *[conv(2, 2, (h, w), (1,), padding=SAME) for h, w in ((56, 56), (100, 130))],
    conv(40, 40, (12, 12), (1, 16), padding=SAME, density=0.1, activation="relu"),
    conv(5, 4, (19, 18), (1, 16), padding=(0, 0, 0, 0), density=0.4),
    conv(5, 4, (19, 18), (1, 16), padding=(2, 2, 2, 2), density=0.4),
    # Winograd on the phases of a stride of 2: the same, blocks of outputs, every kernel size
    conv(3, 40, (45, 150), (1,), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    *[conv(2, 3, (h, w), (1,), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3))
      for h, w in ((8, 8), (9, 65), (70, 20), (130, 7), (3, 2))],
    *[conv(3, 17, (30, 37), (1, 16), kernel=k, stride=(2, 2), padding=p, density=0.6)
      for k, p in (((5, 5), (2, 2, 2, 2)), ((6, 8), (0, 0, 0, 0)), ((8, 5), (4, 1, 0, 4)))],
    conv(2, 3, (21, 21), (1, 17), kernel=(7, 7), stride=(2, 2), padding=(6, 6, 6, 6)),
    # stride 2
    *[conv(5, 6, (n, n + 1), (1, 17), stride=(2, 2), padding=SAME, density=0.5)
      for n in (1, 2, 3, 7, 8, 9, 16, 17)],
    conv(3, 4, (8, 8), stride=(2, 2), padding=(0, 0, 1, 1), density=0.7),
    # 1x1
    *[conv(9, 7, (n, n), (1, 7, 17), kernel=(1, 1), density=0.5) for n in (1, 2, 3, 4, 7, 8, 15)],
    *[conv(40, 33, (1, 1), kernel=(1, 1), density=d) for d in (0.0, 0.1, 1.0)],
    conv(6, 5, (9, 9), (1, 17), kernel=(1, 1), stride=(2, 2), density=0.5),
    conv(70, 9, (56, 5), (1, 17), kernel=(1, 1), stride=(2, 3), density=0.2, activation="relu"),
    conv(6, 5, (5, 4), (1, 17), kernel=(1, 1), padding=(0, 0, 0, 0), density=0.5),
    # products of several blocks of channels and groups of output channels, planes around the tiles
    *[conv(c, 19, (1, n), (1, 16), kernel=(1, 1), density=0.3, activation="relu")
      for c, n in ((127, 16), (129, 17), (257, 33), (300, 65), (400, 127), (60, 129))],
    conv(520, 6, (3, 5), (1, 16), kernel=(1, 1), density=0.02),
    conv(150, 12, (16, 24), (1, 16), kernel=(1, 1), density=0.2),
    conv(70, 9, (6, 6), (1, 17), stride=(3, 3), density=0.2),
    Case("empty rows 1x1", empty_rows_1x1, (1, 17)),
    Case("residual of several blocks", residual_blocks, (1, 17)),
    # 5x5, 7x7 and any kernel, stride, dilation, padding
    conv(4, 5, (11, 9), (1, 17), kernel=(5, 5), padding=(2, 2, 2, 2), density=0.5),
    conv(3, 8, (21, 21), (1, 17), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    conv(3, 4, (7, 9), (1, 17), kernel=(7, 7), padding=(3, 3, 3, 3), density=0.6),
    conv(4, 4, (10, 12), (1, 17), kernel=(2, 4), stride=(3, 1), padding=(1, 0, 0, 3), density=0.5),
    conv(4, 4, (13, 12), (1, 17), dilation=(2, 3), padding=(2, 3, 2, 3), density=0.5),
    conv(4, 4, (13, 12), (1, 17), dilation=(2, 2), stride=(2, 2), padding=(2, 2, 2, 2)),
    conv(4, 4, (6, 19), (1, 17), stride=(1, 2), padding=SAME, density=0.5),
    conv(2, 3, (5, 40), (1, 17), kernel=(1, 9), padding=(0, 4, 0, 4)),
    # density 1: blocks of 8, 4, 2 and 1 output channels; tiles of 3 vectors and of 7 pixels; taps
    # in another phase of the stride; kernels with more taps than the dense convolutions take
    *[conv(5, o, (7, 7), (1, 16), padding=SAME) for o in (1, 7, 8, 9, 15, 16, 25)],
    *[conv(6, 11, (h, w), (1, 16), kernel=(1, 1)) for h, w in ((1, 7), (7, 9), (10, 5), (8, 18))],
    *[conv(3, 10, (n, n + 1), (1, 16), stride=(2, 2), padding=SAME) for n in (2, 7, 8, 17)],
    conv(3, 17, (20, 37), (1, 16), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3)),
    conv(2, 9, (16, 19), (1, 16), stride=(3, 2), dilation=(2, 3), padding=(2, 3, 1, 0)),
    conv(5, 9, (9, 9), (1, 16), kernel=(1, 1), stride=(2, 2)),
    conv(2, 3, (14, 15), (1, 16), kernel=(11, 11), padding=(5, 5, 5, 5)),
    conv(2, 3, (14, 15), (1, 16), kernel=(12, 11), padding=(5, 5, 5, 5)),
    # taps that only ever see the border are cut off
    conv(4, 4, (1, 1), (1, 17), padding=SAME, density=0.7),
    conv(4, 4, (1, 9), (1, 17), padding=SAME, density=0.7),
    conv(4, 4, (2, 1), (1, 17), kernel=(5, 5), padding=(2, 2, 2, 2), density=0.7),
    conv(3, 3, (2, 2), (1, 17), kernel=(2, 2), dilation=(2, 2), padding=(1, 1, 0, 0)),
    # groups and depthwise are patterns
    grouped(8, 8, 8, 9, 1),
    grouped(8, 8, 8, 9, 2),
    grouped(8, 12, 4, 7, 1),
    *[depthwise((n, n + 1), (k, k), (s, s), activation="relu")
      for k in (3, 5, 7) for s in (1, 2) for n in (1, 2, 6, 7, 8, 15, 16, 17)],
    *[depthwise((12, 75), (k, k), (s, s)) for k in (3, 5, 7) for s in (1, 2)],
    # several strips of rows; one row of the output in a strip; too wide for a strip
    *[depthwise((h, w), (7, 7), s, shift=2)
      for h, w, s in ((90, 100, (1, 1)), (90, 100, (2, 2)), (5, 860, (1, 1)), (3, 900, (1, 1)))],
    *[depthwise((11, 13), k, s) for k, s in (((4, 6), (1, 1)), ((1, 9), (1, 1)), ((9, 9), (2, 1)),
      ((3, 3), (1, 2)), ((5, 5), (3, 3)), ((2, 2), (2, 2)), ((7, 1), (2, 3)), ((1, 1), (1, 1)))],
    *[depthwise((9, 11), (3, 3), s, padding=p)
      for s, p in (((1, 1), (0, 0, 0, 0)), ((2, 2), (0, 1, 2, 0)), ((2, 2), (1, 0, 1, 2)))],
    Case("depthwise residual", depthwise_residual, (1, 3)),
    Case("empty rows", empty_rows),
    *[Case(f"residual {k}x{k} {n} {a}", residual(k, n, a), (1, 17))
      for k, n, a in ((3, 8, "relu"), (3, 3, "none"), (1, 5, "relu"), (5, 9, "relu6"))],
    *[Case(f"sum in place of its residual {k}x{k} {n}", residual(k, n, "relu", True, c), (1, 17))
      for k, n, c in ((3, 8, 5), (3, 2, 5), (3, 17, 3), (1, 1, 20), (1, 9, 270), (5, 9, 5))],
    Case("residuals needed again", residuals_needed_again, (1, 17)),
    # pooling
    pool("max_pool2d", (8, 8), (2, 2), (2, 2)),
    pool("max_pool2d", (5, 33), (2, 2), (2, 2)),
    pool("max_pool2d", (4, 74), (2, 2), (2, 2)),
    pool("max_pool2d", (9, 7), (3, 3), (2, 2), SAME),
    pool("max_pool2d", (7, 7), (2, 2), (2, 2), (0, 0, 1, 1)),
    pool("max_pool2d", (12, 10), (3, 2), (1, 3), (1, 0, 1, 1), (2, 3)),
    pool("max_pool2d", (3, 1200), (2, 3), (2, 2), (0, 1, 0, 1)),
    pool("avg_pool2d", (8, 8), (2, 2), (2, 2)),
    pool("avg_pool2d", (3, 23), (2, 2), (2, 2)),
    pool("avg_pool2d", (9, 7), (3, 3), (2, 2), SAME, count_include_pad=True),
    pool("avg_pool2d", (9, 7), (3, 3), (2, 2), SAME, count_include_pad=False),
    pool("avg_pool2d", (6, 7), (3, 3), (2, 2), (0, 0, 1, 1), count_include_pad=True),
    pool("avg_pool2d", (3, 1200), (2, 3), (2, 2), (0, 1, 0, 1), count_include_pad=True),
    *[Case(f"global_avg_pool {s}", unary("global_avg_pool", (7, *s), (7, 1, 1)), (1, 17))
      for s in ((1, 1), (4, 4), (7, 7), (17, 3))],
    # the rest
    Case("relu", unary("activation", (3, 5, 7), (3, 5, 7), activation="relu"), (1, 17)),
    Case("relu6 flat", unary("activation", (37,), (37,), activation="relu6"), (1, 17)),
    Case("softmax flat", unary("softmax", (10,), (10,)), (1, 17)),
    Case("softmax map", unary("softmax", (10, 3, 3), (10, 3, 3)), (1, 17)),
    Case("flatten", unary("flatten", (3, 4, 5), (60,)), (1, 17)),
    *[Case(f"linear {f}->{o} density {d}",
           lambda b, f=f, o=o, d=d: b.linear(b.input((f,)), o, density=d, activation="relu"))
      for f, o, d in ((1, 1, 1.0), (64, 10, 1.0), (100, 33, 0.1), (77, 5, 1.0), (20, 3, 0.0))],
    Case("chain", chain),
]  # fmt: skip


def load(
    model: bytes, isa: str, lanes: int, threads: int = 1, precision: str = "fast", choices=None
):
    return _core.Engine.load_bytes(model, "case", threads, isa, lanes, precision, choices or {})


def engines(model: bytes, isa: str, lanes: int, precision: str):
    """The engine as planned, then one for each further way to compute the layers: in the n-th of
    them every layer takes its n-th candidate."""
    planned = load(model, isa, lanes, precision=precision)
    yield planned
    layers = planned.candidates
    for rank in range(max((len(layer.names) for layer in layers), default=0)):
        choices = {
            (layer.lanes, layer.node): layer.names[min(rank, len(layer.names) - 1)]
            for layer in layers
        }
        yield load(model, isa, lanes, precision=precision, choices=choices)


@pytest.mark.parametrize(("isa", "lanes"), MODES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_on_integers(case: Case, isa: str, lanes: int) -> None:
    """Small whole numbers leave no rounding: any difference is a wrong index or a missing tap."""
    if case.name.startswith(("softmax", "avg_pool2d", "global")):
        tolerance = 1e-6  # these divide
    else:
        tolerance = 0.0
    b = GraphBuilder(np.random.default_rng(1), integers=True)
    model = b.file(case.build(b))
    batches = [b.batch(batch) for batch in case.batches]
    expected = None
    for engine in engines(model, isa, lanes, "strict"):
        if expected is None:
            expected = [engine.run_reference(inputs)[0] for inputs in batches]
        for inputs, want in zip(batches, expected, strict=True):
            np.testing.assert_allclose(engine.run(inputs)[0], want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("isa", "lanes"), MODES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_close_on_floats(case: Case, isa: str, lanes: int) -> None:
    """On floats the only difference to the float64 reference is rounding: relative L2 1e-5, with
    every kernel that could be chosen."""
    b = GraphBuilder(np.random.default_rng(2))
    model = b.file(case.build(b))
    batches = [b.batch(batch) for batch in case.batches[:2]]
    expected = None
    for engine in engines(model, isa, lanes, "fast"):
        if expected is None:
            expected = [engine.run_reference(inputs)[0] for inputs in batches]
        for inputs, want in zip(batches, expected, strict=True):
            error = np.linalg.norm(engine.run(inputs)[0] - want)
            assert error <= 1e-5 * max(np.linalg.norm(want), 1e-30)


@pytest.mark.parametrize("isa", _core.available_isas())
def test_the_isa_asked_for_is_the_one_that_runs(isa: str) -> None:
    """Otherwise every test above might test the same kernels."""
    b = GraphBuilder(np.random.default_rng(3))
    model = b.file(b.conv2d(b.input((4, 8, 8)), 4, padding=SAME))
    engine = load(model, isa, 0)
    assert engine.isa == isa
    for batch in (1, 16):
        assert f"/{isa}x" in engine.layers(batch)[0].kernel
