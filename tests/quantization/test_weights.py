"""Weights as whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from kernelprune import Error
from kernelprune.format import Graph, Node, Value
from kernelprune.graph.quantization import Quantization
from kernelprune.graph.validate import check_graph
from kernelprune.quantization.weights import make_integer


def rounded(
    weight: np.ndarray, bias: np.ndarray, source: Quantization, per_channel: bool = True
) -> Node:
    """A linear layer that a file may have."""
    node = Node("linear", "n", ["x"], "y", (len(weight),), {"activation": "none"})
    node.weight, node.bias = weight, bias
    make_integer(node, source, per_channel=per_channel)
    check_graph(Graph([Value("x", weight.shape[1:], quantization=source)], ["y"], [node]))
    return node


def test_close_to_the_weights() -> None:
    """If this fails, a weight or a bias is more than half a step away."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (5, 40)) * np.array([[1e-3], [1], [50], [0.1], [1]])
    bias, source = rng.normal(0, 1, 5), Quantization(0.02, 30)
    for per_channel in (True, False):
        node = rounded(weight, bias, source, per_channel)
        wide = node.weight_scale.astype(np.float64)
        assert (np.abs(node.weight * wide[:, None] - weight) <= 0.5001 * wide[:, None]).all()
        step = wide * source.scale
        assert (np.abs(node.bias * step - bias) <= 0.5001 * step).all()
        assert node.weight.dtype == np.int8 and np.abs(node.weight).max() == 127
        assert (np.abs(node.weight).max(axis=1) == 127).all() == per_channel
        assert (len(set(wide)) == 1) != per_channel


def test_rows_without_weights_keep_their_bias() -> None:
    """If this fails, a channel that is a constant becomes another one."""
    source = Quantization(0.02, 30)
    node = rounded(np.zeros((3, 4)), np.array([1234.5, 0.0, -1e-9]), source)
    value = node.bias * node.weight_scale.astype(np.float64) * source.scale
    np.testing.assert_allclose(value, [1234.5, 0, -1e-9], rtol=1e-5)


def test_large_bias_beside_small_weights() -> None:
    """If this fails, a bias overflows its 32 bits."""
    node = rounded(np.full((1, 4), 1e-6), np.array([5e3]), Quantization(1e-3, 0))
    assert node.bias[0] * node.weight_scale[0] * 1e-3 == pytest.approx(5e3, rel=1e-6)


def test_wide_rows_cannot_overflow() -> None:
    """If this fails, a layer with very many inputs is one that readers refuse."""
    node = rounded(np.ones((2, 70_000)), np.zeros(2), Quantization(1.0, 0))
    assert 255 * np.abs(node.weight.astype(np.int64)).sum(axis=1).max() < 2**31
    np.testing.assert_allclose(node.weight[0] * node.weight_scale[0], 1, rtol=0.02)


def test_too_large_for_a_file() -> None:
    """If this fails, a diverged layer is written as one that no reader loads."""
    with pytest.raises(Error, match="'n'.*too large"):
        rounded(np.full((1, 2), 1e20), np.zeros(1), Quantization(1.0, 0))
