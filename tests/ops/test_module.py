"""SparseConv2d: conversion, state, and what torch offers around a module."""

from __future__ import annotations

import copy
import io
import pickle
import shutil

import pytest
import torch
from ops.layers import CASES, case, pruned, whole
from torch import nn

from kernelprune.errors import Error
from kernelprune.ops import SparseConv2d


@pytest.mark.parametrize("name", CASES)
def test_dense_to_sparse_and_back(name: str) -> None:
    """If this fails, a conversion loses or invents weights."""
    conv, layer, _ = case(name)
    back = layer.to_dense()
    assert torch.equal(back.weight, conv.weight)
    assert torch.equal(back.bias, conv.bias)  # type: ignore[arg-type]
    assert repr(back) == repr(conv)
    assert layer.density == pytest.approx(
        float(conv.weight.flatten(2).ne(0).any(2).float().mean()), abs=1e-6
    )


def test_conversion_keeps_mode_and_what_is_frozen() -> None:
    """If this fails, a frozen layer begins to train when it is swapped."""
    conv = pruned(kernel_size=3).eval()
    conv.weight.requires_grad_(False)
    layer = SparseConv2d.from_dense(conv.double())
    assert not layer.training and not layer.weight.requires_grad
    assert layer.bias is not None and layer.bias.requires_grad
    assert layer.weight.dtype == torch.float64
    back = layer.to_dense()
    assert not back.training and not back.weight.requires_grad


