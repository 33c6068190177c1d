"""NaN and infinity through the operator and its gradients."""

from __future__ import annotations

import pytest
import torch
from ops.layers import CASES, case, whole

pytestmark = pytest.mark.usefixtures("one_thread")


def spread(found: torch.Tensor, dense: torch.Tensor) -> bool:
    """Whether ``found`` is ``dense`` but for NaNs of zeros that were multiplied there."""
    same = (found == dense) | ~dense.isfinite()
    return bool(same.all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", CASES)
def test_a_value_that_is_not_finite_is_seen(name: str, value: float) -> None:
    """If this fails, a training that has diverged looks as if it had not, or one image spoils the
    others."""
    for batch, density in ((1, 0.3), (1, 1.0), (18, 0.3)):
        conv, layer, x = case(name, batch, density=density)
        x[0, 5, -1, -1] = value
        y, dense = layer(x), conv(x)
        connected = layer.col.eq(5).nonzero().flatten()
        rows = torch.searchsorted(layer.row_ptr, connected.int(), right=True) - 1
        assert spread(y, dense)
        assert y[0, rows].isfinite().eq(dense[0, rows].isfinite()).all()
        assert y[1:].isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_nan(name: str) -> None:
    """If this fails, a NaN in a loss does not reach the weights, or reaches other connections or
    images. Which taps on the border it reaches depends on whether their zeros are multiplied."""
    conv, layer, x = case(name, 18)
    kept = conv.weight.detach().flatten(2).ne(0).any(2)
    grad = whole(*layer(x).shape)
    grad[2, 7, 0, 0] = float("nan")
    want_x, want_w = torch.autograd.grad(conv(x.requires_grad_()), (x, conv.weight), grad)
    have_x, have_w = torch.autograd.grad(layer(x), (x, layer.weight), grad)
    first, last = layer.row_ptr[7:9].tolist()
    assert have_w[first:last].isnan().flatten(1).any(1).all()
    assert have_w.isnan().flatten(1).any(1).sum() == last - first
    same = ~have_w.isnan() & ~want_w[kept].isnan()
    assert torch.equal(have_w[same], want_w[kept][same]) and spread(have_x, want_x)
    assert have_x[[0, 1, *range(3, 18)]].isfinite().all()
    assert have_x[2, layer.col[first:last].long()].isnan().flatten(1).any(1).all()
