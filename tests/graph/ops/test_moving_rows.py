"""Rows of ATen operators that move numbers: slices, parts, copies, padding, shuffles, resizing."""

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

MAP = (8, 4, 6)
aten = torch.ops.aten


def stacked_twice(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pair = torch.stack([x, 2 * x])
    return pair.sum(0), pair[1]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "slices": lambda x: (
        x[:, 2:5], x[:, :, 1:], x[..., ::2], x[:, 1::3], x[:, -3:], x[:, 3], x[:, :, -1],
        x.narrow(1, 2, 3), x[..., 1:-1, 2:100], x[:, :, :, 0:1],
    ),
    "parts": lambda x: (
        *x.split(3, 1), *x.split([2, 6], 1), *x.chunk(3, 3), *x.tensor_split(3, 1),
        *x.tensor_split((1, 5), 1), *x.unbind(2), x.split(4, 1)[1],
    ),
    "joined": lambda x: (
        torch.stack([x, x * 2], 1)[:, 0], torch.stack([x[:, 0], x[:, 1]], -1),
        torch.stack([x.mean((2, 3)), x.amax((2, 3))], 1), torch.cat([x, x[:, :2]], 1),
        torch.cat([x, x], -1), torch.cat([x[:, :, :1], x], 2),
    ),
    "reduced before the batch": lambda x: (
        torch.stack([x, x * 2, -x]).sum(0), torch.stack([x, x.abs()]).mean(dim=0),
        torch.stack((x, -x), -5).amax([0]), torch.stack([x, torch.ones_like(x)]).amin(0),
        torch.sum(torch.stack([x[:, :1], x[:, 1:2]]), dim=0),
    ),
    "with constants": lambda x: (
        torch.cat([torch.arange(6.0).expand(x.shape[0], 8, 1, 6), x], 2),
        torch.cat([x, torch.zeros(x.shape[0], 1, 4, 6)], 1),
    ),
    "copies": lambda x: (
        x[:, :1].expand(-1, 5, -1, -1), x.mean((2, 3), keepdim=True).expand_as(x),
        x.repeat(1, 2, 1, 3), x.mean(1, keepdim=True).repeat(1, 5, 1, 1), x.tile(1, 1, 2, 1),
        x.repeat_interleave(2, 1), x.repeat_interleave(3, dim=-1), x.tile(2),
    ),
    "gathered": lambda x: (
        x[:, [2, 0, 2]], x[:, :, [3, 1]], x.index_select(3, torch.tensor([5, 0])),
         x[..., torch.tensor([[0, 1], [2, 5]])][..., 0, :],
        x.flip(1), x.flip((2, 3)), x.roll(1, 1), x.roll((1, -2), (2, 3)), x.roll(6, 3),
    ),
    "shuffles": lambda x: (
        F.channel_shuffle(x, 4), F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2),
        F.pixel_shuffle(x, 1),
    ),
    "axes": lambda x: (
        x.permute(0, 2, 3, 1), x.transpose(1, 3), x.flatten(2), x.flatten(1, 2), x.mT,
        x.unflatten(1, (2, 4)), x.movedim(1, -1), x.unsqueeze(2)[:, :, :, 0], x.swapaxes(2, 3),
        x.reshape(-1, 4, 8, 6) * 2, x[:, :1].squeeze(1), x.flatten(2).transpose(1, 2),
    ),
    "padding": lambda x: (
        F.pad(x, (1, 2)), F.pad(x, (1, 2, 0, 3), value=0.5), F.pad(x, (0, 0, 0, 0, 2, 1)),
        F.pad(x, (1, 2, 3, 1), mode="reflect"), F.pad(x, (1, 7, 5, 0), mode="replicate"),
        F.pad(x, (1, 2, 3, 1), mode="circular"), F.pad(x, (-1, 2, 1, -2)), F.pad(x, (0, 0)),
        F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-float("inf")), 3, 2),
    ),
    "torch's own names": lambda x: (
        aten.upsample_nearest2d(x, [5, 9]), aten.upsample_nearest2d(x, [8, 12], 2.0, 2.0),
        aten._upsample_nearest_exact2d(x, [7, 5]),
        aten.constant_pad_nd(x, [1, 2], 0.5), aten.reflection_pad2d(x, [1, 2, 3, 0]),
        aten.replication_pad2d(x, [1, 2, 3, 0]),
        *aten.split_with_sizes(x, [3, 5], 1), aten.roll(x, [1], [2]),
    ),
    "resized": lambda x: (
        F.interpolate(x, scale_factor=2), F.interpolate(x, (5, 9)),
        F.interpolate(x, scale_factor=(1.5, 0.5)), F.interpolate(x, (7, 7), mode="nearest-exact"),
        F.interpolate(x, scale_factor=2, mode="bilinear"), F.interpolate(x, (7, 5), mode="bicubic"),
        F.interpolate(x, (7, 5), mode="bilinear", align_corners=True),
        F.interpolate(x, scale_factor=1.7, mode="bicubic", align_corners=True),
        F.interpolate(x, scale_factor=0.7, mode="bilinear", recompute_scale_factor=True),
        nn.UpsamplingBilinear2d(scale_factor=2)(x), nn.UpsamplingNearest2d(size=(3, 3))(x),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    """If this fails, the row of one of these operators moves numbers to the wrong place."""
    captured(Model(FUNCTIONS[name]), [MAP])


SEQUENCES: dict[str, Callable[..., Any]] = {
    "sequence": lambda x: (
        x[:, 1:3], x[..., ::2], x.transpose(1, 2), F.pad(x, (1, 2)), F.pad(x, (2, 1), "reflect"),
        F.pad(x, (2, 1), "replicate"), F.pad(x, (2, 1), "circular"), *x.chunk(2, -1), x.flip(2),
        F.interpolate(x, scale_factor=2), F.interpolate(x, 5, mode="linear"),
        F.interpolate(x, scale_factor=1.5, mode="linear"),
        F.interpolate(x, 9, mode="linear", align_corners=True),
        F.interpolate(x, 7, mode="nearest-exact"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    """If this fails, what works on maps does something else with [C, L]."""
    captured(Model(SEQUENCES[name]), [(4, 6)])


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4, 6)], ids=str)
def test_other_ranks(shape: tuple[int, ...]) -> None:
    """If this fails, vectors or volumes are moved to the wrong place."""
    functions = lambda x: (x[..., 1:4], *x.split(2, -1), x.flip(-1), x.roll(1, 1), F.pad(x, (1, 0)))  # noqa: E731
    captured(Model(functions), [shape])


FORMS: list[tuple[Callable[..., Any], list[str]]] = [
    (lambda x: x[:], []),
    (lambda x: x[:, 0:8], []),
    (lambda x: x.chunk(2, 1)[1], ["slice"]),
    (lambda x: F.channel_shuffle(x, 2), ["gather"]),
    (lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2), ["gather"]),
    (lambda x: x * x[:, :1].expand_as(x), ["slice", "expand", "binary"]),
    (lambda x: x[:, [0, 1, 2, 3, 4, 5, 6, 7]], []),
]


