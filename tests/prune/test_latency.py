"""Plans for a time limit: what is chosen for given times, and that the engine gives them."""

from __future__ import annotations

import json

import pytest
import torch
from prune.networks import Chain, lived_in

from kernelprune.errors import Error
from kernelprune.prune import SynapticStrength
from kernelprune.prune.latency import LayerTimes
from kernelprune.prune.threshold import select_fitting

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def pruner() -> SynapticStrength:
    torch.manual_seed(1)
    return SynapticStrength(lived_in(Chain()), X)


@pytest.fixture
def clock(monkeypatch):
    """In place of the engine: a connection of conv2 takes 0.1 ms, one of conv3 0.01 ms, the rest
    1 ms; what is chosen in the end (other than the candidates) takes ``slower`` times as long."""
    state = {"calls": [], "slower": 1.0}

    def make(model, x, layers, prune, *, batch, threads):
        def measure(masks):
            state["calls"].append((batch, threads))
            factor = state["slower"] if len(state["calls"]) > 7 else 1.0
            cost = {"conv2": 0.1 * factor, "conv3": 0.01 * factor}
            return {name: cost[name] * int(mask.sum()) for name, mask in masks.items()}, 1.0

        return measure

    monkeypatch.setattr("kernelprune.prune.synaptic.engine_measure", make)
    return state


def test_interpolated_times() -> None:
    """If this fails, a density between two measured ones gets a wrong time."""
    times = LayerTimes({"a": [0.1, 0.5, 1.0]}, {"a": [2.0, 4.0, 5.0]}, 1.0)
    assert [times.of("a", d) for d in (0.05, 0.3, 0.75, 1.0)] == pytest.approx([2, 3, 4.5, 5])
    assert times.total({"a": 0.5}) == 5.0 and times.price("a", 10) == pytest.approx(3 / 9)


def test_limit_is_held_and_used(clock) -> None:
    """If this fails, the plan is too slow, or drops more than it has to."""
    strength = pruner()
    plan = strength.plan(latency_ms=3.0)
    assert 2.9 < plan.milliseconds <= 3.0
    rows = {row.name: row for row in plan.rows}
    assert plan.milliseconds == pytest.approx(
        1 + rows["conv2"].milliseconds + rows["conv3"].milliseconds
    )
    by_strength = strength.plan(density=plan.prunable_density)
    assert all(torch.equal(by_strength.masks[name], mask) for name, mask in plan.masks.items())
    assert rows["conv1"].milliseconds is None and " ms" in str(plan).splitlines()[1]
    assert json.loads(json.dumps(plan.to_dict()))["totals"]["milliseconds"] == plan.milliseconds
    calls = len(clock["calls"])
    # Times are measured once for each batch and threads; only the choice is measured again.
    assert strength.prune(latency_ms=3.0).masks["conv2"].equal(plan.masks["conv2"])
    assert len(clock["calls"]) == calls + 1
    assert strength.plan(latency_ms=100.0).prunable_kept == plan.prunable_kept
    strength.plan(latency_ms=3.0, batch=2)
    assert clock["calls"][-1] == (2, 1)


def test_choice_that_is_too_slow_is_made_again(clock) -> None:
    """If this fails, a plan holds its limit on paper only."""
    clock["slower"] = 1.3
    plan = pruner().plan(latency_ms=3.0)
    assert plan.milliseconds <= 3.0
    with pytest.raises(Error, match="latency_ms=1.0: cannot be held"):
        pruner().plan(latency_ms=1.0)
    with pytest.raises(Error, match="latency_ms=0"):
        pruner().plan(latency_ms=0)
    with pytest.raises(Error, match="without macs="):
        pruner().plan(latency_ms=3.0, macs=0.5)


def test_prices_with_and_without_a_density() -> None:
    """If this fails, the choice is not the one with the highest score for its price."""
    scores = {
        "dear": torch.tensor([[4.0, 3.0, 2.0, 1.0]]),
        "cheap": torch.tensor([[4.0, 3.0, 2.0, 0.0]]),
    }
    prices = {"dear": 1.0, "cheap": 0.1}

    def within(limit):
        return lambda masks: sum(prices[n] * int(m.sum()) for n, m in masks.items()) <= limit

    def kept(limit, density=None):
        masks = select_fitting(scores, prices, within(limit), density=density, scope="global")
        return masks and {name: int(mask.sum()) for name, mask in masks.items()}

    assert kept(10) == {"dear": 4, "cheap": 4}
    assert kept(2.35) == {"dear": 2, "cheap": 2}  # the strongest that fit
    assert kept(1.1) == {"dear": 1, "cheap": 1}
    assert kept(1.0) is None and kept(1.05, density=0.5) is None
    assert kept(10, density=0.5) == {"dear": 2, "cheap": 2}
    assert kept(1.35, density=0.5) == {"dear": 1, "cheap": 3}


def test_engine_measures_the_candidates(monkeypatch) -> None:
    """If this fails, real times do not reach the layers they belong to."""
    monkeypatch.setattr("kernelprune.prune.latency.DENSITIES", (0.2, 1.0))
    strength = pruner()
    state = {key: value.clone() for key, value in strength.model.state_dict().items()}
    plan = strength.plan(latency_ms=1000.0, batch=3)
    assert plan.prunable_kept == 84  # a second is enough for everything
    assert 0 < plan.milliseconds < 1000
    assert all(row.milliseconds > 0 for row in plan.rows if row.prunable)
    (times,) = strength._times.values()
    assert times.rest > 0 and len(times.milliseconds["conv2"]) == 2
    assert all(torch.equal(value, state[k]) for k, value in strength.model.state_dict().items())
