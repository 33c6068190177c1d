"""Scores -> kept connections: the only place where a threshold is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from kernelprune.errors import Error
from kernelprune.prune.checks import check_number
from kernelprune.prune.options import SCOPES


@dataclass(frozen=True)
class Units:
    """What scores are of, where it is not single connections: ``sizes`` has, of their shape, how
    many connections go with each; ``total``: how many the layers have in all."""

    sizes: Mapping[str, torch.Tensor]
    total: int


def check_scope(scope: str) -> None:
    if scope not in SCOPES:
        raise Error(f"scope '{scope}': must be one of {', '.join(SCOPES)}")


def comparable(scores: torch.Tensor, scope: str) -> np.ndarray:
    """Scores ``[O, I/groups]`` of one layer as float64 numbers that compare across layers.

    - "global": the scores themselves.
    - "global-normalised": divided by their root mean square over the inputs of the same output
      channel. A batch norm after the convolution takes any common factor out of an output
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
    density: float,
    scope: str,
    kept: Mapping[str, torch.Tensor] | None = None,
    forced: Mapping[str, int] | None = None,
    units: Units | None = None,
) -> dict[str, torch.Tensor]:
    """The kept connections, bool ``[O, I/groups]`` per layer.

    Exactly ``round(density * all)`` connections are kept (halves round up), those with the
    highest scores, but at least one of every layer: the best one, or the one whose index in the
    flattened scores ``forced`` has. Connections that ``kept`` says are gone stay gone. Equal
    scores are decided by the order of layers, output channels, input channels. With ``units`` what
    is kept or dropped is not a connection but a unit of several, and the connections that they have
    are as near to that number as whole units come.

    Raises Error for arguments out of range and for scores that are not finite.
    """
    check_number("density", density, above=0, most=1)
    ranked = _rank_all(scores, scope, kept, forced, units)
    number = _number(ranked, scores, density, units)
    return _masks(ranked, _counts(ranked, number, [0.0] * len(ranked)), scores)


def select_fitting(
    scores: Mapping[str, torch.Tensor],
    prices: Mapping[str, float],
    fits: Callable[[Mapping[str, torch.Tensor]], bool],
    *,
    density: float | None,
    scope: str,
    kept: Mapping[str, torch.Tensor] | None = None,
    forced: Mapping[str, int] | None = None,
    units: Units | None = None,
) -> dict[str, torch.Tensor] | None:
    """The kept connections, as ``select``, for a budget that only ``fits`` knows: it says whether
    masks are within it, and (but for rare cases) says so of fewer connections when it does of more.
    None when nothing fits.

    Without ``density`` the best connections that fit are kept. With it, of all choices of that size
    the one with the highest sum of ``score - factor * price`` for the smallest factor that fits,
    found by bisection (the Lagrange relaxation of "highest sum of scores within the budget").
    ``prices``: about how much of the budget a connection of a layer takes.
    """
    if density is not None:
        check_number("density", density, above=0, most=1)
    ranked = _rank_all(scores, scope, kept, forced, units)

    def fitting(counts: list[int]) -> bool:
        return fits(_masks(ranked, counts, scores))

    fewest, available = (sum(each) for each in zip(*(_range(r) for r in ranked), strict=True))
    if density is None:
        zero = [0.0] * len(ranked)
        counts = _fit_nested(
            lambda number: _counts(ranked, number, zero), fewest, available, fitting
        )
    else:
        rates = [prices[layer.name] for layer in ranked]
        number = _number(ranked, scores, density, units)
        counts = _fit_prices(ranked, number, rates, fitting)
    return None if counts is None else _masks(ranked, counts, scores)


def _rank_all(
    scores: Mapping[str, torch.Tensor],
    scope: str,
    kept: Mapping[str, torch.Tensor] | None,
    forced: Mapping[str, int] | None,
    units: Units | None,
) -> list[_Ranked]:
    return [
        _rank(
            name,
            score,
            scope,
            (kept or {}).get(name),
            (forced or {}).get(name),
            None if units is None else units.sizes[name],
        )
        for name, score in scores.items()
    ]