@pytest.mark.parametrize("position", range(len(FORMS)))
def test_the_simplest_nodes(position: int) -> None:
    """If this fails, an operation takes more nodes than it must."""
    function, wanted = FORMS[position]
    found = ops(captured(Model(function), [MAP]))
    assert found == [op for op in wanted if op != "expand"]


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "stacked before the batch": (lambda x: torch.stack([x, x]).sum((0, 2)), "first axis"),
    "both summed and kept": (lambda x: sum(stacked_twice(x)), "first axis"),
    "some images": (lambda x: x[:1].expand_as(x) + x, "batch"),
    "repeated images": (lambda x: x.repeat(2, 1, 1, 1).sum((1, 2, 3)), "batch"),
    "rolled images": (lambda x: x.roll(1, 0), "batch"),
    "flipped images": (lambda x: x.flip(0), "batch"),
    "rolled flat": (lambda x: x.roll(1), "dims"),
    "index of the input": (lambda x: x[:, x.argmax(1).flatten()], "constant index"),
    "two indices": (lambda x: x[:, [0, 1], [1, 2]], "one constant index"),
    "antialias": (
        lambda x: F.interpolate(x, (2, 3), mode="bilinear", antialias=True),
        "no counterpart",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, images of a batch mix, or an operator is taken for another."""
    function, reason = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=reason):
        trace(Model(function), torch.zeros(2, *MAP))
