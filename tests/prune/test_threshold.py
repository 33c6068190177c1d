"""The one place where scores become kept connections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from kernelprune.errors import Error
from kernelprune.prune.threshold import SCOPES, comparable, select, select_fitting


def scores(seed: int = 0, **shapes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


LAYERS = {"a": (8, 4), "b": (16, 8), "c": (4, 16)}
COSTS = {"a": 900, "b": 90, "c": 9}


def count(masks: dict[str, torch.Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def spent(masks: dict[str, torch.Tensor]) -> int:
    return sum(int(mask.sum()) * COSTS[name] for name, mask in masks.items())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("density", [0.001, 0.05, 0.1, 0.37, 0.5, 1.0])
def test_count_is_exact_in_every_scope(scope, density):
    """The density that is reached is not the one that was asked for."""
    masks = select(scores(**LAYERS), density=density, scope=scope)
    assert count(masks) == max(3, round(density * 224))
    assert all(mask.any() for mask in masks.values())


def test_global_keeps_the_highest():
    """A kept connection scores lower than a dropped one."""
    values = scores(**LAYERS)
    masks = select(values, density=0.3, scope="global")
    kept = torch.cat([values[name][mask] for name, mask in masks.items()])
    gone = torch.cat([values[name][~mask] for name, mask in masks.items()])
    assert kept.min() > gone.max()


def test_normalised_scope_undoes_any_factor_per_output_channel():
    """The trap: the batch norm behind a convolution makes the scale of a channel arbitrary."""
    values = scores(**LAYERS)
    factors = {name: torch.rand(shape[0], 1) * 100 + 0.01 for name, shape in LAYERS.items()}
    scaled = {name: value * factors[name] for name, value in values.items()}
    plain = select(values, density=0.3, scope="global-normalised")
    same = select(scaled, density=0.3, scope="global-normalised")
    raw = select(scaled, density=0.3, scope="global")
    assert all(torch.equal(plain[name], same[name]) for name in LAYERS)
    assert not all(torch.equal(plain[name], raw[name]) for name in LAYERS)
    normal = comparable(values["b"], "global-normalised")
    assert np.sqrt(np.square(normal).mean(1)) == pytest.approx(np.ones(16))


def test_normalised_scope_of_odd_layers():
    """Rows of zeros become NaN, depthwise layers all tie, tiny scores underflow."""
    rows = comparable(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), "global-normalised")
    assert rows.tolist() == [[0, 0], pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5])]
    depthwise = comparable(torch.tensor([[3.0], [4.0]]), "global-normalised")
    assert depthwise.reshape(-1).tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5])
    tiny = comparable(torch.tensor([[3e-200, 4e-200]], dtype=torch.float64), "global-normalised")
    assert tiny[0].tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5])


def test_layer_scope_gives_every_layer_the_same_density():
    """scope="layer" that is a global threshold in disguise."""
    values = scores(**LAYERS)
    values["a"] *= 1000
    masks = select(values, density=0.25, scope="layer")
    for name, (rows, columns) in LAYERS.items():
        assert int(masks[name].sum()) == rows * columns // 4
        assert values[name][masks[name]].min() > values[name][~masks[name]].max()


def test_no_layer_is_cut_off():
    """A layer whose scores are all low loses every connection: the network outputs a constant."""
    values = scores(**LAYERS)
    values["a"] *= 1e-9
    masks = select(values, density=0.1, scope="global")
    assert int(masks["a"].sum()) == 1
    assert bool(masks["a"].reshape(-1)[values["a"].argmax()])
    assert count(masks) == 22


def test_ties_are_decided_by_position():
    """The same scores give different masks on another machine or torch version."""
    values = {name: torch.ones(shape) for name, shape in LAYERS.items()}
    masks = select(values, density=0.1, scope="global")
    assert [int(mask.sum()) for mask in masks.values()] == [20, 1, 1]
    assert masks["a"].reshape(-1)[:20].all()


def test_dropped_connections_stay_dropped():
    """A connection that was pruned before comes back with a high score."""
    values = scores(**LAYERS)
    kept = {name: torch.rand(shape) > 0.5 for name, shape in LAYERS.items()}
    masks = select(values, density=0.2, scope="global-normalised", kept=kept)
    assert count(masks) == round(0.2 * 224)
    everything = select(values, density=1.0, scope="global", kept=kept)
    for name in LAYERS:
        assert not (masks[name] & ~kept[name]).any()
        assert torch.equal(everything[name], kept[name])


def select_within(values, macs, costs=COSTS, density=None, scope="global"):
    """The choice for a budget that is linear in the connections; None when there is none."""

    def fits(masks) -> bool:
        return sum(int(mask.sum()) * costs[name] for name, mask in masks.items()) <= macs

    return select_fitting(values, costs, fits, density=density, scope=scope)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("macs", [1400, 2500, 5000, 20000])
def test_budget_holds_beside_the_density(scope, macs):
    """The multiply-adds go over the budget, or the density is given up for it."""
    masks = select_within(scores(**LAYERS), macs, density=0.2, scope=scope)
    assert count(masks) == 45
    assert spent(masks) <= macs
    if macs < 20000:  # not wasted: less than one connection of the dearest layer is left over
        assert spent(masks) > macs - 900


def test_budget_that_does_not_bind_changes_nothing():
    """A generous budget shifts the choice all the same."""
    values = scores(**LAYERS)
    free = select(values, density=0.3, scope="global")
    bound = select_within(values, 10**9, density=0.3)
    assert all(torch.equal(free[name], bound[name]) for name in LAYERS)


def test_budget_choice_has_the_highest_sum_of_scores():
    """Another choice of the same size and within the cost has higher scores (exhaustive)."""
    values = {"a": torch.tensor([[0.9, 0.8, 0.7]]), "b": torch.tensor([[0.5, 0.35, 0.2, 0.1]])}
    masks = select_within(values, 26, {"a": 10, "b": 2}, density=4 / 7)
    best = max(
        (float(values["a"][0, :n].sum() + values["b"][0, : 4 - n].sum()), n)
        for n in (1, 2, 3)
        if 10 * n + 2 * (4 - n) <= 26
    )
    assert (int(masks["a"].sum()), int(masks["b"].sum())) == (best[1], 4 - best[1])


def test_budget_alone_keeps_the_best_that_fit():
    """Without a density the multiply-adds are the only bound."""
    values = scores(**LAYERS)
    masks = select_within(values, 6000)
    assert 6000 - 900 < spent(masks) <= 6000
    kept = torch.cat([values[name][mask] for name, mask in masks.items()])
    gone = torch.cat([values[name][~mask] for name, mask in masks.items()])
    assert kept.min() > gone.max()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    density=st.floats(0.01, 1),
    share=st.floats(0.05, 1),
    scope=st.sampled_from(SCOPES),
    coarse=st.booleans(),
)
def test_any_choice_is_exact_or_refused(seed, density, share, scope, coarse):
    """Some mixture of ties, costs and budget breaks the count or the budget."""
    values = scores(seed, **LAYERS)
    if coarse:
        values = {name: (value * 3).round() for name, value in values.items()}
    dense = sum(COSTS[name] * rows * columns for name, (rows, columns) in LAYERS.items())
    budget = int(share * dense)
    number = max(3, int(density * 224 + 0.5))
    cheapest = sum(COSTS.values()) + _cheapest(number - 3)
    masks = select_within(values, budget, density=density, scope=scope)
    if cheapest > budget:
        assert masks is None
        return
    assert count(masks) == number
    assert spent(masks) <= budget
    assert all(mask.any() for mask in masks.values())


def _cheapest(number: int) -> int:
    """Multiply-adds of the ``number`` cheapest connections beside one of each layer."""
    total = 0
    for name in ("c", "b", "a"):
        take = min(number, LAYERS[name][0] * LAYERS[name][1] - 1)
        total += take * COSTS[name]
        number -= take
    return total


def test_connections_that_are_held() -> None:
    """A connection that a path needs is dropped, or counts beside the number that was asked for."""
    values = scores(**LAYERS)
    worst = {name: int(value.argmin()) for name, value in values.items()}
    masks = select(values, density=0.2, scope="global", forced=worst)
    assert count(masks) == 45 and all(m.flatten()[worst[name]] for name, m in masks.items())
    fewest = select(values, density=0.001, scope="layer", forced=worst)
    assert {name: int(m.flatten().nonzero()) for name, m in fewest.items()} == worst


def test_bad_scores_are_refused():
    """A diverged layer is pruned as if its scores meant something."""
    values = scores(**LAYERS)
    values["b"][2, 3] = float("nan")
    with pytest.raises(Error, match="layer 'b': its scores are not finite"):
        select(values, density=0.5, scope="global")
