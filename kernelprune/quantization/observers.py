"""What numbers a value takes, and the range of them that bytes should stand for.

A histogram whose bins lie around multiples of a width that is a power of two: when a larger number
comes, the width doubles, and nothing has to be seen twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from kernelprune.graph.quantization import LEVELS, MAX_SCALE, MIN_SCALE, Quantization
from kernelprune.quantization.options import METHODS, QuantizeOptions

__all__ = ["METHODS", "Observation", "quantization_of"]

_BINS = 4096  # on either side of 0
_SAMPLES = 1 << 19  # of one value and batch
# What a file writes in place of minus infinity (a pad before a max pool) is larger.
INFINITE = 1e38
_STEPS = 40  # of the search for the least error, for each end of the range


@dataclass
class Observation:
    """``counts`` [2 * 4096 + 1]: of the numbers nearest to ``(i - 4096) * width``, of a sample;
    ``low`` and ``high``: the least and the largest of all."""

    low: float = math.inf
    high: float = -math.inf
    width: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * _BINS + 1))

    def see(self, numbers: torch.Tensor) -> None:
        """Takes in a batch of finite numbers. Those that stand for infinity are left out: any byte
        at the end of the range stands for them as well."""
        if max(abs(float(end)) for end in torch.aminmax(numbers)) >= INFINITE:
            numbers = numbers[numbers.abs() < INFINITE]
            if not numbers.numel():
                return
        low, high = (float(end) for end in torch.aminmax(numbers))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(abs(low), abs(high)))
        flat = numbers.flatten()
        step = -(-flat.numel() // _SAMPLES)
        if step > 1:  # odd, so that it does not meet the same columns of a map again and again
            flat = flat[:: step | 1]
        places = (flat / self.width).round_().add_(_BINS).long()
        self.counts += torch.bincount(places, minlength=self.counts.size).numpy()

    def _widen(self, largest: float) -> None:
        needed = 2.0 ** math.ceil(math.log2(max(largest, 2.0**-60))) / _BINS
        if self.width == 0.0:
            self.width = needed
        if needed > self.width:
            ratio = needed / self.width
            places = np.rint((np.arange(self.counts.size) - _BINS) / ratio).astype(np.int64)
            self.counts = np.bincount(places + _BINS, self.counts, self.counts.size)
            self.width = needed

    def merged(self, other: Observation) -> Observation:
        """Of both values together."""
        wider, narrower = (self, other) if self.width >= other.width else (other, self)
        both = Observation(width=narrower.width, counts=narrower.counts.copy())
        both._widen(wider.width * _BINS)
        both.counts = both.counts + wider.counts
        both.low, both.high = min(self.low, other.low), max(self.high, other.high)
        return both

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The middles of the bins that are not empty, within what was seen, and their counts."""
        used = np.flatnonzero(self.counts)
        middles = np.clip((used - _BINS) * self.width, self.low, self.high)
        return middles, self.counts[used]

    def clipped(self, own: Quantization) -> float:
        """The share of the numbers that the bytes do not reach, by more than half a step."""
        middles, counts = self.numbers()
        half = own.scale / 2
        outside = (middles < own.low - half) | (middles > own.high + half)
        return float(counts[outside].sum() / max(counts.sum(), 1))


def covering(low: float, high: float) -> Quantization:
    """The finest whose bytes stand for all of ``low`` to ``high`` and for 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = min(max((high - low) / LEVELS, MIN_SCALE), MAX_SCALE)
    if high == low:
        scale = 1.0 / LEVELS  # nothing but 0 was seen
    return Quantization(scale, int(np.clip(np.rint(-low / scale), 0, LEVELS)))


def quantization_of(seen: Observation, options: QuantizeOptions) -> Quantization:
    """By ``options.method``."""
    low, high = _RANGES[options.method](seen, options)
    return covering(low, high)


def _all(seen: Observation, options: QuantizeOptions) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: Observation, options: QuantizeOptions) -> tuple[float, float]:
    """Of the sizes on either side of 0, so that a peak at 0 does not hide what is rare."""
    middles, counts = seen.numbers()
    ends = []
    for side in (-1.0, 1.0):
        own = side * middles > 0
        sizes, amounts = np.abs(middles[own]), counts[own]
        order = np.argsort(sizes)
        reached = np.cumsum(amounts[order])
        if not reached.size:
            ends.append(0.0)
            continue
        place = np.searchsorted(reached, options.percentile / 100 * reached[-1])
        ends.append(side * float(sizes[order][min(place, reached.size - 1)]))
    return ends[0], ends[1]


def _least_error(seen: Observation, options: QuantizeOptions) -> tuple[float, float]:
    """Shrinks one end of the range after the other."""
    middles, counts = seen.numbers()
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    shares = np.linspace(1.0, 1.0 / _STEPS, _STEPS)

    def error(low: float, high: float) -> float:
        own = covering(low, high)
        steps = np.clip(np.rint(middles / own.scale), -own.zero_point, LEVELS - own.zero_point)
        return float(counts @ np.square(middles - steps * own.scale))

    for _ in range(2):
        if high > 0:
            high = min((high * share for share in shares), key=lambda end: error(low, end))
        if low < 0:
            low = min((low * share for share in shares), key=lambda end: error(end, high))
        if low == 0 or high == 0:
            break
    return low, high


_RANGES: dict[str, Callable[[Observation, QuantizeOptions], tuple[float, float]]] = {
    "mse": _least_error,
    "minmax": _all,
    "percentile": _percentile,
}
