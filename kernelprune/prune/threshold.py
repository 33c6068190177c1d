"""Scores -> kept connections: the only place where a threshold is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from kernelprune.errors import Error
from kernelprune.prune.checks import check_number

SCOPES = ("global", "global-normalised", "layer")


def check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise Error(f"scope '{scope}': must be one of {', '.join(SCOPES)}")


def comparable(scores: torch.Tensor, scope: str) -> np.ndarray:
    """Scores ``[O, I/groups]`` of one layer as float64 numbers that compare across layers.

    - "global": the scores themselves.
    - "global-normalised": divided by their root mean square over the inputs of the same output
      channel. A batch norm behind the convolution takes any common factor out of an output
      channel, so raw strengths of two channels are on arbitrary scales. Where an output channel
      has a single input (depthwise), the root mean square of the whole layer is used.
    - "layer": the rank within the layer, from 0 to 1: every layer gets the same density.

    Raises Error for an unknown scope.
    """
    check_scope(scope)
    values = scores.detach().cpu().double().numpy()
    if scope == "global-normalised":
        axis = 1 if values.shape[1] > 1 else None
        largest = np.abs(values).max(axis=axis, keepdims=True)  # keeps the squares in range
        unit = values / np.where(largest > 0, largest, 1)
        rms = np.sqrt(np.square(unit).mean(axis=axis, keepdims=True))
        return unit / np.where(rms > 0, rms, 1)
    if scope == "layer":
        ranks = np.empty(values.size)
        order = np.argsort(-values, axis=None, kind="stable")
        ranks[order] = 1 - (np.arange(values.size) + 0.5) / values.size
        return ranks.reshape(values.shape)
    return values


def select(
    scores: Mapping[str, torch.Tensor],
    *,
    density: float | None,
    scope: str,
    macs: int | None = None,
    costs: Mapping[str, int] | None = None,
    kept: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The kept connections, bool ``[O, I/groups]`` per layer.

    Exactly ``round(density * all)`` connections are kept (halves round up), those with the
    highest scores, but at least one of every layer; connections that ``kept`` says are gone stay
    gone. Equal scores are decided by the order of layers, output channels, input channels.

    With ``macs`` at most so many multiply-adds are kept, a connection of a layer costing
    ``costs[layer]``: the kept set is then the one of that size with the highest sum of
    ``score - factor * cost`` for the smallest factor that holds the budget, found by bisection
    (the Lagrange relaxation of "highest sum of scores within the budget"; the multiply-adds fall
    monotonically with the factor). Without ``density`` the best connections that fit are kept.

    Raises Error for arguments out of range, for scores that are not finite, and when no choice
    of that many connections holds the budget.
    """
    if density is None and macs is None:
        raise Error("say how much to keep: density=, macs= or both")
    if density is not None:
        check_number("density", density, above=0, most=1)
    ranked = [
        _rank(name, score, scope, None if kept is None else kept.get(name))
        for name, score in scores.items()
    ]
    per_layer = [1] * len(ranked) if costs is None else [costs[layer.name] for layer in ranked]
    available = sum(len(layer.values) for layer in ranked)
    if density is None:
        number = available
    else:
        total = sum(score.numel() for score in scores.values())
        number = min(available, int(np.floor(density * total + 0.5)))
    number = max(number, sum(layer.forced for layer in ranked))
    if macs is None:
        counts = _counts(ranked, number, [0.0] * len(ranked))
    elif density is None:
        counts = _fit_number(ranked, number, per_layer, macs)
    else:
        counts = _fit_factor(ranked, number, per_layer, macs)
    return {
        layer.name: layer.mask(count, scores[layer.name])
        for layer, count in zip(ranked, counts, strict=True)
    }


def select_fitting(
    scores: Mapping[str, torch.Tensor],
    prices: Mapping[str, float],
    fits: Callable[[Mapping[str, int]], bool],
    *,
    density: float | None,
    scope: str,
    kept: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor] | None:
    """The kept connections, as ``select`` with ``macs``, for a budget that only ``fits`` knows: it
    says whether the kept number of each layer is within it, and says so of fewer when it does of
    more. ``prices``: about how much of the budget a connection of a layer takes; they only count
    with ``density``. None when nothing fits.
    """
    if density is not None:
        check_number("density", density, above=0, most=1)
    ranked = [
        _rank(name, score, scope, None if kept is None else kept.get(name))
        for name, score in scores.items()
    ]
    zero = [0.0] * len(ranked)

    def fitting(counts: list[int]) -> bool:
        names = [layer.name for layer in ranked]
        return fits(dict(zip(names, counts, strict=True)))

    fewest, available = (sum(each) for each in zip(*(_range(r) for r in ranked), strict=True))
    if density is None:
        counts = _fit_nested(
            lambda number: _counts(ranked, number, zero), fewest, available, fitting
        )
    else:
        total = sum(score.numel() for score in scores.values())
        number = max(min(available, int(np.floor(density * total + 0.5))), fewest)
        rates = [prices[layer.name] for layer in ranked]
        counts = _fit_prices(ranked, number, rates, fitting)
    if counts is None:
        return None
    return {
        layer.name: layer.mask(count, scores[layer.name])
        for layer, count in zip(ranked, counts, strict=True)
    }


