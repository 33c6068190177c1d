"""The search, on made-up networks whose drop is a function of the factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kernelprune.compression.search import search


@dataclass(frozen=True)
class Made:
    holds: bool


def tried(
    drop: Callable[[float], float], target: float | None, max_drop: float | None, **more: float
) -> list[float]:
    """The factors that the search makes networks for."""
    found: list[float] = []

    def attempt(factor: float) -> Made | None:
        found.append(factor)
        lost = drop(factor)
        return None if lost > 1 else Made(max_drop is None or lost <= max_drop)

    settings = {"low": 1.0, "steps": 12, "close": 1.05} | more
    search(attempt, target=target, limited=max_drop is not None, **settings)  # type: ignore[arg-type]
    return found


def test_only_the_target_where_it_holds() -> None:
    """If this fails, minutes go into networks that nobody asked for."""
    assert tried(lambda f: 0.5, 4.0, None) == [4.0]
    assert tried(lambda f: 0.005, 4.0, 0.01) == [4.0]
    assert tried(lambda f: 2.0, 4.0, None) == [4.0]


@pytest.mark.parametrize("edge", [1.5, 2.9, 3.7])
def test_fastest_below_the_target(edge: float) -> None:
    """If this fails, a target that costs too much ends far from the fastest network that holds."""
    made = tried(lambda f: 0.0 if f <= edge else 0.1, 4.0, 0.01)
    best = max(factor for factor in made if factor <= edge)
    assert made[0] == 4.0 and edge / best <= 1.05 and len(made) <= 12


@pytest.mark.parametrize("edge", [1.3, 5.0, 37.0])
def test_fastest_without_a_target(edge: float) -> None:
    """If this fails, max_drop alone stops at a fixed speed, or tries networks that cannot be."""
    made = tried(lambda f: 0.0 if f <= edge else 2.0, None, 0.01)
    best = max((factor for factor in made if factor <= edge), default=1.0)
    assert edge / best <= 1.06 and len(made) <= 12


def test_steps_are_a_limit() -> None:
    """If this fails, a search with few steps allowed goes on for hours."""
    assert len(tried(lambda f: 0.0, None, 0.01, steps=3)) == 3
    assert len(tried(lambda f: 0.1, None, 0.01, steps=3)) == 3


def test_begins_above_what_is_known_to_hold() -> None:
    """If this fails, networks are made that are slower than the dense one in int8."""
    made = tried(lambda f: 0.1, 8.0, 0.01, low=3.0)
    assert min(made) > 3.0
    assert tried(lambda f: 0.0, None, 0.01, low=3.0, steps=1) == [6.0]
