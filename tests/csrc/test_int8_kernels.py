"""The int8 kernels of every instruction set against plain integer loops (csrc/int8, C++), bit by
bit: a program reads the cases below and says which differ."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_folder import build_target

ISAS = ("portable", "avx2", "avx_vnni", "avx512", "avx512_vnni")


class Checker:
    """The program, and the instruction sets that this machine has."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.isas = self.said([])[0].split()

    def said(self, cases: list[str]) -> list[str]:
        """One line for the instruction sets, and one for each case."""
        text = "".join(case + "\n" for case in cases)
        done = subprocess.run([self.program], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout.splitlines()

    def check(self, isa: str, cases: list[str]) -> None:
        if isa not in self.isas:
            pytest.skip(f"this machine has no {isa}")
        cases = [f"{case} isa={isa} seed={number}" for number, case in enumerate(cases)]
        answers = self.said(cases)[1:]
        assert len(answers) == len(cases) > 0
        wrong = [
            f"{case}: {answer}"
            for case, answer in zip(cases, answers, strict=True)
            if answer != "ok"
        ]
        assert wrong == [], f"{len(wrong)} of {len(cases)}"


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker(build_target("kernelprune_int8_check"))


def words(**values: object) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def window(
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> str:
    """Padding: top, left, bottom, right."""
    top, left, bottom, right = padding
    return words(
        kh=kernel[0], kw=kernel[1], sh=stride[0], sw=stride[1], dh=dilation[0], dw=dilation[1],
        pt=top, pl=left, pb=bottom, pr=right,
    )  # fmt: skip


def same(kernel: int, dilation: int = 1) -> tuple[int, int, int, int]:
    return (dilation * (kernel - 1) // 2,) * 4


# Name -> window and the least side of a map that it fits.
WINDOWS = {
    "1x1": (window((1, 1)), 1),
    "1x1 stride 2": (window((1, 1), (2, 2)), 1),
    "3x3": (window((3, 3), padding=same(3)), 1),
    "3x3 valid": (window((3, 3)), 3),
    "3x3 stride 2": (window((3, 3), (2, 2), same(3)), 1),
    "3x3 stride 2, padded behind": (window((3, 3), (2, 2), (0, 0, 1, 1)), 2),
    "3x3 padded before": (window((3, 3), padding=(1, 1, 0, 0)), 2),
    "3x3 stride 3": (window((3, 3), (3, 3), same(3)), 1),
    "3x3 stride 2x1": (window((3, 3), (2, 1), same(3)), 1),
    "3x3 dilation 2": (window((3, 3), padding=same(3, 2), dilation=(2, 2)), 1),
    "3x3 dilation 2, stride 2": (window((3, 3), (2, 2), same(3, 2), (2, 2)), 1),
    "5x5": (window((5, 5), padding=same(5)), 1),
    "5x5 stride 2": (window((5, 5), (2, 2), same(5)), 1),
    "7x7 stride 2": (window((7, 7), (2, 2), same(7)), 2),
    "1x7": (window((1, 7), padding=(0, 3, 0, 3)), 1),
    "7x1": (window((7, 1), padding=(3, 0, 3, 0)), 1),
    "2x2 stride 2": (window((2, 2), (2, 2)), 2),
}
# Sides of maps: one position, less and more than vectors and tiles of all instruction sets, whole
# bands with and without room for padding.
MAPS = [(1, 1), (2, 2), (4, 4), (5, 3), (7, 7), (8, 8), (14, 14), (16, 16), (3, 33), (32, 32),
        (6, 64), (2, 129)]  # fmt: skip
EPILOGUES = [
    words(zin=0, zout=0, out="bytes", residual="none", act="none"),
    words(zin=128, zout=131, out="bytes", residual="none", act="relu"),
    words(zin=255, zout=3, out="bytes", residual="bytes", act="relu6"),
    words(zin=17, zout=255, out="bytes", residual="bytes", act="none"),
    words(zin=1, zout=90, out="bytes", residual="floats", act="none"),
    words(zin=77, zout=0, out="floats", residual="none", act="relu6"),
    words(zin=77, zout=0, out="floats", residual="bytes", act="none"),
    words(zin=200, zout=0, out="floats", residual="floats", act="relu"),
]
CHANNELS = [(3, 4), (5, 1), (17, 13), (1, 6), (64, 7), (8, 12)]


def convolutions(
    way: str,
    names: list[str],
    maps: list[tuple[int, int]] | None = None,
    densities: tuple[float, ...] = (0.3, 0.1),
    images: int = 1,
) -> Iterator[str]:
    """Every window with every map that it fits; the rest takes turns."""
    turn = 0
    for name in names:
        text, least = WINDOWS[name]
        for h, w in maps or MAPS:
            if min(h, w) < least:
                continue
            channels, outputs = CHANNELS[turn % len(CHANNELS)]
            shape = words(
                c=channels, o=outputs, h=h, w=w, groups=1, pieces=1 + turn % 3,
                density=densities[turn % len(densities)], images=images,
            )  # fmt: skip
            epilogue = EPILOGUES[turn % len(EPILOGUES)]
            yield f"convolution way={way} {text} {shape} {epilogue}"
            turn += 1


ROWS = ["3x3", "3x3 valid", "3x3 stride 2", "3x3 stride 2, padded behind", "3x3 padded before"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("way", ["windows", "quads", "ordered", "dense"])
def test_dword_rows(checker: Checker, isa: str, way: str) -> None:
    """If this fails, a convolution through dword rows (any window, any pattern of connections,
    groups of four, or dense) computes other bytes than the definition says, or writes elsewhere."""
    densities = (1.0, 0.6) if way == "dense" else (0.3, 0.1, 0.9)
    checker.check(isa, list(convolutions(way, list(WINDOWS), densities=densities)))


STACKED = ["1x1", "3x3", "3x3 dilation 2", "5x5", "1x7", "7x1"]
SMALL_MAPS = [(1, 1), (2, 2), (4, 4), (5, 3), (7, 7), (8, 8), (14, 14), (16, 16)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("way", ["windows", "quads", "dense", "rows3x3"])
def test_stacked_maps(checker: Checker, isa: str, way: str) -> None:
    """If this fails, a layer of a batch reads over the edge of an image into the next one, or
    leaves one image's outputs in another."""
    names = ROWS if way == "rows3x3" else STACKED
    checker.check(isa, list(convolutions(way, names, SMALL_MAPS, (0.3, 0.1, 0.9), images=16)))


@pytest.mark.parametrize("isa", ISAS)
def test_rows3x3(checker: Checker, isa: str) -> None:
    """If this fails, 3x3 convolutions on rows of bytes go wrong: at borders, in bands of small
    maps, or where a slot has no room for padding."""
    maps = [*MAPS, (9, 15), (13, 17), (31, 30), (10, 65), (8, 127)]
    checker.check(isa, list(convolutions("rows3x3", ROWS, maps, (0.4, 0.1))))


@pytest.mark.parametrize("isa", ISAS)
def test_interleaved1x1(checker: Checker, isa: str) -> None:
    """If this fails, 1x1 convolutions of connections of any pattern go wrong, such as rows whose
    connections are no multiple of four."""
    maps = [*MAPS, (3, 5), (9, 9), (8, 16)]
    checker.check(isa, list(convolutions("interleaved", ["1x1"], maps * 4, (0.3, 0.1, 1.0))))


@pytest.mark.parametrize("isa", ISAS)
def test_sums_of_blocks(checker: Checker, isa: str) -> None:
    """If this fails, layers with so many channels that they are worked on block by block lose what
    they summed up before."""
    cases = [
        f"convolution way={way} {WINDOWS[name][0]} {EPILOGUES[turn % 4]} "
        + words(c=400, o=9, h=side, w=side, images=1, groups=1, pieces=1 + turn % 2, density=0.1)
        for turn, (way, name, side) in enumerate([
            ("windows", "3x3", 7), ("windows", "3x3", 4), ("windows", "5x5", 9),
            ("windows", "3x3 stride 2", 13), ("quads", "3x3", 8), ("quads", "1x1", 12),
            ("windows", "1x1", 5), ("dense", "3x3", 5),
        ])
    ]  # fmt: skip
    checker.check(isa, cases)


@pytest.mark.parametrize("isa", ISAS)
def test_depthwise(checker: Checker, isa: str) -> None:
    """If this fails, depthwise convolutions go wrong: strips of rows, kernels of more than four
    columns, more outputs than inputs."""
    names = ["3x3", "3x3 valid", "3x3 stride 2", "3x3 stride 2, padded behind", "5x5",
             "5x5 stride 2", "7x7 stride 2", "2x2 stride 2", "1x7", "1x1"]  # fmt: skip
    cases = []
    for turn, (name, (h, w)) in enumerate(
        (name, sides) for name in names for sides in [*MAPS, (11, 13), (60, 260)]
    ):
        text, least = WINDOWS[name]
        if min(h, w) < least:
            continue
        groups = [3, 8, 5][turn % 3]
        shape = words(
            c=groups, o=groups * (1 + turn % 2), h=h, w=w, images=1, groups=groups,
            pieces=1 + turn % 3, density=1.0,
        )  # fmt: skip
        cases.append(f"convolution way=depthwise {text} {shape} {EPILOGUES[turn % len(EPILOGUES)]}")
    checker.check(isa, cases)


@pytest.mark.parametrize("isa", ISAS)
def test_linear(checker: Checker, isa: str) -> None:
    """If this fails, linear layers go wrong: features that are no multiple of four, outputs that
    are no multiple of the lanes."""
    cases = [
        f"convolution way=linear {WINDOWS['1x1'][0]} {EPILOGUES[turn % len(EPILOGUES)]} "
        + words(c=c, o=o, h=1, w=1, images=1, groups=1, pieces=1 + turn % 3, density=density)
        for turn, (c, o, density) in enumerate(
            (c, o, density)
            for c in (1, 3, 4, 33, 512)
            for o in (1, 7, 16, 70, 129)
            for density in (1.0, 0.2)
        )
    ]
    checker.check(isa, cases)


@pytest.mark.parametrize("isa", ISAS)
def test_groups(checker: Checker, isa: str) -> None:
    """If this fails, convolutions with groups of channels go wrong in the kernels that serve them
    as connections like any others."""
    cases = [
        f"convolution way={way} {WINDOWS['3x3'][0]} {EPILOGUES[turn]} "
        + words(c=16, o=24, h=9, w=10, images=1, groups=groups, pieces=2, density=0.7)
        for turn, (way, groups) in enumerate(
            [("windows", 4), ("quads", 4), ("quads", 8), ("dense", 2), ("rows3x3", 4)]
        )
    ]
    checker.check(isa, cases)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("op", ["quantize", "dequantize", "add", "multiply", "table"])
def test_elementwise(checker: Checker, isa: str, op: str) -> None:
    """If this fails, quantizing, sums, products or tables give other bytes than the definition:
    ties, NaN, infinities, both ends of the range, ends of rows."""
    cases = [
        f"{op} " + words(c=c, plane=plane, zout=zout, m=m, act=act)
        for turn, (c, plane) in enumerate(
            [(1, 1), (100, 1), (3, 2), (2, 63), (2, 64), (3, 65), (1, 300), (2, 49)]
        )
        for zout, m, act in [(0, 1.0, "none"), (128, 0.5, "relu"), (255, 0.013, "none")]
    ]
    checker.check(isa, cases)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["max", "average", "global"])
def test_pools(checker: Checker, isa: str, kind: str) -> None:
    """If this fails, pooling takes taps outside the map, or divides by a wrong number of them."""
    windows = [
        window((2, 2), (2, 2)), window((3, 3), (2, 2), same(3)), window((3, 3), (1, 1), same(3)),
        window((5, 3), (3, 1), (2, 1, 2, 1)), window((3, 3), (2, 2), (0, 0, 1, 1)),
        window((3, 2), (1, 2), (2, 1, 2, 1), (2, 1)),
    ]  # fmt: skip
    sides = [(3, 3), (7, 7), (14, 9), (8, 8), (5, 100), (3, 9000)]
    if kind == "global":
        windows, sides = [window((1, 1))], [*sides, (1, 1), (1, 2), (33, 31)]
    cases = [
        "pool " + text + " "
        + words(kind=kind, c=1 + turn % 4, h=h, w=w, include=turn % 2, table=turn % 3 % 2,
                out="floats" if kind != "max" and turn % 4 == 3 else "bytes")
        for turn, (text, (h, w)) in enumerate((text, each) for text in windows for each in sides)
    ]  # fmt: skip
    checker.check(isa, cases)


@pytest.mark.parametrize("isa", ISAS)
def test_copies(checker: Checker, isa: str) -> None:
    """If this fails, what only moves bytes moves wrong ones, or forgets the table or the fill."""
    cases = [
        "copy " + words(c=c, h=h, w=w, run=run, table=table)
        for c, h, w in [(1, 1, 1), (3, 5, 7), (2, 2, 40)]
        for run in (1, 2, 31, 64, 100)
        for table in (0, 1)
    ]
    checker.check(isa, cases)


def test_a_wrong_byte_is_noticed(checker: Checker) -> None:
    """If this fails, the program says "ok" to anything: here it is asked for a way that does not
    compute the layer."""
    case = next(convolutions("linear", ["3x3"]))
    (answer,) = checker.said([f"{case} isa=portable seed=1"])[1:]
    assert answer.startswith("error: no way")
