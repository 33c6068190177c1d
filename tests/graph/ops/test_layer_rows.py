"""Rows of convolutions and linear layers that are more than one node of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph.ops.capture import Model, captured, ops
from torch import nn
from torch.nn import functional as F

from kernelprune.errors import UnsupportedOperator
from kernelprune.frontends.torch.trace import trace

# channels in, out, kernel, then the options of nn.ConvTranspose2d.
TRANSPOSED: list[tuple[Any, ...]] = [
    (4, 6, 2, {"stride": 2}),  # no tap overlaps another
    (4, 6, 4, {"stride": 2, "padding": 1}),
    (4, 6, 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    (4, 6, 3, {"stride": 2}),
    (4, 6, 3, {}),  # stride 1
    (4, 6, 5, {"padding": 2, "bias": False}),
    (4, 6, 2, {"stride": 3}),  # the kernel is smaller than the stride
    (4, 6, 2, {"stride": 3, "output_padding": 2}),
    (4, 6, 7, {"stride": 3, "padding": 6}),  # more padding than a block
    (4, 6, 3, {"stride": 2, "groups": 2}),
    (4, 4, 4, {"stride": 2, "padding": 1, "groups": 4}),
    (4, 6, 3, {"stride": 2, "dilation": 2}),
    (4, 6, (3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    (4, 6, (2, 5), {"stride": (1, 3)}),
    (4, 6, (4, 3), {"stride": (4, 2), "output_padding": (2, 1)}),
    (4, 6, 1, {"stride": 2, "output_padding": 1}),
]


@pytest.mark.parametrize("position", range(len(TRANSPOSED)))
def test_transposed_convolution(position: int) -> None:
    """If this fails, a pixel of an upsampled map comes from the wrong tap."""
    inputs, outputs, kernel, options = TRANSPOSED[position]
    module = nn.ConvTranspose2d(inputs, outputs, kernel, **options)
    graph = captured(Model(lambda conv, x: conv(x), module), [(inputs, 3, 5)])
    assert [op for op in ops(graph) if op == "conv2d"] == ["conv2d"]


def test_transposed_convolution_is_one_convolution() -> None:
    """If this fails, upsampling by 2 with a kernel of 2 costs more than its connections."""
    module = nn.ConvTranspose2d(4, 6, 2, 2)
    graph = captured(Model(lambda conv, x: F.relu(conv(x)), module), [(4, 3, 5)])
    assert ops(graph) == ["conv2d", "depth_to_space"]
    assert graph.macs() == 4 * 6 * 2 * 2 * 3 * 5


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"stride": 3, "output_padding": 2, "groups": 2},
        {"dilation": 2, "bias": False},
    ],
    ids=str,
)
def test_transposed_convolution_of_sequences(options: dict[str, Any]) -> None:
    """If this fails, sequences are upsampled otherwise than maps of one row."""
    module = nn.ConvTranspose1d(4, 6, 3, **options)
    captured(Model(lambda conv, x: conv(x), module), [(4, 7)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "bias": False},
        {"groups": 2, "padding": 5},
        {"padding": 2, "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_convolution_of_sequences(options: dict[str, Any]) -> None:
    """If this fails, a convolution of [C, L] has another window than torch's."""
    module = nn.Conv1d(4, 6, 3, **options)
    captured(Model(lambda conv, x: F.relu(conv(x)), module), [(4, 9)])


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 5},
        {"padding": (1, 4), "stride": 2},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 2, "padding_mode": "circular"},
        {"padding": "same", "padding_mode": "replicate"},
    ],
    ids=str,
)
def test_padding_that_a_convolution_has_not(options: dict[str, Any]) -> None:
    """If this fails, padding wider than the kernel, or that is not zeros, is left out."""
    module = nn.Conv2d(4, 6, 3, **options)
    captured(Model(lambda conv, x: conv(x), module), [(4, 6, 7)])


@pytest.mark.parametrize("shape", [(5,), (7, 5), (3, 7, 5), (2, 3, 4, 5)], ids=str)
def test_linear_on_the_last_axis(shape: tuple[int, ...]) -> None:
    """If this fails, a linear layer mixes other numbers than those of its axis."""
    captured(Model(lambda linear, x: linear(x), nn.Linear(5, 6)), [shape])


def test_linear_on_permuted_maps() -> None:
    """If this fails, the linear layers of channels-last blocks (ConvNeXt) read the wrong axis."""
    module = nn.Linear(4, 6)
    model = Model(lambda linear, x: linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), module)
    assert ops(captured(model, [(4, 3, 5)])) == ["conv2d"]


def _convolution(weight: torch.Tensor, transposed: bool, x: torch.Tensor) -> torch.Tensor:
    axes = weight.dim() - 2
    more = [int(transposed)] * axes
    options = ([2] * axes, [1] * axes, [1] * axes, transposed, more, 1)
    return torch.ops.aten.convolution(x, weight, None, *options)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("axes", [1, 2])
def test_the_operator_that_all_convolutions_are(axes: int, transposed: bool) -> None:
    """If this fails, programs that torch has decomposed cannot be captured."""
    weight = torch.arange(4.0 * 4 * 3**axes, dtype=torch.float64).reshape(4, 4, *[3] * axes)
    captured(Model(lambda x: _convolution(weight, transposed, x)), [(4, 5, 7)[: axes + 1]])


def test_weights_that_the_model_computes() -> None:
    """If this fails, a weight that depends on the image counts as one that does not."""
    model = Model(lambda x: F.conv1d(x, x[0, :2].unsqueeze(0)))
    with pytest.raises(UnsupportedOperator):
        trace(model, torch.zeros(2, 2, 9))
