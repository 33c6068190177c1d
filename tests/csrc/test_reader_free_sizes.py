"""Inputs of free sides in a file: both readers take them, or both refuse them."""

from __future__ import annotations

from typing import Any

import model_bytes as mb
import pytest

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes


def file(*inputs: dict[str, Any], version: str = "2", side: Any = 6) -> bytes:
    """A file of these inputs, whose node reads the first; ``side``: of its shape."""
    inputs = tuple({"name": f"x{i}", **entry} for i, entry in enumerate(inputs))
    node = {"op": "activation", "name": "y", "inputs": ["x0"], "output": "y"}
    known = inputs[0].get("example", inputs[0].get("shape"))
    shape = [*known[:-1], side] if isinstance(known, list) else known
    nodes = [{**node, "activation": "relu", "shape": shape}]
    graph = {"inputs": list(inputs), "outputs": ["y"], "nodes": nodes}
    return mb.ModelBytes(graph, {}, {"format": "kernelprune", "version": version}).to_bytes()


def free(shape: Any, example: Any = (3, 5, 6), **more: Any) -> dict[str, Any]:
    example = list(example) if isinstance(example, tuple) else example
    return {"shape": shape, "example": example, **more}


MAP = free([3, "?", "?"])
ACCEPTED = {
    "both": file(MAP),
    "height": file(free([3, "?", 6])),
    "width": file(free([3, 5, "?"])),
    "of bytes": file({**MAP, "dtype": "u8"}),
}
REFUSED = {
    "channels": file(free(["?", 5, 6])),
    "all sides": file(free(["?", "?", "?"])),
    "no example": file({"shape": [3, "?", "?"]}),
    "no example in version 1": file({"shape": [3, "?", "?"]}, version="1"),
    "version 1": file(MAP, version="1"),
    "example differs": file(free([3, 4, "?"])),
    "channels of the example differ": file(free([2, "?", "?"])),
    "example without free sides": file(free([3, 5, 6])),
    "example without free sides differs": file(free([3, 5, 7])),
    "example with free sides": file(free([3, "?", "?"], [3, 5, "?"])),
    "rank 1": file(free(["?"], [6])),
    "rank 2": file(free([3, "?"], [3, 6])),
    "rank 4": file(free([3, "?", "?", 6], [3, 2, 5, 6])),
    "another rank": file(free([3, "?"])),
    "example of another rank": file(free([3, "?", "?"], [3, 6])),
    "empty": file(free([], [6])),
    "empty example": file(free([3, "?", "?"], [])),
    "two inputs": file(MAP, {"shape": [3]}),
    "the second of two inputs": file({"shape": [6]}, MAP),
    "two free inputs": file(MAP, MAP),
    "a node": file(MAP, side="?"),
    "a node of a fixed input": file({"shape": [3, 5, 6]}, side="?"),
    "a node of another size": file(MAP, side=7),
    "channels with fraction": file(free([3.0, "?", "?"])),
    "channels as text": file(free(["3", "?", "?"])),
    "channels true": file(free([True, "?", "?"], [1, 5, 6])),
    "channels null": file(free([None, "?", "?"])),
    "another mark": file(free([3, "*", "?"])),
    "two marks": file(free([3, "??", "?"])),
    "a side of 0": file(free([3, "?", "?"], [3, 0, 6])),
    "a side below 0": file(free([3, "?", "?"], [3, -5, 6])),
    "a side of 2^21": file(free([3, "?", "?"], [3, 1 << 21, 6])),
    "a side with fraction": file(free([3, "?", "?"], [3, 5.0, 6])),
    "2^33 elements": file(free([3, "?", "?"], [1 << 20, 1 << 12, 2])),
    "example is text": file(free([3, "?", "?"], "3x5x6")),
    "example is null": file(free([3, "?", "?"], None)),
    "shape is text": file(free("?")),
    "shape is null": file(free(None)),
    "mark alone": file({"shape": "?", "example": [3, 5, 6]}),
    "more keys": file({**MAP, "free": True}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    """If this fails, one of the readers refuses what the writer writes."""
    _core.check_bytes(ACCEPTED[name])
    read_bytes(ACCEPTED[name], "file")


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, a file loads whose sizes nobody knows, or that one reader alone takes."""
    with pytest.raises(FormatError):
        _core.check_bytes(REFUSED[name])
    with pytest.raises(FormatError):
        read_bytes(REFUSED[name], "file")
