"""Files of one operator, and what every way to run them gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import model_bytes as mb
import numpy as np

from kernelprune import _core

LANES = {"avx512": (1, 8, 16), "avx2": (1, 8), "portable": (1, 4)}
# Instruction set and images side by side: every layout there is.
MODES = [(isa, lanes) for isa in _core.available_isas() for lanes in LANES[isa]]


@dataclass
class OpFile:
    """One node, op ``op``, that reads inputs of these shapes; ``shape`` is its output's."""

    op: str
    inputs: Sequence[Sequence[int]]
    shape: Sequence[int]
    params: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def __str__(self) -> str:
        sides = "+".join("x".join(map(str, shape)) for shape in self.inputs)
        params = ",".join(f"{key}={value}" for key, value in self.params.items())
        return f"{self.op}-{sides}-{params}".replace(" ", "")

    def model(self) -> mb.ModelBytes:
        """The file, and its node 'node' with the value 'y'."""
        names = [f"x{i}" for i in range(len(self.inputs))]
        node = {"op": self.op, "name": "node", "inputs": names, "output": "y"}
        graph = {
            "inputs": [
                {"name": name, "shape": list(shape)}
                for name, shape in zip(names, self.inputs, strict=True)
            ]
            or [{"name": "unread", "shape": [1]}],
            "outputs": ["y"],
            "nodes": [{**node, "shape": list(self.shape), **self.params}],
        }
        tensors = {f"node.{name}": array for name, array in self.tensors.items()}
        metadata = {"format": "kernelprune", "version": "2"}
        return mb.ModelBytes(graph, tensors, metadata)

    def batch(self, images: int, seed: int = 0, *, integers: bool = False) -> list[np.ndarray]:
        """Random inputs; ``integers``: -8 to 8, so that sums are exact."""
        rng = np.random.default_rng(seed)
        shapes = [(images, *shape) for shape in self.inputs or [(1,)]]
        if integers:
            return [rng.integers(-8, 9, shape).astype(np.float32) for shape in shapes]
        return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def results(
    file: OpFile, inputs: Sequence[np.ndarray]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What was run, what it gave and what the reference gives: in every layout, by one thread and
    by three."""
    data = file.model().to_bytes()
    expected = None
    for isa, lanes in MODES:
        for threads in (1, 3):
            engine = _core.Engine.load_bytes(data, str(file), threads, isa, lanes)
            if expected is None:
                expected = engine.run_reference(list(inputs))[0]
            found = engine.run(list(inputs))[0]
            yield f"{isa} {lanes} lanes, {threads} threads", found, expected


def check_exact(file: OpFile, images: int = 5) -> None:
    """Values are moved, not computed: every bit is the reference's."""
    for what, found, expected in results(file, file.batch(images, integers=True)):
        assert np.array_equal(found, expected.astype(np.float32)), what


def check_close(
    file: OpFile, bound: float = 1e-6, images: int = 5, inputs: Sequence[np.ndarray] | None = None
) -> None:
    """The largest error is at most ``bound`` times the largest of the expected values."""
    given = file.batch(images) if inputs is None else inputs
    for what, found, expected in results(file, given):
        assert found.shape == expected.shape, what
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
        assert error <= bound, f"{what}: {error:.2g}"
