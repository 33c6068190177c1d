"""The least squares: against numpy and brute force on layers that are small enough for them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kernelprune.frontends.torch.trace import trace
from kernelprune.prune.reconstruction.solvers import eliminate, pursue, refit
from kernelprune.prune.reconstruction.statistics import Equations, Moments, measure

ROOM = 1 << 16


def columns(size: int, places: int = 400) -> torch.Tensor:
    """Inputs [K, places] that depend on each other."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return mixing @ torch.randn(size, places, generator=generator, dtype=torch.float64) + 0.5


def equations(
    x: torch.Tensor, y: torch.Tensor, block: int, *, ridge: float = 1e-9, centred: bool = True
) -> Equations:
    moments = Moments(1, len(x), len(y), x.device)
    moments.see(x[None], y[None])
    old = torch.zeros(1, len(y), len(x))
    return moments.equations(old, centred=centred, ridge=ridge, block=block)[0]


def sparse_task(rows: int, blocks: int, block: int, kept: int) -> tuple[Any, ...]:
    """Inputs, outputs that a few blocks of them make, and which blocks."""
    x = columns(blocks * block)
    generator = torch.Generator().manual_seed(2)
    truth = torch.zeros(rows, blocks, dtype=torch.bool)
    for row in truth:
        row[torch.randperm(blocks, generator=generator)[:kept]] = True
    weight = torch.randn(rows, blocks * block, generator=generator, dtype=torch.float64)
    weight *= truth.repeat_interleave(block, 1)
    return x, weight @ x + 3.0, weight, truth


def least_squares(x: torch.Tensor, y: torch.Tensor, used: torch.Tensor) -> np.ndarray:
    """numpy's weights for the rows of ``x`` that are used and a constant."""
    known = np.concatenate([x[used].numpy(), np.ones((1, x.shape[1]))]).T
    return np.linalg.lstsq(known, y.numpy(), rcond=None)[0][:-1]


@pytest.mark.parametrize("room", [1, ROOM])
def test_refit_is_least_squares(room: int) -> None:
    """If this fails, the kept weights are not those with the least error."""
    x, y = columns(12), columns(12)[:4] ** 2
    kept = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    own = equations(x, y, 3)
    weight = refit(own, kept, room)
    for row in range(4):
        used = kept[row].repeat_interleave(3)
        assert not weight[row][~used].any()
        if used.any():
            expected = least_squares(x, y[row], used)
            np.testing.assert_allclose(weight[row][used], expected, rtol=1e-5)
            left = y[row] - weight[row] @ x
            assert float(own.errors(weight)[row]) == pytest.approx(float(left.var(correction=0)))
    whole = refit(own, torch.ones_like(kept), room)
    np.testing.assert_allclose(whole[3], weight[3], rtol=1e-9)


def test_ridge_pulls_to_the_old_weights() -> None:
    """If this fails, a layer is changed where the images say nothing."""
    x = columns(4)
    x[3] = 0.0
    old = torch.tensor([[[1.0, -2.0, 3.0, 7.0]]], dtype=torch.float64)
    y = old[0] @ x
    moments = Moments(1, 4, 1, x.device)
    moments.see(x[None], y[None])
    (own,) = moments.equations(old, centred=True, ridge=0.1, block=1)
    torch.testing.assert_close(refit(own, torch.ones(1, 4, dtype=torch.bool), ROOM), old[0])


@pytest.mark.parametrize("solve", [pursue, eliminate])
@pytest.mark.parametrize("room", [1, ROOM])
def test_outputs_of_a_few_blocks_are_reproduced(solve: Any, room: int) -> None:
    """If this fails, a layer that needs few connections does not keep those."""
    x, y, weight, truth = sparse_task(5, 6, 2, 2)
    free, held = torch.ones_like(truth), torch.full((5,), -1)
    found, kept = solve(
        equations(x, y, 2), truth.sum(1), free, held, steps=64, room=room
    )[:2]  # fmt: skip
    assert torch.equal(kept, truth)
    torch.testing.assert_close(found, weight, rtol=1e-5, atol=1e-5)


