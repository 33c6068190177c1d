"""Loading takes work and memory in proportion to the file: counted, not timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

from kernelprune import _core
from kernelprune.format.reader import read_bytes

ROOT = Path(__file__).resolve().parents[2]
# Sanitizers keep what was freed, and need address space of their own.
PLAIN_LINUX = sys.platform == "linux" and "libasan" not in Path("/proc/self/maps").read_text()


def load(content: bytes, threads: int = 1) -> _core.Engine:
    return _core.Engine.load_bytes(content, "model", threads, "", 0)


def layers(side: int, window: dict) -> bytes:
    """Three layers of 8 channels; their windows leave the map as large as it is."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((8, side, side))
    for _ in range(3):
        x = b.conv2d(x, 8, density=0.5, **window)
    return b.file(x)


WINDOWS = {
    "3x3": {"padding": (1, 1, 1, 1)},
    "5x5": {"kernel": (5, 5), "padding": (2, 2, 2, 2)},
    "63x63": {"kernel": (63, 63), "padding": (31, 31, 31, 31)},
    "dilated": {"dilation": (2, 2), "padding": (2, 2, 2, 2)},
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_a_plan_does_not_grow_with_the_map(window: dict, threads: int) -> None:
    """If this fails, a file of a kilobyte with a large map takes seconds and gigabytes to load."""
    plans = [load(layers(side, window), threads) for side in (512, 1024, 4096, 8192)]
    assert len({plan.plan_size for plan in plans}) == 1
    ways = [[way for layer in plan.candidates for way in layer.candidates] for plan in plans]
    stages = [sum(len(way.stages) for way in found) for found in ways]
    assert max(stages) == stages[0]  # a row of a wide map may be too long for some of them
    # Their ranges are counted: it is not that large maps are computed at once.
    calls = [sum(stage.calls for way in found for stage in way.stages) for found in ways]
    assert 7 * calls[0] < calls[2] < calls[3]


def chain(nodes: int) -> bytes:
    """Sums, each of the one before and the input."""
    b = GraphBuilder(np.random.default_rng(0))
    x = first = b.input((1, 1, 1))
    for _ in range(nodes):
        x = b.node("add", [x, first], (1, 1, 1), activation="none")
    return b.file(x)


def joined(nodes: int) -> bytes:
    """Values that are all alive until they are concatenated."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((1, 1, 1))
    values = [b.node("activation", [x], (1, 1, 1), activation="relu") for _ in range(nodes)]
    return b.file(b.node("concat", values, (nodes, 1, 1)))


def wide_concat(inputs: int) -> bytes:
    """One value, very often."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((1, 1, 1))
    return b.file(b.node("concat", [x] * inputs, (inputs, 1, 1)))


def convolutions(nodes: int) -> bytes:
    """Layers in a row, and all their values concatenated."""
    b = GraphBuilder(np.random.default_rng(0))
    values = [b.input((2, 4, 4))]
    for _ in range(nodes):
        values.append(b.conv2d(values[-1], 2, padding=(1, 1, 1, 1)))
    return b.file(b.node("concat", values, (2 * nodes + 2, 4, 4)))


@pytest.mark.parametrize(
    ("make", "count", "bytes_of_one"),
    [(chain, 500, 4000), (joined, 500, 4000), (wide_concat, 4000, 200), (convolutions, 100, 8000)],
)
def test_a_plan_follows_the_nodes(
    make: Callable[[int], bytes], count: int, bytes_of_one: int
) -> None:
    """If this fails, what a plan holds grows faster than the file, or a name in a list of inputs
    takes as much as a node."""
    small, large = (load(make(n)).plan_size for n in (count, 4 * count))
    assert large[0] <= 4 * small[0]
    assert large[1] - small[1] <= 3 * count * bytes_of_one


@pytest.mark.parametrize("make", [chain, joined, wide_concat, convolutions])
def test_the_python_reader_follows_the_file(make: Callable[[int], bytes]) -> None:
    """If this fails, the Python reader looks at all values or nodes again for each of them."""

    def calls(count: int) -> int:
        content, found = make(count), 0

        def count_call(frame: object, event: str, argument: object) -> None:
            nonlocal found
            found += event.endswith("call")

        before = sys.getprofile()
        sys.setprofile(count_call)
        try:
            read_bytes(content, "model")
        finally:
            sys.setprofile(before)
        return found

    base, once, twice = calls(2), calls(100), calls(200)
    assert twice - base <= 2.2 * (once - base)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], int]:
    """How many functions are called to lay out the memory of buffers of this kind and number."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    program = tmp_path_factory.mktemp("plan_work") / "plan_work"
    options = ["-std=c++17", "-O0", "-finstrument-functions", "-Icsrc", "-Wall", "-Wextra"]
    sources = ["tests/csrc/plan_work.cc", "csrc/core/arena.cc"]
    subprocess.run([compiler, *options, *sources, "-o", str(program)], check=True, cwd=ROOT)

    def run(kind: str, count: int) -> int:
        done = subprocess.run([program, kind, str(count)], check=True, capture_output=True)
        return int(done.stdout)

    return run


@pytest.mark.parametrize("kind", ["all", "chain", "gaps"])
def test_memory_is_laid_out_without_comparing_all_buffers(
    kind: str, work: Callable[[str, int], int]
) -> None:
    """If this fails, a graph with 65,000 values that are alive at once takes seconds to load."""
    once, twice = work(kind, 2000), work(kind, 4000)
    assert twice <= 2.4 * once  # n log n


def sparse_layers(channels: int, connections: int) -> bytes:
    """Layers of every kind that see many channels and are connected to few."""
    b = GraphBuilder(np.random.default_rng(0))
    x = b.input((channels, 2, 2))
    empty = np.zeros((8, channels), bool)
    empty[0, :connections] = True
    for kernel in (1, 3, 7):
        pad = kernel // 2
        b.conv2d(x, 8, (kernel, kernel), padding=(pad, pad, pad, pad), mask=empty)
        y = b.conv2d(x, 8, (kernel, kernel), (2, 2), (pad, pad, pad, pad), mask=empty)
    return b.file(y)


TRAPS = {
    "one layer of 4096 x 4096": lambda: layers(4096, WINDOWS["3x3"]),
    "layers that read little of a million channels": lambda: sparse_layers(1 << 20, 1),
    "layers that read nothing of a million channels": lambda: sparse_layers(1 << 20, 0),
}


@pytest.mark.skipif(not PLAIN_LINUX, reason="reads the peak memory from /proc")
def test_small_files_load_in_little_memory(tmp_path: Path) -> None:
    """If this fails, a valid file of a few kilobytes takes gigabytes to load: a list of all ranges
    of a map, or a matrix of zeros for connections that are not there."""
    paths = []
    for name, make in TRAPS.items():
        paths.append(str(tmp_path / name.replace(" ", "_")))
        Path(paths[-1]).write_bytes(make())
        assert Path(paths[-1]).stat().st_size < 20_000
    program = """
import sys
from kernelprune import _core
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
for path in sys.argv[1:]:
    for threads in (1, 2):
        _core.Engine.load(path, threads, "", 0)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * 1024, "KiB of memory for files of some kilobytes"
