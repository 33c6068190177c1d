"""When how much is pruned: at once, or in rounds that leave less and less to drop."""

from __future__ import annotations

from kernelprune.errors import Error
from kernelprune.prune.checks import check_number


def cubic_densities(density: float, rounds: int) -> list[float]:
    """The densities after each of the ``rounds``; the last is ``density``.

    ``density + (1 - density) (1 - t)^3`` with t = 1/rounds ... 1 (Zhu and Gupta, arXiv 1710.01878):
    most goes early, while much is left to choose from. One round is one-shot pruning.
    """
    check_number("rounds", rounds, least=1, whole=True)
    check_number("density", density, above=0, most=1)
    left = [(rounds - 1 - i) / rounds for i in range(rounds)]
    return [density + (1 - density) * share**3 for share in left]


def round_steps(rounds: int, steps: int, share: float = 0.5) -> list[int]:
    """Before which training steps (from 0) the rounds take place: evenly over the first ``share``
    of ``steps``, so that the rest of the training is at the final density. Never two at once."""
    end = max(round(share * steps), rounds)
    if rounds > steps:
        raise Error(f"rounds={rounds}: there are only {steps} training steps")
    return [i * end // rounds for i in range(rounds)]
