"""How long a model file takes. Files that are compared take turns, so that a machine that gets
slower or faster in between does so for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kernelprune.benchmarking.harness import Candidate, measure
from kernelprune.runtime import Engine

_SECONDS = 0.4  # for each file
_PROFILED = 20  # runs that are shared out to the layers


@dataclass(frozen=True)
class Timed:
    """``milliseconds`` of a run; ``nodes``: how much of them each node of the file takes."""

    milliseconds: float
    nodes: dict[str, float]


# Times files beside each other.
Timer = Callable[[Sequence[Path]], list[Timed]]


def engine_timer(batch: int, threads: int) -> Timer:
    """By this machine's engine, on random images."""

    def time(paths: Sequence[Path]) -> list[Timed]:
        engines = [Engine(path, threads=threads) for path in paths]
        images = [_images(engine, batch) for engine in engines]
        candidates = [
            Candidate(str(place), partial(engine.run, *given))
            for place, (engine, given) in enumerate(zip(engines, images, strict=True))
        ]
        found = measure(candidates, seconds=_SECONDS)
        return [
            _shared_out(found[str(place)].median, engine, given)
            for place, (engine, given) in enumerate(zip(engines, images, strict=True))
        ]

    return time


def _images(engine: Engine, batch: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [
        generator.standard_normal((batch, *shape)).astype(np.float32) for _, shape in engine.inputs
    ]


def _shared_out(milliseconds: float, engine: Engine, images: Sequence[np.ndarray]) -> Timed:
    profile = engine.profile(*images, repeats=_PROFILED)
    factor = milliseconds / max(sum(step.milliseconds for step in profile), 1e-9)
    return Timed(milliseconds, {step.name: step.milliseconds * factor for step in profile})
