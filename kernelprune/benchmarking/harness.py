"""Times several candidates in one run, taking turns.

A machine's speed drifts (clock, other processes). Candidates that take turns every few
milliseconds all see the same drift, so that their ratios hold although each time alone may not.
Within its turn a candidate runs several times, and the first one of a turn is not counted: it finds
the caches full of the others' data, and their threads still spinning. (Calls of more than half a
second count all the same.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Length of a turn: long beside the call that is thrown away, short beside the machine's drift.
_TURN_SECONDS = 0.03
_MAX_CALLS_PER_TURN = 100
_MIN_ROUNDS = 5
# So long a call is the same wherever the caches and the others' threads were.
_LONG_CALL_SECONDS = 0.5


@dataclass(frozen=True)
class Candidate:
    """Something to time: ``call`` does one whole run on an input that it already holds."""

    name: str
    call: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Times of one candidate, in milliseconds per call."""

    median: float
    mean: float
    minimum: float
    p90: float
    p99: float
    calls: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        """Of the measured calls; at least one."""
        milliseconds = np.asarray(seconds) * 1e3
        return Timing(
            median=float(np.median(milliseconds)),
            mean=float(milliseconds.mean()),
            minimum=float(milliseconds.min()),
            p90=float(np.percentile(milliseconds, 90)),
            p99=float(np.percentile(milliseconds, 99)),
            calls=len(milliseconds),
        )


def _clock(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(
    candidates: Sequence[Candidate],
    *,
    seconds: float = 2.0,
    iterations: int | None = None,
    warm_up: int = 3,
    between: Callable[[], object] | None = None,
    progress: Callable[[float], object] | None = None,
) -> dict[str, Timing]:
    """Times every candidate for about ``seconds`` (or five turns, if those take longer).

    Args:
        candidates: With different names.
        seconds: Time per candidate.
        iterations: Exactly so many timed calls of each, in place of ``seconds``.
        warm_up: Calls of each before the clock starts; one more sets the length of a turn.
        between: Called once in each round, such as to measure the machine's peak.
        progress: Told after each round which share of the work is done, 0..1.

    Returns:
        The timing of each by name.
    """
    calls: dict[str, int] = {}
    costs: dict[str, float] = {}
    for candidate in candidates:
        for _ in range(warm_up):
            candidate.call()
        costs[candidate.name] = cost = max(_clock(candidate.call), 1e-7)
        calls[candidate.name] = int(min(max(_TURN_SECONDS / cost, 1), _MAX_CALLS_PER_TURN))
    taken: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    spent = {candidate.name: 0.0 for candidate in candidates}

    def done(name: str) -> float:
        """The share of a candidate's work that is done; 1 or more means all."""
        if iterations is not None:
            return len(taken[name]) / iterations
        return min(spent[name] / seconds, rounds / _MIN_ROUNDS)

    rounds = 0
    while min(map(done, taken), default=1.0) < 1.0:
        if between is not None:
            between()
        # Alternating the order keeps anyone from always coming after the same candidate.
        for candidate in candidates if rounds % 2 == 0 else list(reversed(candidates)):
            name = candidate.name
            if done(name) >= 1.0:
                continue
            left = calls[name] if iterations is None else iterations - len(taken[name])
            if costs[name] < _LONG_CALL_SECONDS:
                candidate.call()
            for _ in range(min(calls[name], left)):
                elapsed = _clock(candidate.call)
                taken[name].append(elapsed)
                spent[name] += elapsed
        rounds += 1
        if progress is not None:
            progress(min(1.0, min(map(done, taken))))
    return {name: Timing.of(values) for name, values in taken.items()}
