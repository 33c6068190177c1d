"""Rows of ATen operators that reduce or normalize: sums, norms, pools, softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph.ops.capture import Model, captured, ops
from torch import nn
from torch.nn import functional as F

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.trace import trace

MAP = (4, 5, 7)
aten = torch.ops.aten

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sums": lambda x: (
        x.mean(1), x.mean((2, 3)), x.mean((1, 2), keepdim=True), x.mean((1, 2, 3)), x.sum(1),
        x.sum((-1, -2), keepdim=True), x.amax(1), x.amin((2, 3)), x.max(1)[0], x.min(2)[0],
        x.max(3, keepdim=True)[1], x.min(1)[1], x.argmax(1), x.argmin(2, keepdim=True),
        x.sum((1, 3)),
    ),
    "spread": lambda x: (
        x.var(1), x.var((2, 3), unbiased=False), x.std(1, keepdim=True),
        x.std((2, 3), correction=0),
        *torch.var_mean(x, (2, 3), keepdim=True), torch.std_mean(x, 1)[0],
    ),
    "norms": lambda x: (
        x.norm(dim=1), torch.linalg.vector_norm(x, dim=(2, 3)), x.norm(p=1, dim=1, keepdim=True),
        torch.linalg.vector_norm(x, float("inf"), dim=1), x.norm(p=3, dim=1), x.logsumexp(1),
        torch.linalg.vector_norm(x, -float("inf"), dim=3), F.normalize(x, p=1, dim=2),
        x.logsumexp((1, 2), keepdim=True),
    ),
    "softmax": lambda x: (
        F.softmax(x, 1), F.softmax(x, -1), F.log_softmax(x, 1), F.log_softmax(x, 2),
        F.softmin(x, 3), F.softmax(x.flatten(2), 2),
    ),
    "adaptive pools": lambda x: (
        F.adaptive_avg_pool2d(x, (3, 2)), F.adaptive_avg_pool2d(x, 1), F.adaptive_avg_pool2d(x, 5),
        F.adaptive_max_pool2d(x, (3, 2)), F.adaptive_avg_pool2d(x, (None, 3)),
        F.adaptive_max_pool2d(x, 1), F.adaptive_avg_pool2d(x, (9, 7)),
    ),
    "average pools": lambda x: (
        F.avg_pool2d(x, 2), F.avg_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        F.avg_pool2d(x, (2, 3), divisor_override=5), F.avg_pool2d(x, 3, 1, 1, divisor_override=2),
        F.avg_pool2d(x, (1, 2), (2, 1)),
    ),
    "torch's own names": lambda x: (
        aten.native_layer_norm(x, [7], None, None, 1e-5)[0], aten._softmax(x, 1, False),
        aten.native_group_norm(x, None, None, x.shape[0], 4, 35, 2, 1e-5)[0],
        aten._log_softmax(x, 2, False), aten._adaptive_avg_pool2d(x, [3, 2]),
        aten.max_pool1d_with_indices(x[:, 0], [2], [2])[0],
    ),
    "local response": lambda x: (F.local_response_norm(x, 3), F.local_response_norm(x, 2, k=2.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    """If this fails, the row of one of these operators computes something else than torch."""
    captured(Model(FUNCTIONS[name]), [MAP])


SEQUENCES: dict[str, Callable[..., Any]] = {
    "pools": lambda x: (
        F.avg_pool1d(x, 3), F.avg_pool1d(x, 3, 2, 1), F.avg_pool1d(x, 4, 3, 1, ceil_mode=True),
        F.avg_pool1d(x, 3, 2, 1, count_include_pad=False), F.max_pool1d(x, 3),
        F.max_pool1d(x, 3, 2, 1, 2), F.max_pool1d(x, 4, 3, ceil_mode=True),
        F.adaptive_avg_pool1d(x, 4), F.adaptive_max_pool1d(x, 4), F.adaptive_avg_pool1d(x, 1),
    ),
    "norms": lambda x: (
        F.layer_norm(x, (9,)), F.layer_norm(x, (4, 9)), F.group_norm(x, 2), F.instance_norm(x),
        F.rms_norm(x, (9,)), F.normalize(x), F.softmax(x, 1), x.mean(1), x.var(2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    """If this fails, what works on maps does something else with [C, L]."""
    captured(Model(SEQUENCES[name]), [(4, 9)])


def test_of_two_values() -> None:
    """If this fails, the angle between two vectors is wrong."""
    functions = lambda x, y: (F.cosine_similarity(x, y), F.cosine_similarity(x, y, 2, 0.5))  # noqa: E731
    captured(Model(functions), [MAP, MAP])


def _with_weights(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.25)
    return module


NORMS: list[tuple[nn.Module, list[str]]] = [
    (nn.LayerNorm(7), ["layer_norm"]),
    (nn.LayerNorm(7, elementwise_affine=False), ["layer_norm"]),
    (nn.LayerNorm((5, 7)), ["reshape", "layer_norm", "reshape"]),
    (nn.LayerNorm(MAP), ["group_norm", "constant", "binary", "constant", "binary"]),
    (nn.LayerNorm(MAP, elementwise_affine=False), ["group_norm"]),
    (nn.GroupNorm(2, 4), ["group_norm"]),
    (nn.GroupNorm(1, 4, affine=False), ["group_norm"]),
    (nn.InstanceNorm2d(4), ["group_norm"]),
    (nn.InstanceNorm2d(4, affine=True), ["group_norm"]),
    (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), ["affine"]),
    (nn.RMSNorm(7, eps=1e-3),
     ["unary", "reduce", "affine", "unary", "binary", "constant", "binary"]),
]  # fmt: skip


@pytest.mark.parametrize("position", range(len(NORMS)))
def test_norm_layers(position: int) -> None:
    """If this fails, a layer that normalizes loses its weights or normalizes over other axes."""
    module, wanted = NORMS[position]
    assert ops(captured(Model(lambda norm, x: norm(x), _with_weights(module)), [MAP])) == wanted


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "mean of the batch": (lambda x: x.mean(0, keepdim=True) + x, "batch"),
    "softmax of the batch": (lambda x: F.softmax(x, 0), "axis 0"),
    "largest of all": (lambda x: x / x.max(), "batch"),
    "another type": (lambda x: x.sum(1, dtype=torch.float64), "type"),
    "rounded": (lambda x: torch.div(x, 2, rounding_mode="floor"), "rounds"),
    "whole numbers": (lambda x: x.argmax(1) * 2, "int64"),
    "one number": (lambda x: x.var((2, 3), correction=35), "variance"),
    "volume": (lambda x: F.avg_pool3d(x[:, None], 2), "volume"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, images of a batch mix, or an operator is taken for another."""
    function, reason = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=reason):
        trace(Model(function), torch.zeros(2, *MAP))
