"""From a time limit to densities: what each layer costs at a few densities, measured.

Candidates of the network at some densities are exported and timed by the engine, layer by layer and
as a whole; between them times are interpolated, and the choice that they lead to is measured again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.export import export
from kernelprune.prune.layers import Layer
from kernelprune.prune.threshold import Units, select_fitting
from kernelprune.prune.weights import copy_of
from kernelprune.runtime import Engine

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_ROUNDS = 5
# A choice that takes less than this share of the limit leaves room for more connections.
_CLOSE = 0.94
_AIM = 0.98  # of the limit, so that noise does not put every second choice beyond it
_SECONDS = 0.3  # of measuring, for each candidate as a whole and for its layers

Masks = Mapping[str, torch.Tensor]
# Milliseconds per batch by layer, and of everything else, of the network with the given masks.
Measure = Callable[[Masks], tuple[dict[str, float], float]]


@dataclass(frozen=True)
class LayerTimes:
    """``milliseconds[layer]`` at ``densities[layer]`` (ascending), never falling; ``rest``: the
    layers that are kept whole and the ops without weights."""

    densities: dict[str, list[float]]
    milliseconds: dict[str, list[float]]
    rest: float

    def of(self, layer: str, density: float) -> float:
        return float(np.interp(density, self.densities[layer], self.milliseconds[layer]))

    def total(self, densities: Mapping[str, float]) -> float:
        return self.rest + sum(self.of(name, value) for name, value in densities.items())

    def price(self, layer: str, connections: int) -> float:
        """Milliseconds per connection, on average over the measured densities."""
        row, density = self.milliseconds[layer], self.densities[layer]
        return (row[-1] - row[0]) / max((density[-1] - density[0]) * connections, 1.0)


def engine_measure(
    model: nn.Module,
    x: tuple[torch.Tensor, ...],
    layers: Sequence[Layer],
    prune: Callable[[nn.Module, Masks], None],
    *,
    batch: int,
    threads: int,
) -> Measure:
    """Exports a copy of ``model``, on which ``prune(copy, masks)`` was called, and times it on
    random images like those of ``x`` (one tensor per input): whole runs, whose median is shared
    out to the layers in proportion to their own times."""
    images = [torch.randn(batch, *example.shape[1:]).numpy() for example in x]

    def measure(masks: Masks) -> tuple[dict[str, float], float]:
        candidate = copy_of(model)
        prune(candidate, masks)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.safetensors"
            graph = export(candidate, x, path)
            engine = Engine(path, threads=threads)
            whole, runs = _time_of(lambda: engine.run(*images))
            profile = engine.profile(*images, repeats=min(runs, 20))
        owner = {node.name: node.module for node in graph.nodes if node.has_weight()}
        found = {layer.name: 0.0 for layer in layers if layer.prunable}
        rest = 0.0
        for step in profile:
            name = owner.get(step.name)
            if name in found:
                found[name] += step.milliseconds
            else:
                rest += step.milliseconds
        factor = whole / (rest + sum(found.values()))
        return {name: value * factor for name, value in found.items()}, rest * factor

    return measure


def _time_of(call: Callable[[], object]) -> tuple[float, int]:
    """Median milliseconds of a call, and how often it was measured."""
    call()
    taken: list[float] = []
    while len(taken) < 5 or (sum(taken) < _SECONDS and len(taken) < 1000):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e3, len(taken)


def layer_times(
    measure: Measure,
    masks_at: Callable[[float], Masks],
) -> LayerTimes:
    """Measures with all layers at each of ``DENSITIES``."""
    masks = [masks_at(density) for density in DENSITIES]
    rows = [measure(each) for each in masks]
    times = {
        name: np.maximum.accumulate([found[name] for found, _ in rows]).tolist()
        for name in rows[0][0]
    }
    kept = {name: [float(each[name].float().mean()) for each in masks] for name in times}
    return LayerTimes(kept, times, float(np.median([rest for _, rest in rows])))


def _same(masks: Masks, others: Masks) -> bool:
    return all(torch.equal(mask, others[name]) for name, mask in masks.items())


def select_within_time(
    scores: Mapping[str, torch.Tensor],
    times: LayerTimes,
    limit: float,
    measure: Measure,
    *,
    scope: str,
    density: float | None = None,
    kept: Masks | None = None,
    forced: Mapping[str, int] | None = None,
    units: Units | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, float], float]:
    """Masks with which the network takes at most ``limit`` milliseconds, the milliseconds by layer
    and those of the rest, as measured with those masks.

    Interpolated times only lead there: the choice is measured, and while it is too slow, or far
    below the limit, made again with another one; the slowest that holds the limit is taken.
    ``units``: as for ``select``; masks and densities are then of units. Raises Error when there is
    none.
    """
    sizes = {name: score.numel() for name, score in scores.items()}
    connections = sizes
    if units is not None:
        connections = {name: int(size.sum()) for name, size in units.sizes.items()}
    prices = {name: times.price(name, count) for name, count in connections.items()}
    unit = max(prices.values()) / 1000 or 1.0  # finer differences are noise
    prices = {name: round(price / unit) for name, price in prices.items()}

    def pick(wanted: float) -> Masks | None:
        def fits(masks: Masks) -> bool:
            return times.total({n: int(m.sum()) / sizes[n] for n, m in masks.items()}) <= wanted

        return select_fitting(
            scores,
            prices,
            fits,
            density=density,
            scope=scope,
            kept=kept,
            forced=forced,
            units=units,
        )

    return hold_limit(pick, times, limit, measure)


def hold_limit(
    pick: Callable[[float], Masks | None],
    times: LayerTimes,
    limit: float,
    measure: Measure,
) -> tuple[dict[str, torch.Tensor], dict[str, float], float]:
    """As ``select_within_time``; ``pick(wanted)``: masks with which the network takes about so many
    milliseconds by ``times``, None where it cannot be as fast."""
    wanted = limit
    took = float("inf")
    best: tuple[dict[str, torch.Tensor], dict[str, float], float] | None = None
    most, before = 0.0, None  # milliseconds of the best; the choice before
    for _ in range(_ROUNDS):
        masks = pick(wanted)
        if masks is None or (before is not None and _same(masks, before)):
            break
        before = masks
        found, rest = measure(masks)
        took = sum(found.values()) + rest
        if most < took <= limit:
            best, most = (dict(masks), found, rest), took
        if _CLOSE * limit <= took <= limit:
            break
        wanted *= _AIM * limit / took
    if best is not None:
        return best
    fastest = times.rest + sum(row[0] for row in times.milliseconds.values())
    measured = "" if took == float("inf") else f"; the last choice took {took:.3g} ms"
    raise Error(
        f"latency_ms={limit}: cannot be held (with the fewest connections that were measured the "
        f"network takes about {fastest:.3g} ms{measured})"
    )
