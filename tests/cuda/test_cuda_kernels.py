"""The CUDA kernels, run thread by thread by the emulator, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import GraphBuilder
from runtime.test_kernels import CASES, SAME, Case, conv, grouped

from kernelprune import _core

# The ways in which a convolution may share out its work: tile, groups of a block, splits; then, if
# it is 3x3 with stride 1 and not strict, Winograd's two tiles, each with groups of a block. A layer
# of many output channels has all of them, another one some, counted in circles.
VARIANTS = range(1, 15)
WITH_WINOGRAD = range(1, 23)

# Around the sizes of tiles, groups of output channels and input channels staged at once.
CUDA_CASES = [
    *[conv(n, 5, (6, 6), (1, 3), padding=SAME, density=0.5) for n in (31, 32, 33, 64, 65)],
    *[conv(7, n, (5, 6), (1, 3), padding=SAME, density=0.5) for n in (8, 9, 16, 17, 32, 33, 65)],
    *[conv(5, 6, (h, w), (1, 3), padding=SAME, density=0.5)
      for h, w in ((31, 32), (33, 33), (56, 57), (65, 3), (3, 129), (1, 300), (300, 1))],
    *[conv(5, 40, (n, n), (1, 33), padding=SAME, density=0.5) for n in (2, 4, 5, 7, 8, 9, 14)],
    *[conv(6, n, (15, 14), (1, 5), stride=(2, 2), padding=SAME, density=0.5) for n in (4, 17, 40)],
    *[conv(33, n, (9, 10), (1, 5), kernel=(1, 1), density=0.4) for n in (7, 8, 9, 64, 65, 70)],
    *[conv(9, 7, (h, w), (1, 3), kernel=(1, 1), stride=(s, s), density=0.5)  # 4 floats at a time
      for h, w, s in ((5, 300, 1), (7, 12, 1), (1, 4, 1), (9, 64, 2), (8, 20, 2))],
    *[conv(9, n, (11, 14), (1, 3), kernel=(1, 1), stride=(2, 2), density=0.5) for n in (7, 17, 40)],
    *[conv(3, n, (h, w), (1, 3), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3), density=0.7)
      for n, h, w in ((8, 21, 21), (9, 7, 9), (24, 33, 40), (64, 64, 18))],
    *[conv(n, 9, (h, w), (1, 3), kernel=(5, 5), padding=(2, 2, 2, 2), density=0.5)
      for n, h, w in ((4, 11, 9), (40, 7, 7), (5, 34, 17))],
    conv(5, 6, (4, 4), (257, 513), padding=SAME, density=0.5),
    conv(80, 6, (20, 20), (2,), padding=SAME, density=0.02),
]  # fmt: skip

# Around the tiles of a block (14 and 32), the edges of a map, its groups of 8 output channels, and
# the input channels staged at once: 8 with few connections, fewer with many.
WINOGRAD_CASES = [
    *[case for case in CASES if case.name in ("empty rows", "chain")],
    *[case for case in CASES if case.name.startswith("residual 3x3")],
    grouped(8, 12, 4, 7, 1),
    *[conv(5, 6, (h, w), (1, 3), padding=SAME, density=0.5)
      for h, w in ((1, 1), (2, 3), (4, 4), (5, 8), (6, 6), (13, 12), (14, 27), (3, 57), (28, 32))],
    *[conv(3, 4, (h, w), (1, 2), padding=p, density=0.6, activation="relu6")
      for h, w, p in ((9, 7, (2, 1, 0, 2)), (10, 12, (0, 0, 0, 0)), (3, 3, (0, 0, 0, 0)),
                      (6, 8, (0, 1, 2, 0)), (5, 4, (2, 2, 2, 2)), (7, 10, (1, 0, 1, 2)))],
    *[conv(5, 6, (4, 4), (n,), padding=SAME, density=0.5) for n in (7, 13, 14, 15, 31, 33)],
    *[conv(9, n, (6, 5), (1,), padding=SAME, density=0.4) for n in (7, 8, 9, 17, 33, 63, 65, 130)],
    *[conv(n, 64, (4, 5), (1,), padding=SAME, density=d)
      for n, d in ((7, 0.1), (8, 0.1), (9, 0.1), (33, 0.1), (3, 0.4), (33, 0.4), (5, 1), (9, 1))],
    conv(40, 9, (8, 8), (2,), padding=SAME, density=0.02),
]  # fmt: skip


def load(model: bytes, variant: int, precision: str = "strict"):
    return _core.Engine.load_bytes(
        model, "case", 1, "", 0, precision, device="cuda-emulated", cuda_variant=variant
    )


def winograd_engines(model: bytes) -> dict[tuple[str, ...], _core.Engine]:
    """By the kernels of their layers: the ways to compute the model that use Winograd."""
    found = {}
    for variant in WITH_WINOGRAD:
        engine = load(model, variant, "fast")
        names = tuple(layer.kernel for layer in engine.layers(1))
        if "winograd" in " ".join(names):
            found[names] = engine
    return found


def variants_of(case: Case) -> range:
    convolves = case.name.startswith(("conv", "groups", "empty", "residual", "chain"))
    return VARIANTS if convolves else VARIANTS[:1]


@pytest.mark.parametrize("case", CASES + CUDA_CASES, ids=str)
def test_exact_on_integers(case: Case) -> None:
    """Small whole numbers leave no rounding: any difference is a wrong index or a missing tap.
    Winograd rounds, and is tested below."""
    divides = case.name.startswith(("softmax", "avg_pool2d", "global"))
    tolerance = 1e-6 if divides else 0.0
    b = GraphBuilder(np.random.default_rng(1), integers=True)
    model = b.file(case.build(b))
    engines = [load(model, variant) for variant in variants_of(case)]
    for batch in case.batches:
        inputs = b.batch(batch)
        expected = engines[0].run_reference(inputs)[0]
        for engine in engines if batch == case.batches[0] else engines[:1]:
            np.testing.assert_allclose(
                engine.run(inputs)[0], expected, rtol=tolerance, atol=tolerance, strict=False
            )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_close_on_floats(case: Case) -> None:
    """On floats the only difference to the float64 reference is rounding: relative L2 1e-5."""
    b = GraphBuilder(np.random.default_rng(2))
    engine = load(b.file(case.build(b)), 0, "fast")
    inputs = b.batch(case.batches[0])
    expected = engine.run_reference(inputs)[0]
    error = np.linalg.norm(engine.run(inputs)[0] - expected)
    assert error <= 1e-5 * max(np.linalg.norm(expected), 1e-30)


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_winograd_close(case: Case, integers: bool) -> None:
    """A wrong index or tile changes far more than the rounding that Winograd's constants cause; the
    2x2 tiles have none but halves, which leave no rounding on small whole numbers."""
    b = GraphBuilder(np.random.default_rng(1), integers=integers)
    engines = winograd_engines(b.file(case.build(b)))
    assert any("winograd2" in name for names in engines for name in names)
    assert any("winograd4" in name for names in engines for name in names)
    for batch in case.batches[:2]:
        inputs = b.batch(batch)
        expected = next(iter(engines.values())).run_reference(inputs)[0]
        for names, engine in engines.items():
            exact = integers and "winograd4" not in " ".join(names)
            error = np.linalg.norm(engine.run(inputs)[0] - expected)
            assert error <= (0 if exact else 1e-5) * max(np.linalg.norm(expected), 1e-30), names


def kernels(model: bytes, batch: int = 1, precision: str = "strict") -> list[str]:
    """The kernel of every variant for the model's first layer."""
    variants = WITH_WINOGRAD if precision == "fast" else VARIANTS
    names = [load(model, variant, precision).layers(batch)[0].kernel for variant in variants]
    assert all(name.endswith("/cuda-emulated") for name in names)
    return [name.removesuffix("/cuda-emulated") for name in names]


