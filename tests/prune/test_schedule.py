"""Rounds of pruning: how much, and when."""

from __future__ import annotations

import pytest

from kernelprune.errors import Error
from kernelprune.prune.schedule import cubic_densities, round_steps


def test_cubic_densities_fall_to_the_wanted_one() -> None:
    """If this fails, gradual pruning ends elsewhere, or drops most when little is left."""
    assert cubic_densities(0.1, 1) == [0.1]
    found = cubic_densities(0.1, 4)
    assert found == pytest.approx([0.1 + 0.9 * (3 / 4) ** 3, 0.1 + 0.9 / 8, 0.1 + 0.9 / 64, 0.1])
    drops = [a - b for a, b in zip([1.0, *found], found, strict=False)]
    assert drops == sorted(drops, reverse=True)
    for wrong in ((0.1, 0), (0.0, 3), (1.5, 3)):
        with pytest.raises(Error):
            cubic_densities(*wrong)


def test_rounds_leave_time_to_recover() -> None:
    """If this fails, a round comes after the training, or two come at once."""
    assert round_steps(1, 100) == [0]
    assert round_steps(5, 100) == [0, 10, 20, 30, 40]
    assert round_steps(4, 5) == [0, 1, 2, 3]
    with pytest.raises(Error, match="only 3 training steps"):
        round_steps(4, 3)
