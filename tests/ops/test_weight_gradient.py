"""The gradient for the weights of the kept connections, against torch's dense one in float64."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from ops.layers import CASES, arguments, case, whole

from kernelprune import _core
from kernelprune.errors import Error, ShapeError
from kernelprune.ops import SparseConv2d, cpu, dense
from kernelprune.ops.pattern import pattern_of

conv2d_weight = torch.ops.kernelprune.conv2d_weight


def expected_of(conv: torch.nn.Conv2d, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """By torch, in float64: [connections, kh, kw]."""
    kept = conv.weight.detach().flatten(2).ne(0).any(2)
    wide = conv.double()
    wide.zero_grad()
    wide(x.double()).backward(grad.double())
    assert wide.weight.grad is not None
    return wide.weight.grad[kept]


def kernel_of(layer: SparseConv2d, x: torch.Tensor, **options) -> _core.WeightGradient:
    return _core.WeightGradient(
        layer.row_ptr.data_ptr(), layer.col.data_ptr(), layer.out_channels, len(layer.col),
        *x.shape[1:], list(layer.kernel_size), list(layer.stride), list(layer._borders),
        list(layer.dilation), **options,
    )  # fmt: skip


def run(kernel: _core.WeightGradient, layer: SparseConv2d, x: torch.Tensor, grad: torch.Tensor):
    """The result, of which nothing beside it is written."""
    guarded = torch.full((layer.weight.numel() + 64,), 7.0)
    kernel.run(grad.data_ptr(), x.data_ptr(), guarded[32:].data_ptr(), len(x))
    assert guarded[:32].eq(7).all() and guarded[-32:].eq(7).all()
    return guarded[32:-32].view(layer.weight.shape)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("name", CASES)
def test_exact_on_whole_numbers(name: str, isa: str) -> None:
    """If this fails, a tap, a border, a connection or a lane is left out or counted twice."""
    for batch, density in ((1, 0.3), (3, 1.0), (8, 0.3), (16, 0.6), (16, 0.0), (35, 0.3)):
        conv, layer, x = case(name, batch, density=density)
        grad = whole(*conv(x).shape, seed=3)
        found = run(kernel_of(layer, x, isa=isa), layer, x, grad)
        assert torch.equal(found.double(), expected_of(conv, x, grad)), (batch, density)


@pytest.mark.parametrize("batch", [2, 16, 40])
def test_the_number_of_threads_changes_nothing(batch: int) -> None:
    """If this fails, a training cannot be repeated on another machine."""
    for name in CASES:
        conv, layer, x = case(name, batch)
        x, grad = torch.randn(x.shape), torch.randn(conv(x).shape)
        found = [run(kernel_of(layer, x, threads=n), layer, x, grad) for n in (1, 2, 3, 16)]
        assert all(torch.equal(one, found[0]) for one in found[1:]), name


def test_large_maps_go_by_blocks_of_rows() -> None:
    """If this fails, rows between two blocks are lost; or the sums of many pixels lose digits."""
    conv = torch.nn.Conv2d(5, 70, 3, padding=1)
    with torch.no_grad():
        conv.weight.mul_(torch.rand(70, 5, 1, 1) < 0.4)
    layer, x = SparseConv2d.from_dense(conv), torch.randn(4, 5, 130, 90)
    grad = torch.randn(4, 70, 130, 90)
    expected = expected_of(conv, x, grad)
    error = (run(kernel_of(layer, x), layer, x, grad).double() - expected).norm()
    assert float(error / expected.norm()) < 2e-6


def test_callers_share_a_layer() -> None:
    """If this fails, threads that train at once write into each other's lanes."""
    conv, layer, x = case("3x3", 16)
    kernel = kernel_of(layer, x)
    grads = [whole(*conv(x).shape, seed=seed) for seed in range(4)]
    expected = [run(kernel, layer, x, grad) for grad in grads]

    def work(number: int) -> bool:
        return all(
            torch.equal(run(kernel, layer, x, grads[number]), expected[number]) for _ in range(50)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_pruned_layers_never_compute_the_dense_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a step of training costs as much as if nothing had been pruned."""

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("the dense gradient was computed")

    monkeypatch.setattr(dense, "conv2d_weight", refuse)
    for name in CASES:
        conv, layer, x = case(name, 16, density=0.1)
        grad = whole(*conv(x).shape)
        geometry = arguments(layer, x)[6:]
        found = conv2d_weight(grad, x, layer.row_ptr, layer.col, layer.kernel_size, *geometry)
        assert torch.equal(found.double(), expected_of(conv, x, grad)), name


def test_either_way_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the gradient jumps where the density passes the limit between the two."""
    conv, layer, x = case("3x3 stride 2", 5, density=0.5)
    grad = whole(*conv(x).shape)
    tensors, geometry = (layer.row_ptr, layer.col), arguments(layer, x)[6:]
    found = []
    for limit in (0.0, 1e9):
        monkeypatch.setattr(cpu, "_DENSE_FROM", (limit, limit))
        found.append(conv2d_weight(grad, x, *tensors, layer.kernel_size, *geometry))
    assert torch.equal(*found)


def test_any_memory_layout() -> None:
    """If this fails, gradients that are not contiguous are read in the wrong order."""
    conv, layer, x = case("3x3", 16, density=0.1)
    grad = whole(*conv(x).shape)
    rest = (layer.row_ptr, layer.col, layer.kernel_size, *arguments(layer, x)[6:])
    expected = conv2d_weight(grad, x, *rest)
    last = torch.channels_last
    found = conv2d_weight(grad.to(memory_format=last), x.to(memory_format=last), *rest)
    assert torch.equal(found, expected)
    # The gradient of a sum is one number, expanded.
    ones = torch.ones(()).expand(grad.shape)
    assert torch.equal(conv2d_weight(ones, x, *rest), conv2d_weight(ones.contiguous(), x, *rest))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_go_through(bad: float) -> None:
    """If this fails, a training that has run into NaN or infinity looks healthy."""
    conv, layer, x = case("3x3", 16, density=0.3)
    grad = whole(*conv(x).shape).abs() + 1
    x[3, 5, 2, 2] = bad
    found = run(kernel_of(layer, x), layer, x, grad)
    assert torch.equal(found.isfinite(), expected_of(conv, x, grad).isfinite())
    assert not found[layer.col == 5].isfinite().any()


def refused_weight(**changes: object) -> torch.Tensor:
    """A good call of conv2d_weight but for these arguments."""
    _, layer, x = case("3x3")
    values = {
        "grad": torch.zeros(3, 24, 16, 16), "input": x, "row_ptr": layer.row_ptr,
        "col": layer.col, "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1),
    }  # fmt: skip
    return conv2d_weight(*{**values, **changes}.values())


def refused_input(**changes: object) -> torch.Tensor:
    """The same of conv2d_input."""
    _, layer, _ = case("3x3")
    values = {
        "grad": torch.zeros(3, 24, 16, 16), "weight": layer.weight, "row_ptr": layer.row_ptr,
        "col": layer.col, "in_channels": 12, "size": (16, 16), "stride": (1, 1),
        "padding": (1, 1, 1, 1),
    }  # fmt: skip
    return torch.ops.kernelprune.conv2d_input(*{**values, **changes}.values())


REFUSED = {
    "size": ({"grad": torch.zeros(3, 24, 15, 16)}, "shape [batch,24,16,16], got [3, 24, 15, 16]"),
    "channels": ({"grad": torch.zeros(3, 23, 16, 16)}, "must have the shape [batch,24,16,16]"),
    "rank": ({"grad": torch.zeros(3, 24, 16)}, "must have the shape [batch,24,16,16]"),
    "types": ({"grad": torch.zeros(3, 24, 16, 16).double()}, "the gradient is torch.float64"),
    "strides": ({"stride": (2, 2)}, "must have the shape [batch,24,8,8]"),
}
REFUSED_WEIGHT = {
    "batch": ({"grad": torch.zeros(2, 24, 16, 16)}, "shape [2,channels,height,width], got [3, 12"),
    "rank of the input": ({"input": torch.zeros(3, 16, 16)}, "[3,channels,height,width]"),
    "input channels": ({"input": torch.zeros(3, 11, 16, 16)}, "input channel 11, but there are 11"),
    "kernel": ({"kernel": (40, 40)}, "does not fit the input [16, 16]"),
}
REFUSED_INPUT = {
    "weights": ({"weight": torch.zeros(5, 3, 3)}, "weight has 5 connections"),
    "in_channels": ({"in_channels": 4}, "input channel 11, but there are 4"),
    "map": ({"size": (100, 100)}, "must have the shape [batch,24,100,100]"),
    "small map": ({"size": (0, 16)}, "does not fit the input [0, 16]"),
}


@pytest.mark.parametrize(
    ("call", "changes", "message"),
    [
        *((refused_weight, *row) for row in (REFUSED | REFUSED_WEIGHT).values()),
        *((refused_input, *row) for row in (REFUSED | REFUSED_INPUT).values()),
    ],
    ids=[*REFUSED | REFUSED_WEIGHT, *(f"{name}, input" for name in REFUSED | REFUSED_INPUT)],
)
def test_refused(call, changes: dict[str, object], message: str) -> None:
    """If this fails, a gradient of another shape is read past its end, or the error is one of
    torch's about something else."""
    with pytest.raises(ShapeError, match=re.escape(message)):
        call(**changes)


def test_threads_are_checked() -> None:
    """If this fails, a number of threads without sense divides by zero."""
    _, layer, x = case("3x3")
    with pytest.raises(Error, match="threads=0"):
        kernel_of(layer, x, threads=0)


def test_places_are_those_of_whole_vectors() -> None:
    """If this fails, the choice between the two ways counts other work than is done."""
    _, layer, x = case("3x3")
    widths = {"portable": [4], "avx2": [8], "avx512": [16, 8]}
    for isa in _core.available_isas():
        kernel, (wide, *_), narrow = kernel_of(layer, x, isa=isa), widths[isa], widths[isa][-1]
        assert [kernel.places(n) for n in (0, 1, narrow, wide, wide + 1, 5 * wide)] == [
            0, narrow, narrow, wide, wide + narrow, 5 * wide,
        ]  # fmt: skip
    assert (
        pattern_of(layer.row_ptr, layer.col)
        .weight_gradient(tuple(x.shape[1:]), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
        .places(16)
        >= 16
    )
