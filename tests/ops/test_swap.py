"""sparsify and densify on whole models, and what the rest of the package makes of the result."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from ops.layers import pruned
from torch import nn
from torch.nn.utils import parametrize, prune

import kernelprune as kp
from kernelprune import models
from kernelprune.ops import SparseConv2d, densify, sparsify


def count(model: nn.Module) -> int:
    return sum(isinstance(module, SparseConv2d) for module in model.modules())


def pruned_network(name: str, density: float = 0.1, side: int = 32, **options) -> nn.Module:
    model = models.create(name, seed=0, num_classes=10, **options)
    x = torch.zeros(1, 3, side, side)
    kp.prune_connections(model, density=density, criterion="random", scope="layer", x=x)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                kept = module.weight.flatten(2).ne(0).any(2).float().mean()
                module.weight.mul_(float(kept) ** -0.5)
    return model


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return pruned_network("resnet18", stem="cifar", width=0.25)


def test_a_step_of_training_is_that_of_the_dense_network(resnet: nn.Module) -> None:
    """If this fails, a swapped network trains towards something else."""
    dense = copy.deepcopy(resnet).train()
    sparse = sparsify(copy.deepcopy(resnet)).train()
    assert count(sparse) == 19  # all but the first, which is dense
    x, target = torch.randn(8, 3, 32, 32), torch.arange(8)
    losses, optimizers = [], []
    for model in (dense, sparse):
        optimizers.append(torch.optim.SGD(model.parameters(), lr=0.1))
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    dense_modules = dict(dense.named_modules())
    for name, module in sparse.named_modules():
        if isinstance(module, SparseConv2d):
            conv = dense_modules[name]
            kept = conv.weight.detach().flatten(2).ne(0).any(2)
            want, have = conv.weight.grad[kept], module.weight.grad
            assert float((want - have).norm() / want.norm()) < 1e-4, name
    for optimizer in optimizers:
        optimizer.step()
    for module in (dense, sparse):
        module.eval()
    masks = {n: m.to_dense().weight.ne(0) for n, m in sparse.named_modules() if hasattr(m, "col")}
    with torch.no_grad():
        for name, mask in masks.items():
            dense_modules[name].weight.mul_(mask.flatten(2).any(2)[..., None, None])
        torch.testing.assert_close(sparse(x), dense(x), rtol=1e-3, atol=1e-3)


def test_export_writes_the_same_file(resnet: nn.Module, tmp_path: Path) -> None:
    """If this fails, kp.export of a swapped model is not that of the dense one."""
    x = torch.randn(2, 3, 32, 32)
    mobile = models.create("mobilenet_v2", seed=0, width=0.25).eval()
    for i, model in enumerate((resnet, mobile)):
        sparse = sparsify(copy.deepcopy(model), below=2.0)
        assert count(sparse) > 15
        files = tmp_path / f"dense{i}", tmp_path / f"sparse{i}"
        for network, file in zip((model, sparse), files, strict=True):
            kp.export(network, x, file)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_compact(resnet: nn.Module) -> None:
    """If this fails, compact leaves dead channels in swapped layers, or unswaps them."""
    x = torch.randn(2, 3, 32, 32)
    model = copy.deepcopy(resnet).eval()
    with torch.no_grad():
        model.get_submodule("layer1.0.conv1").weight[:8] = 0
    sparse = sparsify(copy.deepcopy(model))
    smaller = kp.compact(sparse, x)
    assert count(smaller) == count(sparse)
    expected = kp.compact(model, x)
    assert repr(densify(copy.deepcopy(smaller))) == repr(expected)
    torch.testing.assert_close(smaller(x), sparse(x), rtol=1e-4, atol=1e-4)


class Block(nn.Module):
    """One layer used twice, two that share a weight, and layers that cannot be swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.a = pruned(kernel_size=3, padding=1)
        self.again = self.a
        self.narrow = nn.ModuleList([nn.Conv2d(24, 12, 1), nn.Conv2d(24, 12, 1)])
        self.b = pruned(kernel_size=3, padding=1)
        self.strided = nn.Conv2d(12, 24, 3, padding=1, stride=2)
        self.strided.weight, self.strided.bias = self.b.weight, self.b.bias
        self.up = nn.ConvTranspose2d(24, 24, 2)
        self.reflect = nn.Conv2d(24, 24, 3, padding=1, padding_mode="reflect")
        self.wide = nn.Conv2d(24, 24, 1, padding=1)
        with torch.no_grad():
            for conv in (self.reflect, self.wide):
                conv.weight[:, 1:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow[0](self.a(x))
        x = self.narrow[1](self.again(x))
        y = self.strided(x) + self.b(x)[:, :, ::2, ::2]
        return self.wide(self.reflect(self.up(y)))


def test_what_is_shared_stays_shared_and_the_rest_is_left() -> None:
    """If this fails, layers that were one train apart, or a layer that cannot be swapped is."""
    model, x = Block(), torch.randn(2, 12, 8, 8)
    expected = model(x)
    found = sparsify(copy.deepcopy(model))
    torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-4)
    assert count(found) == 3 and found.a is found.again
    assert found.b.weight is found.strided.weight and found.b.col is found.strided.col
    assert found.b.bias is found.strided.bias
    assert type(found.narrow[0]) is nn.Conv2d  # dense
    assert [type(m) for m in (found.up, found.reflect, found.wide)] == [
        type(m) for m in (model.up, model.reflect, model.wide)
    ]
    back = densify(copy.deepcopy(found))
    assert count(back) == 0 and back.a is back.again and back.b.weight is back.strided.weight
    assert back.b.bias is back.strided.bias
    torch.testing.assert_close(back(x), expected, rtol=1e-4, atol=1e-4)
    assert len(back.state_dict()) == len(model.state_dict())


