"""Densities by error per cost: the allocation, and limits of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from prune.networks import Chain, lived_in
from torch import nn

from kernelprune.errors import Error
from kernelprune.prune import reconstruct
from kernelprune.prune.reconstruction.allocation import Curve, allocate
from kernelprune.prune.reconstruction.choice import Blocks

IMAGES = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def chain() -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain()).float()


def test_what_gains_most_for_its_cost_comes_first() -> None:
    """If this fails, multiply-adds go to layers where they lower the error little."""
    steep, flat = Curve((0.0, 0.3, 1.0), (1.0, 0.1, 0.0)), Curve((0.0, 1.0), (0.6, 0.5))
    curves = {"steep": steep, "flat": flat}
    price = {"steep": 1.0, "flat": 1.0}

    def within(limit: float) -> dict[str, float] | None:
        def fits(densities: Mapping[str, float]) -> bool:
            return sum(price[name] * value for name, value in densities.items()) <= limit

        return allocate(curves, lambda name, density: density * price[name], fits)

    assert within(0.01) is None and within(2.5) == {"steep": 1.0, "flat": 1.0}
    found = within(0.4)
    assert found is not None and found["steep"] > 0.25 > found["flat"]
    assert sum(found.values()) == pytest.approx(0.4, abs=0.01)
    price["steep"] = 20.0  # beyond a fifth, it gains less for its price than the other does
    dearer = within(5.0)
    assert dearer is not None and dearer["steep"] < 0.25 and dearer["flat"] > 0.4


@pytest.mark.parametrize("number", [1, 7, 12, 17, 24])
def test_every_output_channel_gets_its_share(number: int) -> None:
    """If this fails, more or fewer connections are kept than were asked for, an output channel gets
    more than it has, or some get two more than others that have enough."""
    free = torch.ones(4, 6, dtype=torch.bool)
    free[0, 2:] = False
    blocks = Blocks(1, 6, torch.rand(4, 6, dtype=torch.float64), free)
    counts = blocks.shares(number, held=(3, 5))
    assert int(counts.sum()) == min(number, 20) and counts[0] <= 2 and counts[3] >= 1
    assert int(counts[1:].max() - counts[1:].min()) <= 1
    even = blocks.evenly(number)
    assert torch.equal(even.sum(1), blocks.shares(number)) and not (even & ~free).any()


@pytest.fixture
def clock(monkeypatch):
    """In place of the engine: a connection of conv2 takes 0.1 ms, one of conv3 0.01 ms, the rest
    1 ms: 5.08 ms in all."""

    def make(model, x, layers, prune, *, batch, threads):
        def measure(masks: Mapping[str, Any]) -> tuple[dict[str, float], float]:
            cost = {"conv2": 0.1, "conv3": 0.01}
            return {name: cost[name] * int(mask.sum()) for name, mask in masks.items()}, 1.0

        return measure

    monkeypatch.setattr("kernelprune.prune.reconstruction.reconstruct.engine_measure", make)


@pytest.mark.parametrize("limit", [{"latency_ms": 2.5}, {"speed_up": 5.08 / 2.5}])
@pytest.mark.parametrize("method", ["l1", "omp"])
def test_time_limit_is_held_and_used(clock, limit: dict[str, float], method: str) -> None:
    """If this fails, the network is too slow, or drops more than it has to, or the dear layer keeps
    as much as the cheap one."""
    plan = reconstruct(chain(), IMAGES, method=method, **limit)
    assert 2.25 < plan.milliseconds <= 2.5
    rows = {row.name: row for row in plan.rows}
    assert rows["conv3"].density > rows["conv2"].density
    assert rows["conv2"].milliseconds == pytest.approx(0.1 * rows["conv2"].kept)


def test_time_limit_that_cannot_be_held(clock) -> None:
    """If this fails, a limit below what the rest of the network takes ends in something else than
    one clear line, or changes the model."""
    model = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(Error, match="latency_ms=0.9: cannot be held"):
        reconstruct(model, IMAGES, latency_ms=0.9)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_engine_measures_what_is_kept(monkeypatch) -> None:
    """If this fails, real times do not reach the plan."""
    monkeypatch.setattr("kernelprune.prune.latency.DENSITIES", (0.2, 1.0))
    monkeypatch.setattr("kernelprune.prune.latency._SECONDS", 0.02)
    plan = reconstruct(chain(), IMAGES, latency_ms=1000.0, batch=2)
    assert plan.prunable_density == 1 and 0 < plan.milliseconds < 1000
    assert all(row.milliseconds > 0 for row in plan.rows if row.prunable)