@pytest.mark.parametrize(
    ("options", "large", "small"),
    [
        ({"padding": SAME}, "conv3x3_s1_4x4", "conv3x3_s1_2x2"),
        ({"padding": SAME, "stride": (2, 2)}, "conv3x3_s2_2x4", "conv3x3_s2_2x2"),
        ({"kernel": (1, 1)}, "conv1x1_s1_4x4", "conv1x1_s1_2x2"),
        ({"kernel": (1, 1), "stride": (2, 2)}, "conv1x1_s2_4x4", "conv1x1_s2_2x2"),
        ({"kernel": (5, 5)}, "conv5x5_s1_1x8", "conv5x5_s1_1x4"),
        ({"kernel": (7, 7), "stride": (2, 2)}, "conv7x7_s2_1x8", "conv7x7_s2_1x4"),
    ],
)
def test_every_variant_runs(options: dict, large: str, small: str) -> None:
    """Otherwise the tests above might test one kernel under several names."""
    b = GraphBuilder(np.random.default_rng(3))
    names = kernels(b.file(b.conv2d(b.input((40, 9, 9)), 64, **options)))
    split = [f"{small}_split{splits}" for splits in (2, 4, 8)]
    assert set(names) == {large, small, *split}
    assert names[:4] == [large] * 4  # 8, 4, 2 and 1 groups in a block


