"""The forms of a pattern in a file: what is written is read, in the smallest form that holds it."""

from __future__ import annotations

import numpy as np
import pytest

from kernelprune.format.patterns import decode, encode
from kernelprune.graph.connections import Connections


def made(outputs: int, inputs: int, density: float) -> Connections:
    rng = np.random.default_rng(inputs)
    kept = rng.random((outputs, inputs)) < density
    return Connections.from_dense(kept.astype(np.float32)[:, :, None, None])


@pytest.mark.parametrize(
    ("outputs", "inputs", "density", "form"),
    [
        (1, 1, 1.0, None),
        (7, 5, 1.0, None),
        (7, 5, 0.5, "bits"),
        (3, 8, 0.7, "bits"),
        (3, 9, 0.7, "bits"),
        (64, 2048, 0.3, "bits"),
        (7, 5, 0.0, "gaps"),
        (64, 2048, 0.1, "gaps"),
        (4, 70000, 0.1, "gaps"),
        (4, 2048, 0.001, "indices"),
        (2, 70000, 0.0001, "indices"),
    ],
)
def test_forms(outputs: int, inputs: int, density: float, form: str | None) -> None:
    """If this fails, a layer reads other channels than were kept, or its file is too large."""
    connections = made(outputs, inputs, density)
    arrays = encode(connections, compact=True)
    assert form_of(arrays) == form
    found = decode(outputs, inputs, arrays, connections.weight)
    assert found.row_ptr.tolist() == connections.row_ptr.tolist()
    assert found.col.tolist() == connections.col.tolist()
    assert (found.col.dtype, found.row_ptr.dtype) == (connections.col.dtype, np.uint32)


def form_of(arrays: dict[str, np.ndarray]) -> str | None:
    if not arrays:
        return None
    if "kept" in arrays:
        return "bits"
    return "gaps" if arrays["col"].dtype == np.uint8 else "indices"


@pytest.mark.parametrize("gap", [254, 255, 256])
@pytest.mark.parametrize("first", [0, 255, 256])
def test_the_farthest_neighbour(gap: int, first: int) -> None:
    """If this fails, a distance that a byte does not hold is cut off."""
    weight = np.zeros((2, 1024), np.float32)
    weight[1, [first, first + gap + 1]] = 1
    connections = Connections.from_dense(weight)
    arrays = encode(connections, compact=True)
    assert form_of(arrays) == ("gaps" if max(first, gap) < 256 else "indices")
    found = decode(2, 1024, arrays, connections.weight)
    assert found.col.tolist() == [first, first + gap + 1]