def test_refused() -> None:
    """If this fails, a layer that computes something else becomes a SparseConv2d."""
    with pytest.raises(Error, match="ConvTranspose2d"):
        SparseConv2d.from_dense(nn.ConvTranspose2d(2, 2, 3))  # type: ignore[arg-type]
    with pytest.raises(Error, match="padding_mode 'reflect'"):
        SparseConv2d.from_dense(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(Error, match="padding"):
        SparseConv2d.from_dense(nn.Conv2d(2, 2, 1, padding=1))
    with pytest.raises(Error, match="'valid' or 'same'"):
        SparseConv2d(2, 2, 3, 4, padding="full")


def test_repr() -> None:
    """If this fails, a printed model does not tell what is sparse."""
    options = {"kernel_size": 3, "padding": 1, "dilation": 2, "groups": 4, "bias": False}
    layer = SparseConv2d(12, 24, connections=18, **options)
    assert repr(layer) == (
        "SparseConv2d(12, 24, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), "
        "dilation=(2, 2), groups=4, bias=False, connections=18, density=0.25)"
    )


def test_state_dict_round_trip() -> None:
    """If this fails, a saved layer does not come back, or only into a layer of equal pattern."""
    _, layer, x = case("3x3")
    other = SparseConv2d.from_dense(pruned(density=0.6, seed=4, kernel_size=3, padding=1))
    weight = other.weight
    other(x)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert not any(other.load_state_dict(torch.load(file, weights_only=True)))
    assert torch.equal(other(x), layer(x))
    assert other.weight is weight  # an optimizer still knows it
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(SparseConv2d(12, 20, 3, 7).state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


def two_layers() -> tuple[nn.Module, torch.Tensor]:
    first = SparseConv2d.from_dense(pruned(kernel_size=3, padding=1))
    second = SparseConv2d.from_dense(pruned(seed=3, kernel_size=3, stride=2, padding=1))
    narrow = nn.Conv2d(24, 12, 1)
    return nn.Sequential(first, nn.ReLU(), narrow, second), torch.randn(2, 12, 8, 8)


def loss_and_gradients(run, model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    y = run(x)
    y.square().sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


BACKENDS = ["aot_eager", *(["inductor"] if shutil.which("c++") else [])]


@pytest.mark.parametrize("backend", BACKENDS)
def test_compile(backend: str) -> None:
    """If this fails, torch.compile breaks the graph at the operator or differs from eager."""
    torch._dynamo.reset()
    model, x = two_layers()
    compiled = torch.compile(model, fullgraph=True, backend=backend)

    def check(have: torch.Tensor, want: torch.Tensor) -> None:
        # Fused kernels add up in another order: close to the largest, not to each.
        atol = 1e-5 * float(want.detach().abs().max())
        torch.testing.assert_close(have, want, rtol=1e-5, atol=atol)

    expected = loss_and_gradients(model, model, x)
    for want, have in zip(expected, loss_and_gradients(compiled, model, x), strict=True):
        check(have, want)
    with torch.no_grad():
        model[0].weight.mul_(2)  # type: ignore[operator, union-attr]
        check(compiled(x), model(x))


def test_compile_with_any_batch() -> None:
    """If this fails, a new batch size compiles anew although shapes are dynamic."""
    torch._dynamo.reset()
    model, x = two_layers()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 3, 5):
        images = torch.randn(batch, *x.shape[1:])
        torch.testing.assert_close(compiled(images), model(images))


def test_export() -> None:
    """If this fails, torch.export cannot trace the operator, or not with a free batch size."""
    model, x = two_layers()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("kernelprune.conv2d.default") == 2
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for images in (x, torch.randn(7, *x.shape[1:])):
        torch.testing.assert_close(again(images), model(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    """If this fails, mixed precision reaches the float32 kernels, or its gradients lose a type."""
    model, x = two_layers()
    with torch.autocast("cpu", dtype=dtype):
        y = model(x.to(dtype))
    assert y.dtype == torch.float32
    y.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    expected = model(x)
    assert float((y - expected).norm() / expected.norm()) < 0.03


def test_functional_calls() -> None:
    """If this fails, torch.func cannot give a layer other weights or take its gradients."""
    conv, layer, x = case("3x3")
    tripled = {name: value * 3 for name, value in layer.named_parameters()}
    found = torch.func.functional_call(layer, tripled, (x,))
    assert torch.equal(found, 3 * layer(x))

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    parameters = {name: value.detach() for name, value in layer.named_parameters()}
    gradients = torch.func.grad(loss)(parameters, x)
    layer(x).square().sum().backward()
    assert torch.equal(gradients["weight"], layer.weight.grad)
    # Of each image, and of a batch of batches.
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x[:, None])
    torch.testing.assert_close(each["weight"].sum(0), gradients["weight"])
    stacked = whole(2, *x.shape)
    assert torch.equal(torch.func.vmap(layer)(stacked)[1], layer(stacked[1]))


def test_forward_mode_derivatives() -> None:
    """If this fails, a directional derivative is zero, or an error, where it is none of torch's."""
    conv, layer, x = case("3x3 stride 2", 2)
    names = ("weight", "bias")
    kept = conv.weight.detach().flatten(2).ne(0).any(2)
    directions = {"weight": whole(*layer.weight.shape, seed=5), "bias": whole(24, seed=6)}
    dense_directions = {"weight": torch.zeros_like(conv.weight), "bias": directions["bias"]}
    dense_directions["weight"][kept] = directions["weight"]

    def tangent(module: nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
        def call(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            named = dict(zip(names, parameters, strict=True))
            return torch.func.functional_call(module, named, (x,))

        primals = (x, *(getattr(module, name).detach() for name in names))
        return torch.func.jvp(call, primals, (whole(*x.shape, seed=7), *given.values()))[1]

    assert torch.equal(tangent(layer, directions), tangent(conv, dense_directions))
    # Of the input alone, with and without anything to be recorded for gradients.
    for frozen in (False, True):
        layer.requires_grad_(not frozen)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, x)
            found = torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent
        assert torch.equal(found, layer(x) - layer(torch.zeros_like(x)))


@pytest.mark.parametrize("outer", ["grad", "vjp", "jvp"])
@pytest.mark.parametrize("inner", ["grad", "jvp"])
def test_transforms_of_transforms(inner: str, outer: str) -> None:
    """If this fails, a derivative of a derivative is zero: the inner transform hides the operator
    from the outer one."""
    conv, layer, x = case("3x3 stride 2", 2)
    kept = conv.weight.detach().flatten(2).ne(0).any(2)
    first = whole(*layer.weight.shape, seed=5)
    second = whole(*layer.weight.shape, seed=6)

    def loss(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
        if module is conv:
            weight = torch.zeros_like(conv.weight).index_put((kept,), weight)
        return torch.func.functional_call(module, {"weight": weight}, (x,)).pow(2).sum()

    def once(module: nn.Module, weight: torch.Tensor) -> torch.Tensor:
        """The derivative along ``first``."""
        along = lambda weight: loss(module, weight)  # noqa: E731
        if inner == "grad":
            return (torch.func.grad(along)(weight) * first).sum()
        return torch.func.jvp(along, (weight,), (first,))[1]

    def twice(module: nn.Module) -> torch.Tensor:
        weight = layer.weight.detach()
        derivative = lambda weight: once(module, weight)  # noqa: E731
        if outer == "grad":
            return torch.func.grad(derivative)(weight)
        if outer == "vjp":
            return torch.func.vjp(derivative, weight)[1](torch.tensor(2.0))[0]
        return torch.func.jvp(derivative, (weight,), (second,))[1]

    found = twice(layer)
    assert float(found.abs().max()) > 0
    torch.testing.assert_close(found, twice(conv))


def test_hessian() -> None:
    """If this fails, vmap over forward-mode derivatives, the usual way to a Hessian, is wrong."""
    _, layer, x = case("1x1", 2)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,)).square().sum()

    weight = layer.weight.detach()
    backward = torch.func.jacrev(torch.func.jacrev(loss))(weight)
    torch.testing.assert_close(torch.func.hessian(loss)(weight), backward)
    direction = whole(*weight.shape)
    gradient = torch.func.grad(loss)
    along = (gradient(weight + direction) - gradient(weight - direction)) / 2  # exact: quadratic
    torch.testing.assert_close(backward.flatten(3) @ direction.flatten(), along)


def test_float64_is_the_dense_convolution() -> None:
    """If this fails, checks of gradients in float64 see the rounding of float32."""
    conv, layer, x = case("3x3 stride 2")
    x = torch.randn(x.shape, dtype=torch.float64)
    torch.testing.assert_close(layer.double()(x), conv.double()(x), rtol=1e-13, atol=1e-12)


def test_optimizer_step() -> None:
    """If this fails, a step of training does not reach the kernels."""
    conv, layer, x = case("3x3")
    for module in (conv, layer):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        module(x).sum().backward()
        optimizer.step()
    kept = SparseConv2d.from_dense(pruned(kernel_size=3, padding=1)).to_dense().weight.ne(0)
    kept = kept.flatten(2).any(2)[..., None, None]
    with torch.no_grad():
        conv.weight.mul_(kept)
    assert torch.equal(conv(x), layer(x))