def test_every_winograd_variant_runs() -> None:
    """As above; and a strict engine must never use it."""
    b = GraphBuilder(np.random.default_rng(3))
    model = b.file(b.conv2d(b.input((40, 9, 9)), 64, padding=SAME))
    names = [f"winograd{m}{s}" for m in (4, 2) for s in ("", "_split2", "_split4", "_split8")]
    assert kernels(model, precision="fast")[len(VARIANTS) :] == names
    assert not set(kernels(model)) & set(names)


@pytest.mark.parametrize(
    ("options", "out_channels"),
    [({"stride": (2, 2)}, 64), ({"kernel": (5, 5)}, 64), ({"dilation": (2, 2)}, 64)],
)
def test_winograd_is_for_3x3_with_stride_1(options: dict, out_channels: int) -> None:
    """Its tiles know no other window."""
    b = GraphBuilder(np.random.default_rng(3))
    model = b.file(b.conv2d(b.input((4, 9, 9)), out_channels, **options))
    assert "winograd" not in " ".join(kernels(model, precision="fast"))


def test_other_convolutions_run_in_the_general_kernel() -> None:
    """A 4x4 convolution in a kernel for 3x3 would read foreign weights."""
    b = GraphBuilder(np.random.default_rng(3))
    assert set(kernels(b.file(b.conv2d(b.input((4, 9, 9)), 4, kernel=(4, 4))))) == {"conv_general"}


def test_the_cheapest_variant_follows_the_batch() -> None:
    """Many images need large tiles, which read less; few need all warps of the GPU."""
    b = GraphBuilder(np.random.default_rng(3))
    engine = load(b.file(b.conv2d(b.input((256, 8, 8)), 256, padding=SAME, density=0.1)), 0, "fast")
    assert engine.layers(1)[0].kernel == "conv3x3_s1_2x2_split8/cuda-emulated"
    assert engine.layers(256)[0].kernel == "conv3x3_s1_4x4/cuda-emulated"


def test_winograd_pays_where_many_outputs_share_a_patch() -> None:
    """At density 0.3 and above on many tiles; with few connections its transforms cost more than
    they save, and few tiles leave most of the GPU idle."""

    def chosen(density: float, batch: int, precision: str = "fast") -> str:
        b = GraphBuilder(np.random.default_rng(3))
        x = b.input((128, 28, 28))
        model = b.file(b.conv2d(x, 128, padding=SAME, density=density))
        return load(model, 0, precision).layers(batch)[0].kernel

    assert chosen(0.3, 64) == "winograd4/cuda-emulated"
    assert chosen(0.3, 64, "strict") == chosen(0.05, 64) == "conv3x3_s1_4x4/cuda-emulated"
    assert "winograd" not in chosen(0.3, 1)


def test_splits_are_added_in_a_fixed_order() -> None:
    """Results that change from run to run cannot be compared with anything."""
    b = GraphBuilder(np.random.default_rng(4))
    engine = load(b.file(b.conv2d(b.input((64, 4, 4)), 16, padding=SAME, density=0.5)), 0)
    inputs = b.batch(1)
    assert "split" in engine.layers(1)[0].kernel
    np.testing.assert_array_equal(engine.run(inputs)[0], engine.run(inputs)[0])