def test_pursuit_takes_what_lowers_the_error_most() -> None:
    """If this fails, omp is not greedy: its first block is not the best single one, its weights are
    not refitted, or what it says it has explained is wrong."""
    x, y = columns(8), columns(8)[:3] ** 2
    own = equations(x, y, 2)
    free, held = torch.ones(3, 4, dtype=torch.bool), torch.full((3,), -1)
    for count in (1, 2, 4):
        weight, kept, explained = pursue(
            own, torch.full((3,), count), free, held, steps=64, room=ROOM
        )
        assert kept.sum(1).tolist() == [count] * 3 and explained.shape == (3, count)
        torch.testing.assert_close(weight, refit(own, kept, ROOM), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(own.energy - explained[:, -1], own.errors(weight), rtol=1e-5,
                                   atol=1e-6)  # fmt: skip
        if count == 1:
            singles = torch.eye(4, dtype=torch.bool)
            errors = [own.errors(refit(own, one.expand(3, -1), ROOM)) for one in singles]
            assert torch.equal(kept.int().argmax(1), torch.stack(errors).argmin(0))


def test_elimination_removes_what_raises_the_error_least() -> None:
    """If this fails, obs does not remove the cheapest block, or what is left is not refitted."""
    x, y = columns(8), columns(8)[:3] ** 2
    own = equations(x, y, 2)
    free, held = torch.ones(3, 4, dtype=torch.bool), torch.full((3,), -1)
    weight, kept = eliminate(own, torch.full((3,), 3), free, held, steps=64, room=ROOM)
    without = [~row for row in torch.eye(4, dtype=torch.bool)]
    errors = torch.stack([own.errors(refit(own, each.expand(3, -1), ROOM)) for each in without])
    assert torch.equal((~kept).int().argmax(1), errors.argmin(0))
    torch.testing.assert_close(weight, refit(own, kept, ROOM), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solve", [pursue, eliminate])
def test_choice_is_bounded(solve: Any) -> None:
    """If this fails, a dropped connection comes back, one that must stay goes, or several blocks a
    step are more or fewer than were asked for."""
    x, y = columns(10), columns(10)[:3] ** 2
    own = equations(x, y, 1)
    free = torch.ones(3, 10, dtype=torch.bool)
    free[0, :7] = False
    counts, held = torch.tensor([2, 5, 1]), torch.tensor([-1, -1, 9])
    weight, kept = solve(own, counts, free, held, steps=2, room=ROOM)[:2]
    assert kept.sum(1).tolist() == [2, 5, 1] and bool(kept[2, 9])
    assert not kept[0, :7].any() and not weight[~kept].any()
    torch.testing.assert_close(weight, refit(own, kept, ROOM), rtol=1e-6, atol=1e-8)


LAYERS = {
    "stride": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 7)),
    "dilation": (nn.Conv2d(4, 6, 3, padding=2, dilation=2, bias=False), (4, 8, 8)),
    "groups": (nn.Conv2d(4, 6, (1, 3), padding=(0, 1), groups=2), (4, 5, 6)),
    "one by one": (nn.Conv2d(4, 6, 1), (4, 5, 5)),
    "linear": (nn.Linear(4, 6), (4,)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_statistics_explain_the_layer(case: str) -> None:
    """If this fails, the columns are not those that the layer multiplies with its weights, or a
    block of images is counted twice or not at all."""
    layer, shape = LAYERS[case]
    groups = getattr(layer, "groups", 1)
    x = torch.randn(7, *shape)
    (node,) = trace(layer.eval(), x[:1]).nodes
    y = layer(x).detach()
    at_once = measure(node, groups, [x], [y], 16)
    in_blocks = measure(node, groups, [x[:4], x[4:]], [y[:4], y[4:]], 16, block_bytes=1)
    for name in ("xx", "yx", "yy", "x", "y"):
        torch.testing.assert_close(getattr(at_once, name), getattr(in_blocks, name))
    weight = layer.weight.detach().reshape(groups, 6 // groups, -1)
    for own, old in zip(
        at_once.equations(weight, centred=True, ridge=1e-9, block=1), weight, strict=True
    ):
        assert float((own.errors(old.double()) / own.energy).max()) < 1e-10
        everything = torch.ones(len(old), own.blocks, dtype=torch.bool)
        if case != "linear":  # seven images do not say what four weights and a constant are
            torch.testing.assert_close(refit(own, everything, ROOM).float(), old, rtol=1e-4,
                                       atol=1e-5)  # fmt: skip


def test_places_are_drawn_image_by_image(monkeypatch) -> None:
    """If this fails, what a layer learns depends on how many images fit into memory."""
    monkeypatch.setattr("kernelprune.prune.reconstruction.statistics._LEAST_PLACES", 64)
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x = torch.randn(6, 3, 8, 8)
    (node,) = trace(layer.eval(), x[:1]).nodes
    y = layer(x).detach()
    few = measure(node, 1, [x], [y], 1)
    assert few.count == 66  # 11 of the 64 places of each image
    again = measure(node, 1, [x[:2], x[2:]], [y[:2], y[2:]], 1, block_bytes=1)
    torch.testing.assert_close(few.xx, again.xx)


def test_blocks_of_unequal_size() -> None:
    """If this fails, the last block of a layer whose channels do not divide is computed wrongly."""
    x, y = columns(5), columns(5)[:2] ** 2
    own = equations(x, y, 2)
    assert own.blocks == 3
    every = torch.ones(2, 3, dtype=torch.bool)
    found = refit(own, every, ROOM)
    exact = torch.from_numpy(np.stack([least_squares(x, row, every[0].repeat_interleave(2)[:5])
                                       for row in y]))  # fmt: skip
    torch.testing.assert_close(found[:, :5], exact, rtol=1e-5, atol=1e-6)
    assert not found[:, 5:].any()
    for kept in itertools.islice(itertools.product([True, False], repeat=3), 1, 7):
        mask = torch.tensor([kept, kept])
        assert not refit(own, mask, ROOM)[:, 5:].any()
