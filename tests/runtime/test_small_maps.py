"""Kernels of 1x1 to 9x9 on maps of 1x1 to 9x9, by every candidate of every layer: there windows are
larger than maps, taps see nothing but the border, and packings for special sizes are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from graphs import GraphBuilder, window_output

from kernelprune import _core

# Instruction set and images side by side: every layout there is.
MODES = [(isa, lanes) for isa in _core.available_isas() for lanes in (1, 4, 8, 16)
         if lanes in {"avx512": (1, 8, 16), "avx2": (1, 8), "portable": (1, 4)}[isa]]  # fmt: skip
SIDES = range(1, 10)
LAYERS = 320  # in each mode
LAYERS_OF_A_MODEL = 40


@dataclass(frozen=True)
class Geometry:
    """Of a convolution; ``size`` is the map's."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def fits(self) -> bool:
        window = (self.kernel, self.stride, self.padding, self.dilation)
        return min(window_output(*self.size, *window)) >= 1


def geometries(count: int, seed: int) -> Iterator[Geometry]:
    """Random ones, of which every second keeps the size of the map as most networks do."""
    rng = np.random.default_rng(seed)

    def pair(*choices: int) -> tuple[int, int]:
        return int(rng.choice(choices)), int(rng.choice(choices))

    while count > 0:
        kernel, size = pair(*SIDES), pair(*SIDES)
        if rng.random() < 0.4:
            size = pair(1, 2, 2, 3)
        if rng.random() < 0.5:
            same = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2, kernel[0] // 2, kernel[1] // 2)
            found = Geometry(size, kernel, padding=same)
        else:
            dilation = pair(1, 1, 1, 2, 3)
            extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
            padding = tuple(int(rng.integers(0, extents[i % 2])) for i in range(4))
            found = Geometry(size, kernel, pair(1, 1, 2, 3), dilation, padding)
        if found.fits:
            count -= 1
            yield found


def add_layer(b: GraphBuilder, geometry: Geometry) -> str:
    """A convolution on an input of its own, sparse, dense or depthwise."""
    channels, out_channels = (int(n) for n in b.rng.integers(1, 20, 2))
    density = float(b.rng.choice([0.1, 0.4, 1.0]))
    mask = b.mask(out_channels, channels, density)
    if b.rng.random() < 0.2:
        mask = np.eye(channels, dtype=bool)
    return b.conv2d(
        b.input((channels, *geometry.size), f"x{len(b.inputs)}"),
        len(mask),
        geometry.kernel,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        activation=str(b.rng.choice(["none", "relu", "relu6"])),
        mask=mask,
    )


def model_of(some: list[Geometry], seed: int) -> tuple[bytes, GraphBuilder]:
    b = GraphBuilder(np.random.default_rng(seed), integers=True)
    return b.file(*[add_layer(b, geometry) for geometry in some]), b


def models() -> Iterator[tuple[int, list[Geometry]]]:
    found = list(geometries(LAYERS, seed=16))
    for first in range(0, LAYERS, LAYERS_OF_A_MODEL):
        yield first, found[first : first + LAYERS_OF_A_MODEL]


def test_every_size_occurs() -> None:
    """If this fails, the test below has lost the sizes that it is there for."""
    found = list(geometries(LAYERS, seed=16))
    for axis in (0, 1):
        sides = {(g.kernel[axis], g.size[axis]) for g in found}
        assert len(sides) > 0.8 * len(SIDES) ** 2
    assert any(g.kernel[0] > 3 and g.kernel[1] > 3 and g.size == (2, 2) for g in found)
    assert any(g.kernel[0] == 1 < g.kernel[1] for g in found)


@pytest.mark.parametrize(("isa", "lanes"), MODES)
def test_every_candidate_is_the_convolution(isa: str, lanes: int) -> None:
    """If this fails, a way to compute a layer reads other weights or pixels than the layer has, and
    a network is silently wrong wherever the plan or the tuning takes it. Whole numbers leave no
    rounding but Winograd's."""
    for seed, some in models():
        model, b = model_of(some, seed)
        inputs = b.batch(1 if lanes == 1 else 3)
        planned = _core.Engine.load_bytes(model, "sweep", 1, isa, lanes)
        expected = planned.run_reference(inputs)
        names = [layer.names for layer in planned.candidates]
        nodes = [layer.node for layer in planned.candidates]
        for rank in range(max(map(len, names))):
            chosen = [of_layer[min(rank, len(of_layer) - 1)] for of_layer in names]
            choices = {(lanes, node): name for node, name in zip(nodes, chosen, strict=True)}
            engine = _core.Engine.load_bytes(model, "sweep", 1, isa, lanes, choices=choices)
            for i, found in enumerate(engine.run(inputs)):
                error = np.abs(found - expected[i]).max()
                allowed = 1e-5 * np.abs(expected[i]).max() if "winograd" in chosen[i] else 0.0
                assert error <= allowed, (some[i], chosen[i])
