"""The CUDA kernels, run thread by thread by the emulator, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import GraphBuilder
from runtime.test_kernels import CASES, SAME, Case, conv

from kernelprune import _core

# The ways in which a convolution may share out its work: tile, groups of a block, splits. A layer
# of many output channels has all of them, another one some, counted in circles.
VARIANTS = range(1, 15)

# Around the sizes of tiles, groups of output channels and input channels staged at once.
CUDA_CASES = [
    *[conv(n, 5, (6, 6), (1, 3), padding=SAME, density=0.5) for n in (31, 32, 33, 64, 65)],
    *[conv(7, n, (5, 6), (1, 3), padding=SAME, density=0.5) for n in (8, 9, 16, 17, 32, 33, 65)],
    *[conv(5, 6, (h, w), (1, 3), padding=SAME, density=0.5)
      for h, w in ((31, 32), (33, 33), (56, 57), (65, 3), (3, 129), (1, 300), (300, 1))],
    *[conv(5, 40, (n, n), (1, 33), padding=SAME, density=0.5) for n in (2, 4, 5, 7, 8, 9, 14)],
    *[conv(6, n, (15, 14), (1, 5), stride=(2, 2), padding=SAME, density=0.5) for n in (4, 17, 40)],
    *[conv(33, n, (9, 10), (1, 5), kernel=(1, 1), density=0.4) for n in (7, 8, 9, 64, 65, 70)],
    *[conv(9, n, (11, 14), (1, 3), kernel=(1, 1), stride=(2, 2), density=0.5) for n in (7, 17, 40)],
    *[conv(3, n, (h, w), (1, 3), kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3), density=0.7)
      for n, h, w in ((8, 21, 21), (9, 7, 9), (24, 33, 40), (64, 64, 18))],
    *[conv(n, 9, (h, w), (1, 3), kernel=(5, 5), padding=(2, 2, 2, 2), density=0.5)
      for n, h, w in ((4, 11, 9), (40, 7, 7), (5, 34, 17))],
    conv(5, 6, (4, 4), (257, 513), padding=SAME, density=0.5),
    conv(80, 6, (20, 20), (2,), padding=SAME, density=0.02),
]  # fmt: skip


def load(model: bytes, variant: int):
    return _core.Engine.load_bytes(
        model, "case", 1, "", 0, device="cuda-emulated", cuda_variant=variant
    )


def variants_of(case: Case) -> range:
    convolves = case.name.startswith(("conv", "groups", "empty", "residual", "chain"))
    return VARIANTS if convolves else VARIANTS[:1]


@pytest.mark.parametrize("case", CASES + CUDA_CASES, ids=str)
def test_exact_on_integers(case: Case) -> None:
    """Small whole numbers leave no rounding: any difference is a wrong index or a missing tap."""
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
    engine = load(b.file(case.build(b)), 0)
    inputs = b.batch(case.batches[0])
    expected = engine.run_reference(inputs)[0]
    error = np.linalg.norm(engine.run(inputs)[0] - expected)
    assert error <= 1e-5 * max(np.linalg.norm(expected), 1e-30)


def kernels(model: bytes, batch: int = 1) -> list[str]:
    """The kernel of every variant for the model's first layer."""
    names = [load(model, variant).layers(batch)[0].kernel for variant in VARIANTS]
    assert all(name.endswith("/cuda-emulated") for name in names)
    return [name.removesuffix("/cuda-emulated") for name in names]


@pytest.mark.parametrize(
    ("options", "large", "small"),
    [
        ({"padding": SAME}, "conv3x3_s1_4x4", "conv3x3_s1_2x2"),
        ({"padding": SAME, "stride": (2, 2)}, "conv3x3_s2_2x4", "conv3x3_s2_2x2"),
        ({"kernel": (1, 1)}, "conv1x1_s1_2x4", "conv1x1_s1_1x2"),
        ({"kernel": (1, 1), "stride": (2, 2)}, "conv1x1_s2_2x4", "conv1x1_s2_1x2"),
        ({"kernel": (5, 5)}, "conv5x5_s1_1x4", "conv5x5_s1_1x2"),
        ({"kernel": (7, 7), "stride": (2, 2)}, "conv7x7_s2_1x4", "conv7x7_s2_1x2"),
    ],
)
def test_every_variant_runs(options: dict, large: str, small: str) -> None:
    """Otherwise the tests above might test one kernel under several names."""
    b = GraphBuilder(np.random.default_rng(3))
    names = kernels(b.file(b.conv2d(b.input((40, 9, 9)), 64, **options)))
    split = [f"{small}_split{splits}" for splits in (2, 4, 8)]
    assert set(names) == {large, small, *split}
    assert names[:4] == [large] * 4  # 8, 4, 2 and 1 groups in a block


def test_other_convolutions_run_in_the_general_kernel() -> None:
    """A 4x4 convolution in a kernel for 3x3 would read foreign weights."""
    b = GraphBuilder(np.random.default_rng(3))
    assert set(kernels(b.file(b.conv2d(b.input((4, 9, 9)), 4, kernel=(4, 4))))) == {"conv_general"}


def test_the_cheapest_variant_follows_the_batch() -> None:
    """Many images need large tiles, which read less; few need all warps of the GPU."""
    b = GraphBuilder(np.random.default_rng(3))
    engine = load(b.file(b.conv2d(b.input((256, 8, 8)), 256, padding=SAME, density=0.1)), 0)
    assert engine.layers(1)[0].kernel == "conv3x3_s1_2x2_split8/cuda-emulated"
    assert engine.layers(256)[0].kernel == "conv3x3_s1_4x4/cuda-emulated"


def test_splits_are_added_in_a_fixed_order() -> None:
    """Results that change from run to run cannot be compared with anything."""
    b = GraphBuilder(np.random.default_rng(4))
    engine = load(b.file(b.conv2d(b.input((64, 4, 4)), 16, padding=SAME, density=0.5)), 0)
    inputs = b.batch(1)
    assert "split" in engine.layers(1)[0].kernel
    np.testing.assert_array_equal(engine.run(inputs)[0], engine.run(inputs)[0])