def test_below_and_ignore() -> None:
    """If this fails, the options do not choose the layers that they name."""
    make = lambda: nn.Sequential(  # noqa: E731
        pruned(density=0.2, kernel_size=1), nn.Conv2d(24, 12, 1), pruned(density=0.6, kernel_size=1)
    )
    kinds = lambda model: [isinstance(m, SparseConv2d) for m in model]  # noqa: E731
    assert kinds(sparsify(make(), below=0.4)) == [True, False, False]
    assert kinds(sparsify(make(), below=1.0)) == [True, False, True]
    assert kinds(sparsify(make(), below=2.0)) == [True, True, True]
    assert kinds(sparsify(make(), ignore="0", below=1.0)) == [False, False, True]
    model = make()
    assert kinds(sparsify(model, ignore=[model[2]], below=1.0)) == [True, False, False]
    assert kinds(sparsify(make(), ignore=[nn.Conv2d])) == [False] * 3
    with pytest.raises(kp.Error, match="no module '7'"):
        sparsify(make(), ignore=["7"])
    assert isinstance(sparsify(pruned(kernel_size=1)), SparseConv2d)


def test_masks_and_hooks() -> None:
    """If this fails, a mask of torch's own pruning is lost, or a user's hook is."""
    x = torch.randn(1, 12, 6, 6)
    masked = nn.Conv2d(12, 24, 3)
    prune.custom_from_mask(masked, "weight", pruned(kernel_size=3).weight.ne(0).float())
    expected = masked(x)
    found = sparsify(nn.Sequential(masked))
    assert count(found) == 1
    torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-4)

    class Halved(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    conv = pruned(kernel_size=3)
    parametrize.register_parametrization(conv, "weight", Halved())
    expected = conv(x)
    found = sparsify(nn.Sequential(conv))
    assert count(found) == 1
    torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-4)

    conv = pruned(kernel_size=3)
    conv.register_forward_hook(lambda *_: None)
    assert count(sparsify(nn.Sequential(conv))) == 0


def test_a_pattern_that_is_not_of_its_module(tmp_path: Path) -> None:
    """If this fails, an operator called from a module with another 'groups' is exported wrong."""

    class Own(nn.Module):
        groups = 4

        def __init__(self) -> None:
            super().__init__()
            self.layer = SparseConv2d.from_dense(pruned(kernel_size=3, padding=1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.layer
            return torch.ops.kernelprune.conv2d(
                x, inner.weight, inner.row_ptr, inner.col, inner.bias, 12, 1, 1
            )

    model, x = Own(), torch.randn(2, 12, 8, 8)
    kp.export(model, x, tmp_path / "own.safetensors")
    found = kp.Engine(tmp_path / "own.safetensors").run(x)
    torch.testing.assert_close(found, model(x).detach(), rtol=1e-4, atol=1e-4)


def test_names_of_the_package() -> None:
    """If this fails, the public names do not lead to the operators."""
    assert kp.sparsify is sparsify and kp.densify is densify and kp.SparseConv2d is SparseConv2d
