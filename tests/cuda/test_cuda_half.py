"""Half precision and the tensor cores: the CUDA kernels that compute with them, in the emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda.test_cuda_kernels import CUDA_CASES
from cuda.test_cuda_models import MODELS
from graphs import GraphBuilder
from runtime.test_kernels import CASES, SAME, Case, conv
from runtime.test_models import relative_error

import kernelprune as kp
from kernelprune import _core

ROOT = Path(__file__).resolve().parent.parent.parent

# A layer of 64 output channels and more: 14 ways of conv_half, then conv_mma with 32 output
# channels and, for 1, 2, 4 and 8 splits, with 8.
DIRECT, MMA = range(1, 15), range(15, 20)

# Around chunks of 8 and 16 input channels, groups of 8 and 32 output channels, 16 positions of 2
# and 4 rows, rows of odd length.
MMA_CASES = [
    *[conv(n, 9, (6, 6), (1, 3), padding=SAME, density=0.8) for n in (7, 8, 9, 15, 16, 17, 33, 49)],
    *[conv(9, n, (5, 7), (1, 3), padding=SAME, density=0.8) for n in (1, 8, 9, 31, 32, 33, 65)],
    *[conv(9, 10, (h, w), (1, 2), padding=SAME, density=0.7)
      for h, w in ((1, 5), (5, 1), (4, 16), (5, 17), (9, 15), (33, 34), (2, 131))],
    *[conv(18, 33, (h, w), (1, 2), stride=(2, 2), padding=SAME, density=0.7)
      for h, w in ((8, 8), (9, 15), (34, 33))],
    *[conv(18, 33, (h, w), (1, 2), kernel=(1, 1), stride=s, density=0.7)
      for h, w in ((7, 9), (16, 8)) for s in ((1, 1), (2, 2))],
    conv(10, 9, (8, 9), (1, 2), density=0.7),
    conv(10, 9, (8, 9), (1, 2), padding=(2, 2, 2, 2), density=0.7, activation="relu6"),
    conv(4, 9, (5, 5), (1,), padding=SAME, density=0.0),
    conv(5, 9, (7, 7), (33,), padding=SAME, density=0.6),
]  # fmt: skip

# Even paddings on the left, which the words of a row do not begin with.
EVEN_CASES = [
    conv(9, n, (h, w), (1, 3), stride=(s, s), padding=(1, left, 0, right), density=0.5)
    for n, h, w, left, right in
    ((7, 8, 9, 0, 0), (17, 9, 14, 2, 1), (40, 5, 33, 0, 2), (4, 7, 7, 2, 2))
    for s in (1, 2)
]  # fmt: skip


def load(model: bytes, precision: str, variant: int = 0):
    return _core.Engine.load_bytes(
        model, "case", 1, "", 0, precision, device="cuda-emulated", cuda_variant=variant
    )


def kernels(model: bytes, precision: str, variants: range) -> list[str]:
    return [
        load(model, precision, variant).layers(1)[0].kernel.removesuffix("/cuda-emulated")
        for variant in variants
    ]


# --- numbers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory):
    """The results of half_numbers.cc for lines of requests."""
    program = tmp_path_factory.mktemp("half") / "half_numbers"
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    options = ["-std=c++17", "-O1", "-Icsrc", "-Icsrc/include", "-Wall", "-Wextra", "-Werror"]
    source = "tests/cuda/half_numbers.cc"
    subprocess.run([compiler, *options, source, "-o", str(program)], check=True, cwd=ROOT)

    def run(lines: list[str]) -> np.ndarray:
        text = "\n".join(lines)
        done = subprocess.run([program], input=text, check=True, capture_output=True, text=True)
        return np.array([int(line) for line in done.stdout.split()], np.uint32)

    return run


def test_halves_are_converted_exactly(numbers) -> None:
    """The emulator would otherwise prove kernels on numbers that no GPU has."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        wide = halves.view(np.float16).astype(np.float32)
    got = numbers([f"w {bits}" for bits in halves]).view(np.float32)
    np.testing.assert_array_equal(got, wide)
    back = numbers([f"n {bits}" for bits in wide.view(np.uint32)]).astype(np.uint16)
    np.testing.assert_array_equal(back.view(np.float16), halves.view(np.float16))


