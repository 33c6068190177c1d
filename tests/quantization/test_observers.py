"""Histograms that grow, and the ranges made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernelprune.graph.quantization import Quantization
from kernelprune.quantization.observers import Observation, covering, quantization_of
from kernelprune.quantization.options import QuantizeOptions


def seen(*batches: torch.Tensor) -> Observation:
    found = Observation()
    for batch in batches:
        found.see(batch)
    return found


def error(numbers: torch.Tensor, own: Quantization) -> float:
    back = own.dequantize(own.quantize(numbers.numpy()))
    return float(np.square(back - numbers.numpy()).mean())


def test_histogram_grows() -> None:
    """If this fails, a larger number in a later batch moves or loses what was counted."""
    rng = torch.Generator().manual_seed(0)
    small, large = torch.randn(2000, generator=rng), 37 * torch.randn(2000, generator=rng)
    grown = seen(small, large)
    whole = seen(torch.cat([large, small]))
    assert grown.counts.sum() == 4000 and grown.width == whole.width
    assert (grown.low, grown.high) == (whole.low, whole.high)
    # Each number may end one bin further, for each time the width has doubled.
    moved = np.abs(np.cumsum(grown.counts) - np.cumsum(whole.counts)).max()
    assert moved < 100
    middles, counts = grown.numbers()
    assert counts @ middles / 4000 == pytest.approx(
        float(torch.cat([small, large]).mean()), abs=0.02
    )


def test_merged() -> None:
    """If this fails, values that share a scale are measured as one of them alone."""
    both = seen(torch.tensor([-1.0, 2.0])).merged(seen(torch.tensor([30.0, 0.0, 0.5])))
    assert (both.low, both.high, both.counts.sum()) == (-1.0, 30.0, 5)
    middles, counts = both.numbers()
    np.testing.assert_allclose(
        np.repeat(middles, counts.astype(int)), [-1, 0, 0.5, 2, 30], atol=0.01
    )


@pytest.mark.parametrize(
    ("low", "high", "zero_point"), [(0, 5, 0), (-1, 1, 128), (-3, 0, 255), (2, 5, 0), (-5, -2, 255)]
)
def test_covering(low: float, high: float, zero_point: int) -> None:
    """If this fails, a number is out of reach, or 0 is no byte: padding would not be 0."""
    own = covering(low, high)
    assert own.zero_point == zero_point
    assert own.low <= low + own.scale / 2 and own.high >= high - own.scale / 2


def test_what_stands_for_infinity_is_left_out() -> None:
    """If this fails, a max pool that another tool pads with float32's lowest number leaves no
    precision for its inputs."""
    seen = Observation()
    seen.see(torch.tensor([1.0, -2.0, torch.finfo(torch.float32).min]))
    seen.see(torch.full((3,), torch.finfo(torch.float32).min))
    assert (seen.low, seen.high, seen.counts.sum()) == (-2.0, 1.0, 2)


def test_nothing_but_zero() -> None:
    """If this fails, a dead value divides by 0."""
    own = quantization_of(seen(torch.zeros(5)), QuantizeOptions())
    assert own.scale > 0 and own.zero_point == 0


def test_constant_and_extreme() -> None:
    """If this fails, numbers beyond what a file can hold make one that no reader loads."""
    for number in (1e-30, 1e30, -3e38):
        own = quantization_of(seen(torch.tensor([number])), QuantizeOptions())
        assert 2.0**-40 <= own.scale <= 2.0**40 and 0 <= own.zero_point <= 255


@pytest.mark.parametrize("shift", [0.0, 1.0, 4.0])
def test_least_error_is_least(shift: float) -> None:
    """If this fails, the default range is worse than that of all numbers."""
    rng = torch.Generator().manual_seed(1)
    numbers = torch.randn(50000, generator=rng) ** 3 + shift  # heavy tails
    found = {
        method: quantization_of(seen(numbers), QuantizeOptions(method=method, percentile=99.0))
        for method in ("mse", "minmax", "percentile")
    }
    errors = {method: error(numbers, own) for method, own in found.items()}
    assert errors["mse"] < 0.95 * errors["minmax"]
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert found["minmax"].low <= float(numbers.min()) + found["minmax"].scale
    assert found["percentile"].high < found["minmax"].high


def test_percentile_is_a_share() -> None:
    """If this fails, the peak at 0 behind a relu makes the percentile keep every outlier."""
    numbers = torch.cat([torch.zeros(99000), torch.linspace(0.01, 1, 1000)])
    own = quantization_of(seen(numbers), QuantizeOptions(method="percentile", percentile=90.0))
    assert own.zero_point == 0 and own.high == pytest.approx(0.9, abs=0.02)


def test_clipped_share() -> None:
    """If this fails, the report hides what a range cuts off."""
    numbers = torch.linspace(0, 10, 10001)
    assert seen(numbers).clipped(covering(0, 8)) == pytest.approx(0.2, abs=0.01)
    assert seen(numbers).clipped(covering(0, 10)) == 0
