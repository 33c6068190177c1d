"""The limit on what a run has to compute: values in proportion to the inputs and the file."""

from __future__ import annotations

from typing import Any

import model_bytes as mb
import numpy as np
import pytest

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes
from kernelprune.graph.ir import Graph, Node, Value

# Of one pixel it makes 4033 x 4033: 3970 times 4096, and some more.
PADDED: dict[str, Any] = {
    "kernel": [64, 64],
    "stride": [1, 1],
    "padding": [4032] * 4,
    "dilation": [64, 64],
}
GIVEN = 4033 * 4033 // 4096


def model(file_bytes: int) -> bytes:
    """A file of so many bytes whose input has one element and whose output has 4033 x 4033."""
    node = {"op": "max_pool2d", "name": "y", "inputs": ["x"], "output": "y", **PADDED}
    graph = {
        "inputs": [{"name": "x", "shape": [1, 1, 1]}],
        "outputs": ["y"],
        "nodes": [{**node, "shape": [1, 4033, 4033]}],
    }
    metadata = {"format": "kernelprune", "version": "1", "free": ""}
    missing = file_bytes - len(mb.ModelBytes(graph, {}, metadata).to_bytes())
    return mb.ModelBytes(graph, {}, {**metadata, "free": "." * missing}).to_bytes()


def test_the_limit_is_where_the_format_says() -> None:
    """If this fails, the readers differ about a file, or refuse what FORMAT.md allows."""
    least = GIVEN - 1  # and the input's element
    _core.check_bytes(model(least))
    read_bytes(model(least), "file")
    for read in (_core.check_bytes, lambda content: read_bytes(content, "file")):
        with pytest.raises(FormatError, match=r"node 'y' \(max_pool2d\): computes .* 4096 numbers"):
            read(model(least - 1))


def test_the_writer_keeps_the_limit() -> None:
    """If this fails, export writes a file that no reader takes."""
    node = Node("max_pool2d", "y", ["x"], "y", (1, 4033, 4033), dict(PADDED))
    with pytest.raises(FormatError, match="node 'y'"):
        to_bytes(Graph([Value("x", (1, 1, 1))], ["y"], [node]))
    to_bytes(Graph([Value("x", (1, 1, 1))], ["y"], [node]), {"free": "." * GIVEN})


def wide(count: int, last: int) -> bytes:
    """``count`` paddings of one pixel to a row of 2^20, and one to a row of ``last``."""
    nodes = []
    for i, side in enumerate([1 << 20] * count + [last]):
        ends = {"before": [0, 0, side - 1], "after": [0, 0, 0], "mode": "constant", "value": 0}
        node = {"op": "pad", "name": f"n{i}", "inputs": ["x"], "output": f"v{i}", **ends}
        nodes.append({**node, "shape": [1, 1, side]})
    graph = {"inputs": [{"name": "x", "shape": [1, 1, 1]}], "outputs": ["v0"], "nodes": nodes}
    return mb.ModelBytes(graph, {}, {"format": "kernelprune", "version": "2"}).to_bytes()


def test_tables_are_limited() -> None:
    """If this fails, a file of some kilobytes makes gigabytes of a plan: each of these nodes has a
    table of a million entries."""
    least = (1 << 24) - 15 * ((1 << 20) + 2) - 2
    _core.check_bytes(wide(15, least))
    read_bytes(wide(15, least), "file")
    for read in (_core.check_bytes, lambda content: read_bytes(content, "file")):
        with pytest.raises(FormatError, match=r"sides of all shapes are .*more than 2\^24"):
            read(wide(15, least + 1))


@pytest.mark.parametrize("shape", [(3, 4096, 4096), (1, 32768, 32768), (1, 1, 1 << 20)])
def test_large_images_are_allowed(shape: tuple[int, int, int]) -> None:
    """If this fails, networks for large images cannot be loaded: the limit is not on the input."""
    channels = min(64, (1 << 31) // (shape[1] * shape[2]))
    model = mb.ModelBytes(
        {
            "inputs": [{"name": "x", "shape": list(shape)}],
            "outputs": ["y"],
            "nodes": [
                {
                    "op": "conv2d",
                    "name": "y",
                    "inputs": ["x"],
                    "output": "y",
                    "shape": [channels, *shape[1:]],
                    "kernel": [3, 3],
                    "stride": [1, 1],
                    "padding": [1, 1, 1, 1],
                    "dilation": [1, 1],
                    "activation": "relu",
                }
            ],
        },
        {
            f"y.{name}": array
            for name, array in mb.connections(
                channels, shape[0], (3, 3), density=0.5, rng=np.random.default_rng(0)
            ).items()
        },
    )
    _core.check_bytes(model.to_bytes())
    read_bytes(model.to_bytes(), "file")