def test_floats_are_rounded_as_ieee_says(numbers) -> None:
    """Ties, subnormals, overflow: what a wrong carry or shift would get wrong."""
    rng = np.random.default_rng(0)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = ((halves[1:] + halves[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(limit)) for limit in (0, np.inf)]
    edges = np.array([0, 65504, 65519.996, 65520, 1e-8, 2**-25, 3e38, np.inf], np.float32)
    some = rng.integers(0, 1 << 32, 20000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    floats = np.concatenate([middles, *near, edges, -edges, some[~np.isnan(some)]])
    got = numbers([f"n {bits}" for bits in floats.view(np.uint32)]).astype(np.uint16)
    with np.errstate(over="ignore"):
        expected = floats.astype(np.float16)
    np.testing.assert_array_equal(got, expected.view(np.uint16))


def nearest_half(value: Fraction) -> np.float16:
    """The half nearest to an exact number, by comparing it with the neighbours of a guess."""
    with np.errstate(over="ignore"):
        guess = np.float16(float(value))
    if not np.isfinite(guess):
        guess = np.float16(np.copysign(65504, float(value)))
    near = [
        guess,
        np.nextafter(guess, np.float16(np.inf)),
        np.nextafter(guess, np.float16(-np.inf)),
    ]
    near = [half for half in near if np.isfinite(half)]
    return min(near, key=lambda h: (abs(Fraction(float(h)) - value), int(h.view(np.uint16)) & 1))


def test_fused_products_of_halves_round_once(numbers) -> None:
    """By way of a float32 or double sum some results would be rounded twice."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 0x7800, (3000, 3)) | rng.integers(0, 2, (3000, 3)) << 15
    bits[:1500, 2] = rng.integers(0, 0x800, 1500)  # tiny addends, which decide ties
    got = numbers([f"f {a} {b} {c}" for a, b, c in bits]).astype(np.uint16).view(np.float16)
    halves = bits.astype(np.uint16).view(np.float16)
    for (a, b, c), result in zip(halves, got, strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        if abs(exact) >= 65520:
            assert np.isinf(result)
        else:
            assert result == nearest_half(exact), (a, b, c)


def test_floats_are_rounded_to_tf32(numbers) -> None:
    """10 bits of mantissa, ties away from zero, as cvt.rna.tf32 does."""
    floats = np.array([1, 1 + 2**-11, 1 + 2**-11 - 2**-20, -1 - 2**-11, 3e38, np.inf], np.float32)
    got = numbers([f"t {bits}" for bits in floats.view(np.uint32)]).view(np.float32)
    expected = np.array([1, 1 + 2**-10, 1, -1 - 2**-10, 3e38, np.inf], np.float32)
    np.testing.assert_array_equal(got[[0, 1, 2, 3, 5]], expected[[0, 1, 2, 3, 5]])
    assert abs(got[4] / np.float64(3e38) - 1) <= 2**-11


# --- kernels -------------------------------------------------------------------------------------


def check(case: Case, precision: str, variants: Sequence[int], tolerance: float = 0.0) -> None:
    b = GraphBuilder(np.random.default_rng(1), integers=True)
    model = b.file(case.build(b))
    engines = [load(model, precision, variant) for variant in variants]
    for batch in case.batches:
        inputs = b.batch(batch)
        expected = engines[0].run_reference(inputs)[0]
        if precision == "half":
            expected = expected.astype(np.float16).astype(np.float64)
        for engine in engines if batch == case.batches[0] else engines[:1]:
            got = engine.run(inputs)[0]
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES + CUDA_CASES + EVEN_CASES, ids=str)
def test_halves_are_exact_on_integers(case: Case) -> None:
    """Whole numbers up to 2048 are halves: any difference is a wrong index or a missing tap."""
    divides = case.name.startswith(("softmax", "avg_pool2d", "global", "every", "chain"))
    convolves = case.name.startswith(("conv", "groups", "empty", "residual"))
    variants = range(0, 20, 3) if convolves else range(1)
    check(case, "half", variants, 1e-3 if divides else 0.0)


@pytest.mark.parametrize("case", CASES[::3] + MMA_CASES[::4], ids=str)
def test_halves_are_close_on_floats(case: Case) -> None:
    """Sums of too many products in halves would lose more than storing the result does."""
    b = GraphBuilder(np.random.default_rng(2))
    model = b.file(case.build(b))
    inputs = b.batch(case.batches[0])
    for variant in (0, 1):
        engine = load(model, "half", variant)
        expected = engine.run_reference(inputs)[0]
        error = np.linalg.norm(engine.run(inputs)[0] - expected)
        assert error <= 2e-3 * max(np.linalg.norm(expected), 1e-30)


@pytest.mark.parametrize("precision", ["half", "tf32"])
@pytest.mark.parametrize("case", MMA_CASES, ids=str)
def test_tensor_cores_are_exact_on_integers(case: Case, precision: str) -> None:
    """A lane that holds another element of a matrix than the PTX ISA says gives wrong sums."""
    model = GraphBuilder(np.random.default_rng(1), integers=True)
    ways = kernels(model.file(case.build(model)), precision, range(1, 25))
    first = {name: variant for variant, name in reversed(list(enumerate(ways, 1)))}
    check(case, precision, [first[name] for name in first if name.startswith("mma")] or [0])


@pytest.mark.parametrize("precision", ["half", "tf32"])
def test_every_way_runs(precision: str) -> None:
    """Otherwise the tests above might test one kernel under several names."""
    b = GraphBuilder(np.random.default_rng(3))
    model = b.file(b.conv2d(b.input((40, 9, 9)), 64, padding=SAME))
    direct, mma = kernels(model, precision, DIRECT), kernels(model, precision, MMA)
    small = "half3x3_s1_2x2" if precision == "half" else "conv3x3_s1_2x2"
    large = "half3x3_s1_2x4" if precision == "half" else "conv3x3_s1_4x4"
    assert set(direct) == {large, small, *[f"{small}_split{n}" for n in (2, 4, 8)]}
    assert mma == [
        "mma3x3_s1_32",
        *["mma3x3_s1_8" + s for s in ("", "_split2", "_split4", "_split8")],
    ]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"padding": SAME}, "3x3_s1"),
        ({"padding": SAME, "stride": (2, 2)}, "3x3_s2"),
        ({"kernel": (1, 1)}, "1x1_s1"),
        ({"kernel": (1, 1), "stride": (2, 2)}, "1x1_s2"),
        ({"kernel": (5, 5), "padding": (2, 2, 2, 2)}, "5x5_s1"),
        ({"kernel": (7, 7), "stride": (2, 2), "padding": (3, 3, 3, 3)}, "7x7_s2"),
    ],
)
def test_every_shape_has_a_kernel_for_halves(options: dict, name: str) -> None:
    """A shape that fell through to the general kernel would be slow, and nobody would see it."""
    b = GraphBuilder(np.random.default_rng(3))
    model = b.file(b.conv2d(b.input((8, 12, 12)), 8, **options))
    assert name in kernels(model, "half", range(1, 2))[0]


def test_padding_moves_the_words() -> None:
    """conv_half reads two columns at a time: with a row moved by one it would read others."""
    for padding in range(3):
        for stride in (1, 2):
            b = GraphBuilder(np.random.default_rng(3))
            options = {"padding": (0, padding, 0, 0), "stride": (stride, stride)}
            model = b.file(b.conv2d(b.input((4, 9, 9)), 4, **options))
            (name,) = kernels(model, "half", range(1, 2))
            assert name == f"half3x3_s{stride}_2x4" + ("" if padding == 1 else "_even")
    b = GraphBuilder(np.random.default_rng(3))
    model = b.file(b.conv2d(b.input((4, 9, 9)), 4, kernel=(5, 5), padding=(1, 1, 1, 1)))
    assert kernels(model, "half", range(1)) == ["conv_general"]


def test_density_decides_about_the_tensor_cores() -> None:
    """Few connections share no inputs: the tensor cores would multiply zeros."""
    for density, name in ((0.02, "half3x3"), (1.0, "mma3x3")):
        b = GraphBuilder(np.random.default_rng(3))
        model = b.file(b.conv2d(b.input((256, 16, 16)), 256, padding=SAME, density=density))
        assert load(model, "half").layers(64)[0].kernel.startswith(name)
    assert load(model, "fast").layers(64)[0].kernel.startswith(("conv3x3", "winograd"))


def test_channels_that_share_inputs_come_into_one_group() -> None:
    """Without the order a layer pruned in groups would look as if it were pruned at random."""
    rng = np.random.default_rng(5)
    mask = np.zeros((64, 64), bool)
    for o in range(64):  # 8 kinds of output channels, each with inputs of its own
        mask[o, o % 8 * 8 : o % 8 * 8 + 8] = True
    mask = mask[rng.permutation(64)]
    b = GraphBuilder(rng)
    model = b.file(b.conv2d(b.input((64, 16, 16)), 64, padding=SAME, mask=mask))
    assert load(model, "tf32").layers(256)[0].kernel.startswith("mma3x3_s1_8")
    c = GraphBuilder(np.random.default_rng(6))
    shuffled = c.mask(64, 64, 0.125)
    model = c.file(c.conv2d(c.input((64, 16, 16)), 64, padding=SAME, mask=shuffled))
    assert load(model, "tf32").layers(256)[0].kernel.startswith("conv3x3")


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [("half", 5e-3), ("tf32", 5e-3)])
@pytest.mark.parametrize("name", MODELS)
def test_models_agree_with_the_cpu(
    tmp_path: Path, name: str, precision: str, tolerance: float
) -> None:
    """Storage, rows of odd length, conversions and launches of a network together only round."""
    build, size = MODELS[name]
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    x = torch.randn(3, 3, size, size)
    kp.export(build().eval(), x[:2], path)
    cpu, cuda = kp.Engine(path), kp.Engine(path, device="cuda-emulated", precision=precision)
    for batch in (1, 3):
        expected = cpu.run(x[:batch]).numpy()
        got = cuda.run(x[:batch])
        assert got.dtype == torch.float32
        assert relative_error(got.numpy(), expected) <= tolerance


@pytest.fixture
def odd_model(tmp_path: Path) -> Path:
    """Maps with rows of odd length through every op that has to keep what pads them."""
    b = GraphBuilder(np.random.default_rng(0), integers=True)
    x = b.input((3, 9, 7))
    y = b.conv2d(x, 8, padding=SAME, density=0.5, activation="relu6")
    z = b.node("concat", [y, x], (11, 9, 7))
    features = b.node("flatten", [z], (11 * 63,))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b.file(z, b.linear(features, 5, density=0.1), x))
    return path


def test_halves_in_halves_out(odd_model: Path) -> None:
    """Users of float16 tensors must get the numbers of float32 ones, of maps of odd size too."""
    engine = kp.Engine(odd_model, device="cuda-emulated", precision="half")
    x = np.random.default_rng(1).integers(-3, 4, (4, 3, 9, 7)).astype(np.float32)
    expected = kp.Engine(odd_model).run(x)
    for value in (x, x.astype(np.float16), torch.from_numpy(x).half()):
        outputs = engine.run(value)
        for got, want in zip(outputs, expected, strict=True):
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(np.asarray(got, np.float32), want)
    np.testing.assert_array_equal(engine.run(x)[2], x)


def test_precisions_of_other_devices(odd_model: Path) -> None:
    """An engine that silently took another precision would be measured as what it is not."""
    for precision in ("half", "tf32"):
        with pytest.raises(kp.DeviceError, match=f"'{precision}' is for CUDA devices"):
            kp.Engine(odd_model, precision=precision)
        with pytest.raises(kp.DeviceError, match="CUDA"):
            _core.Engine.load(str(odd_model), 1, "", 0, precision)
    with pytest.raises(kp.Error, match="must be one of fast, strict, tf32, half"):
        kp.Engine(odd_model, device="cuda-emulated", precision="bfloat16")
    x = np.zeros((1, 3, 9, 7), np.float16)
    for options in ({}, {"device": "cuda-emulated"}):
        with pytest.raises(kp.ShapeError, match="must be float32"):
            kp.Engine(odd_model, **options).run(x)
    half = kp.Engine(odd_model, device="cuda-emulated", precision="half")
    with pytest.raises(kp.ShapeError, match=r"\['batch', 3, 9, 7\]"):
        half.run(x[:, :, :8])


def test_numbers_too_large_for_halves_become_infinite(tmp_path: Path) -> None:
    """As documented; a wrapped exponent would give small numbers that look right."""
    b = GraphBuilder(np.random.default_rng(0))
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        b.file(b.node("activation", [b.input((2, 2, 2))], (2, 2, 2), activation="relu"))
    )
    engine = kp.Engine(path, device="cuda-emulated", precision="half")
    x = np.full((1, 2, 2, 2), 7e4, np.float32)
    assert np.isposinf(engine.run(x)).all()