def _number(
    ranked: list[_Ranked],
    scores: Mapping[str, torch.Tensor],
    density: float,
    units: Units | None,
) -> int:
    """Of connections."""
    total = sum(score.numel() for score in scores.values()) if units is None else units.total
    fewest, available = (sum(each) for each in zip(*(_range(r) for r in ranked), strict=True))
    return max(min(available, int(np.floor(density * total + 0.5))), fewest)


def _masks(
    ranked: list[_Ranked], counts: list[int], scores: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
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
    """The fewest and the most connections."""
    return int(layer.connections[layer.forced]), int(layer.connections[-1])


def _spread(ranked: list[_Ranked]) -> float:
    ends = [value for layer in ranked for value in (*layer.values[:2], *layer.values[-1:])]
    return float(np.ptp(ends))


@dataclass
class _Ranked:
    """The candidates of one layer, best first. Within a layer all cost the same, so whatever the
    budget, a layer keeps a prefix of ``order``."""

    name: str
    size: int  # how many there are with those that are gone
    order: np.ndarray  # flat indices
    values: np.ndarray  # descending, but for the first one, which is kept in any case
    negated: np.ndarray  # ascending, without that one
    connections: np.ndarray  # of the first 0, 1, ... of order; as many where each is a connection

    @property
    def forced(self) -> int:
        return min(1, len(self.values))

    @cached_property
    def _place(self) -> np.ndarray:
        """Place in ``order`` of every flat index; those that are gone come last. To compare with
        it is several times as fast as to scatter, and a search asks for many masks."""
        place = np.full(self.size, self.size, np.int32)
        place[self.order] = np.arange(len(self.order), dtype=np.int32)
        return place

    def mask(self, count: int, like: torch.Tensor) -> torch.Tensor:
        chosen = self._place < count
        return torch.from_numpy(chosen.reshape(tuple(like.shape))).to(like.device)


def _rank(
    name: str,
    score: torch.Tensor,
    scope: str,
    kept: torch.Tensor | None,
    forced: int | None,
    sizes: torch.Tensor | None,
) -> _Ranked:
    if not bool(torch.isfinite(score).all()):
        raise Error(f"layer '{name}': its scores are not finite; did training diverge?")
    values = comparable(score, scope).reshape(-1)
    order = np.argsort(-values, kind="stable")
    if kept is not None:
        order = order[kept.cpu().numpy().reshape(-1)[order]]
    if forced is not None:
        order = np.concatenate([[forced], order[order != forced]])
    size, values = values.size, values[order]
    connections = np.arange(len(order) + 1)
    if sizes is not None:
        connections[1:] = np.cumsum(sizes.cpu().numpy().reshape(-1)[order])
    return _Ranked(name, size, order, values, -values[1:], connections)


def _counts(ranked: list[_Ranked], number: int, discounts: list[float]) -> list[int]:
    """How many of each layer are among the best by value less the layer's discount, so many that
    they have about ``number`` connections."""

    def reaching(threshold: float) -> list[int]:
        return [
            layer.forced
            + int(np.searchsorted(layer.negated, -(threshold + discount), side="right"))
            for layer, discount in zip(ranked, discounts, strict=True)
        ]

    def connections(counts: list[int]) -> int:
        return sum(
            int(layer.connections[count]) for layer, count in zip(ranked, counts, strict=True)
        )

    forced = [layer.forced for layer in ranked]
    if number <= connections(forced):
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
        if connections(reaching(middle)) >= number:
            low = middle
        else:
            high = middle
    counts = reaching(high)
    return _with_equals(ranked, counts, reaching(low), number - connections(counts))


def _with_equals(
    ranked: list[_Ranked], counts: list[int], reached: list[int], left: int
) -> list[int]:
    """``counts`` and more, up to those ``reached``, so that there are ``left`` connections more.
    Equal values: earlier layers first. What does not fit as a whole, is in when half of it does."""
    for index, layer in enumerate(ranked):
        ahead = (
            layer.connections[counts[index] : reached[index] + 1] - layer.connections[counts[index]]
        )
        more = int(np.searchsorted(ahead, left, side="right")) - 1
        counts[index] += more
        left -= int(ahead[more])
    for index, layer in enumerate(ranked):
        if counts[index] < reached[index]:
            size = layer.connections[counts[index] + 1] - layer.connections[counts[index]]
            counts[index] += int(2 * left >= size)
            break
    return counts