def _fit_nested(
    at: Callable[[int], list[int]], low: int, high: int, fitting: Callable[[list[int]], bool]
) -> list[int] | None:
    """The largest number whose counts fit; the kept sets are nested."""
    if not fitting(at(low)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if fitting(at(middle)):
            low = middle
        else:
            high = middle - 1
    return at(low)


def _fit_prices(
    ranked: list[_Ranked], number: int, rates: list[float], fitting: Callable[[list[int]], bool]
) -> list[int] | None:
    """``number`` connections, for the smallest factor on the prices that fits, by bisection."""

    def at(factor: float) -> list[int]:
        return _counts(ranked, number, [factor * rate for rate in rates])

    counts = at(0.0)
    if fitting(counts):
        return counts
    distinct = sorted(set(rates))
    gap = min((b - a for a, b in zip(distinct, distinct[1:], strict=False)), default=1.0)
    low, high = 0.0, 2 * (_spread(ranked) or 1.0) / gap
    counts = at(high)
    if not fitting(counts):
        return None
    while low < (middle := (low + high) / 2) < high and high - low > 1e-12 * high:
        between = at(middle)
        if fitting(between):
            high, counts = middle, between
        else:
            low = middle
    return counts


def _range(layer: _Ranked) -> tuple[int, int]:
    return layer.forced, len(layer.values)


def _spread(ranked: list[_Ranked]) -> float:
    values = [value for layer in ranked for value in (layer.values[:1], layer.values[-1:])]
    return float(np.ptp(np.concatenate(values)))


@dataclass
class _Ranked:
    """The candidates of one layer, best first. Within a layer all cost the same, so whatever the
    budget, a layer keeps a prefix of ``order``."""

    name: str
    order: np.ndarray  # flat indices
    values: np.ndarray  # descending
    negated: np.ndarray  # ascending, without the best one, which is kept in any case

    @property
    def forced(self) -> int:
        return min(1, len(self.values))

    def mask(self, count: int, like: torch.Tensor) -> torch.Tensor:
        chosen = np.zeros(like.numel(), dtype=bool)
        chosen[self.order[:count]] = True
        return torch.from_numpy(chosen.reshape(tuple(like.shape))).to(like.device)


def _rank(name: str, score: torch.Tensor, scope: str, kept: torch.Tensor | None) -> _Ranked:
    if not bool(torch.isfinite(score).all()):
        raise Error(f"layer '{name}': its scores are not finite; did training diverge?")
    values = comparable(score, scope).reshape(-1)
    order = np.argsort(-values, kind="stable")
    if kept is not None:
        order = order[kept.cpu().numpy().reshape(-1)[order]]
    values = values[order]
    return _Ranked(name, order, values, -values[1:])


def _counts(ranked: list[_Ranked], number: int, discounts: list[float]) -> list[int]:
    """How many of each layer are among the ``number`` best by value less the layer's discount."""

    def reaching(threshold: float) -> list[int]:
        return [
            int(np.searchsorted(layer.negated, -(threshold + discount), side="right"))
            for layer, discount in zip(ranked, discounts, strict=True)
        ]

    forced = [layer.forced for layer in ranked]
    wanted = number - sum(forced)
    if wanted <= 0:
        return forced
    keys = [
        (-layer.negated[i] - discount)
        for layer, discount in zip(ranked, discounts, strict=True)
        if len(layer.negated)
        for i in (0, -1)
    ]
    slack = 1e-9 * (1 + max(abs(key) for key in keys) + max(abs(d) for d in discounts))
    low, high = min(keys) - slack, max(keys) + slack  # low is reached by all, high by none
    while low < (middle := (low + high) / 2) < high:
        if sum(reaching(middle)) >= wanted:
            low = middle
        else:
            high = middle
    at_low, counts = reaching(low), reaching(high)
    left = wanted - sum(counts)
    for index, reached in enumerate(at_low):  # equal values: earlier layers first
        extra = min(left, reached - counts[index])
        counts[index] += extra
        left -= extra
    return [count + one for count, one in zip(counts, forced, strict=True)]


def _macs(counts: list[int], costs: list[int]) -> int:
    return sum(count * cost for count, cost in zip(counts, costs, strict=True))


def _fit_number(ranked: list[_Ranked], most: int, costs: list[int], macs: int) -> list[int]:
    def at(number: int) -> list[int]:
        return _counts(ranked, number, [0.0] * len(ranked))

    fewest = sum(layer.forced for layer in ranked)
    counts = _fit_nested(at, fewest, most, lambda counts: _macs(counts, costs) <= macs)
    if counts is None:
        _refuse(fewest, _macs(at(fewest), costs), macs)
    assert counts is not None
    return counts


def _fit_factor(ranked: list[_Ranked], number: int, costs: list[int], macs: int) -> list[int]:
    least = 0

    def fitting(counts: list[int]) -> bool:
        nonlocal least
        least = _macs(counts, costs)
        return least <= macs

    counts = _fit_prices(ranked, number, [float(cost) for cost in costs], fitting)
    if counts is None:  # the last one tried was for a factor beyond which nothing changes
        _refuse(number, least, macs)
    assert counts is not None
    return counts


def _refuse(number: int, least: int, macs: int) -> None:
    raise Error(
        f"{number} connections take at least {least} multiply-adds in the layers that may be "
        f"pruned, the budget leaves {max(macs, 0)} for them: lower the density or raise the budget"
    )
