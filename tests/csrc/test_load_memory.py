"""Small files that describe much: what loading them takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, model_bytes

# Sanitizers keep what was freed, and need address space of their own.
PLAIN_LINUX = sys.platform == "linux" and "libasan" not in Path("/proc/self/maps").read_text()

SIDE = 1 << 20  # the largest
NODES = 15  # of such a side: their sum has a limit, 2^24
SQUARE = 1 << 12  # a value has at most 4096 elements for each one of the input, and 2^31

Step = Callable[[GraphBuilder, str, int], str]


def chain(
    shape: tuple[int, ...], step: Step, nodes: int = NODES, *, of_bytes: bool = False
) -> bytes:
    """Nodes of one kind after each other, from an input of this shape; ``of_bytes``: all values
    are quantised."""
    b = GraphBuilder(np.random.default_rng(0), version="2")
    x = b.input(shape)
    for i in range(nodes):
        x = step(b, x, i)
    graph = b.graph(x)
    if of_bytes:
        for entry in (*graph["inputs"], *graph["nodes"]):
            entry["quantization"] = {"scale": 1, "zero_point": 0}
    return model_bytes(graph, b.tensors, b.version)


def pad(mode: str) -> Step:
    def step(b: GraphBuilder, x: str, i: int) -> str:
        *outer, side = b.shapes[x]
        none = [0] * len(outer)
        params = {"before": [*none, 1], "after": [*none, 0], "mode": mode, "value": 0}
        return b.node("pad", [x], (*outer, side + 1), **params)

    return step


def every_second(b: GraphBuilder, x: str, i: int) -> str:
    """Half of the columns, and back: the slice reads with gaps."""
    *outer, side = b.shapes[x]
    params = {"axis": len(outer), "start": 0, "stop": side, "step": 2}
    half = b.node("slice", [x], (*outer, side // 2), **params)
    return b.node("concat", [half, half], (*outer, side), **({"axis": len(outer)} if outer else {}))


def resize(mode: str) -> Step:
    def step(b: GraphBuilder, x: str, i: int) -> str:
        shape = (1, 1, SIDE - i)
        return b.node("resize", [x], shape, mode=mode, align_corners=False, scale=[0, 0])

    return step


def adaptive(op: str) -> Step:
    return lambda b, x, i: b.node(op, [x], (1, 1, SIDE - i), size=[1, SIDE - i])


def permute(axes: list[int]) -> Step:
    def step(b: GraphBuilder, x: str, i: int) -> str:
        shape = b.shapes[x]
        return b.node("permute", [x], tuple(shape[a] for a in axes), axes=axes)

    return step


def expand(b: GraphBuilder, x: str, i: int) -> str:
    return b.node("expand", [x], b.shapes[x])


def swap_blocks(b: GraphBuilder, x: str, i: int) -> str:
    c, h, w = b.shapes[x]
    if i % 2 == 0:
        return b.node("space_to_depth", [x], (4 * c, h // 2, w // 2), block=2)
    return b.node("depth_to_space", [x], (c // 4, h * 2, w * 2), block=2)


# Of the kinds whose result is told by where along its axes an entry lies.
VECTOR, ROW = (SIDE - NODES,), (1, 1, SIDE - NODES)
SQUARES = (1, 1, SQUARE, SQUARE)
FILES: dict[str, bytes] = {
    **{
        f"pad {mode} of {len(shape)} axes": chain(shape, pad(mode))
        for mode in ("constant", "reflect", "replicate", "circular")
        for shape in (VECTOR, ROW)
    },
    "slice of a vector": chain((SIDE,), every_second, 10),
    "slice of columns": chain((1, 1, SIDE), every_second, 10),
    **{
        f"resize {mode}": chain((1, 1, SIDE), resize(mode))
        for mode in ("nearest", "nearest_exact", "bilinear", "bicubic")
    },
    "adaptive_avg_pool2d": chain((1, 1, SIDE), adaptive("adaptive_avg_pool2d")),
    "adaptive_max_pool2d": chain((1, 1, SIDE), adaptive("adaptive_max_pool2d")),
    "permute of three axes": chain((1, 1, SIDE), permute([2, 0, 1])),
    "permute of a vector": chain((SIDE,), permute([0])),
    "permute of two axes of columns": chain(SQUARES, permute([0, 1, 3, 2])),
    "expand": chain((SIDE,), expand),
    "blocks": chain((1, 2, SIDE), swap_blocks),
}
# The same of quantised values, which the CPU alone computes with.
BYTES = {
    "pad of bytes": chain(ROW, pad("reflect"), of_bytes=True),
    "slice of bytes": chain((SIDE,), every_second, 10, of_bytes=True),
    "resize of bytes": chain((1, 1, SIDE), resize("nearest"), of_bytes=True),
}

PROGRAM = """
import json, os, sys
from kernelprune import _core
if sys.argv[1].startswith("cuda"):
    from kernelprune import _emulator
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
found = {}
for path in sys.argv[2:]:
    read, write = os.pipe()
    if os.fork() == 0:  # a heap of its own, in which nothing was freed
        try:
            before = status("VmRSS")
            _core.Engine.load(path, 2, "", 0, device=sys.argv[1])
            os.write(write, str(status("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.wait()
    found[path] = int(os.read(read, 100) or -1)
print(json.dumps(found))
"""


@pytest.mark.skipif(not PLAIN_LINUX, reason="reads the peak memory from /proc")
@pytest.mark.parametrize("device", ["cpu", "cuda-emulated"])
def test_loading_takes_what_the_bytes_are_worth(device: str, tmp_path: Path) -> None:
    """If this fails, a file of three kilobytes takes up to gigabytes to load: tables with an entry
    for each place along an axis, or for each pixel."""
    paths = {}
    files = FILES | BYTES if device == "cpu" else FILES
    for name, content in files.items():
        path = tmp_path / name.replace(" ", "_")
        path.write_bytes(content)
        assert path.stat().st_size < 5000
        paths[str(path)] = name
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, device, *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown = {paths[path]: kib for path, kib in json.loads(done.stdout).items()}
    assert min(grown.values()) >= 0, f"-1: the file did not load: {grown}"
    assert max(grown.values()) < 4096, f"KiB of memory at load: {grown}"
