"""NaN and infinity through every operator, by every kernel of every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import GraphBuilder
from runtime.test_kernels import CASES, SAME, Case, engines
from runtime.test_small_maps import MODES

from kernelprune import _core
from kernelprune.format.reader import read_bytes
from kernelprune.frontends.torch import to_torch

# Not the large ones: a value that is not finite meets every kernel in the small ones too.
SMALL = [case for case in CASES if not any(s in case.name for s in ("1200", "100x130", "45x150"))]
SPECIAL = np.array([np.nan, np.inf, -np.inf], np.float32)


def inputs_of(b: GraphBuilder, batch: int) -> list[np.ndarray]:
    """Small whole numbers; every image but the last has values that are not finite: one, or, where
    no sum spreads it, some."""
    inputs = b.batch(batch)
    for values in inputs:
        for image in values[: max(1, batch - 1)]:
            count = 1 if b.tensors else 1 + image.size // 12
            where = b.rng.integers(0, image.size, count)
            image.flat[where] = b.rng.choice(SPECIAL, count)
    return inputs


def built(case: Case) -> tuple[GraphBuilder, bytes]:
    b = GraphBuilder(np.random.default_rng(5), integers=True)
    return b, b.file(case.build(b))


def dense_outputs(model: bytes, x: list[np.ndarray]) -> np.ndarray:
    """By torch in float64, with zeros for the connections that are not there."""
    twin = to_torch(read_bytes(model, "case")[0], torch.float64)
    return twin(*[torch.from_numpy(values).double() for values in x]).numpy()


def reach(model: bytes, x: list[np.ndarray]) -> np.ndarray:
    """Which outputs of the dense network read a value that is not finite: a NaN in its place."""
    marked = [np.where(np.isfinite(values), values, np.float32(np.nan)) for values in x]
    return np.isnan(dense_outputs(model, marked))


def check(found: np.ndarray, want: np.ndarray, spread: np.ndarray | None, rtol: float) -> None:
    """``want`` to the last NaN; where there is ``spread``, perhaps with more NaNs."""
    if spread is not None:
        assert np.isnan(found[np.isnan(want)]).all()
        assert not np.isfinite(found[np.isinf(want)]).any()
        same = ~(np.isnan(found) & spread)
        found, want = found[same], want[same]
    np.testing.assert_allclose(found, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_reference_is_torch(case: Case) -> None:
    """If this fails, an operator hides a NaN or an infinity that torch's shows. Torch multiplies
    the zeros of connections that are not there, which makes NaNs of an infinity."""
    b, model = built(case)
    x = inputs_of(b, 3)
    want = _core.Engine.load_bytes(model, "case", 1, "", 0).run_reference(x)[0]
    found = dense_outputs(model, x)
    spread = reach(model, x)
    whole = all(
        len(b.tensors[f"{n['name']}.col"]) == n["shape"][0] * b.shapes[n["inputs"][0]][0]
        for n in b.nodes
        if n["op"] in ("conv2d", "linear")
    )
    check(found, want, None if whole else spread, 1e-9)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_kernels_are_the_reference(case: Case) -> None:
    """If this fails, a kernel drops a NaN, or lets it into pixels, channels or images that are not
    connected to it. Kernels for density 1 multiply zeros like torch's."""
    b, model = built(case)
    x = inputs_of(b, 3)
    want = _core.Engine.load_bytes(model, "case", 1, "", 0).run_reference(x)[0]
    spread = reach(model, x)
    for isa, lanes in MODES:
        for engine in engines(model, isa, lanes, "strict"):
            chosen = " ".join(layer.chosen for layer in engine.candidates)
            check(engine.run(x)[0], want, spread if "dense" in chosen else None, 1e-6)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("lanes", [0, 1])
@pytest.mark.parametrize("value", SPECIAL)
def test_winograd_spreads_within_tiles(isa: str, lanes: int, value: float) -> None:
    """If this fails, Winograd's method hides a value that is not finite, or lets it reach outputs
    whose tile (2x2 or 4x4 outputs) does not read it."""
    b = GraphBuilder(np.random.default_rng(6))
    model = b.file(b.conv2d(b.input((3, 24, 20)), 5, padding=SAME, density=0.7))
    x = b.batch(16)[0]
    x[::2, 1, 11, 9] = value
    tried = 0
    for engine in engines(model, isa, lanes, "fast"):
        if not all("winograd" in layer.chosen for layer in engine.candidates):
            continue
        tried += 1
        want, found = engine.run_reference([x])[0], engine.run([x])[0]
        assert not np.isfinite(found[~np.isfinite(want)]).any()
        assert np.isnan(found[np.isnan(want)]).all()
        near = np.zeros(want.shape, bool)
        near[::2, :, 11 - 4 : 11 + 5, 9 - 4 : 9 + 5] = True
        np.testing.assert_allclose(found[~near], want[~near], rtol=1e-4, atol=1e-4)
    assert tried >= 2
