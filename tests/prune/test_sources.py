"""Where a strength's scale comes from: the batch norm before, through all that reads its map, or
the measured map."""

from __future__ import annotations

import pytest
import torch
from prune.networks import lived_in, relative
from torch import nn

from kernelprune.prune import SynapticStrength

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Branches(nn.Module):
    """One map, read in several ways; ``tail`` says by whom besides two convolutions."""

    def __init__(self, tail: str):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.a = nn.Conv2d(4, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 1)
        self.wide = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.side = nn.Linear(4 * 8 * 8, 4)
        self.fc = nn.Linear(4, 5)
        self.tail = tail

    def forward(self, x):
        clamp = nn.functional.relu6 if self.tail == "relu6" else nn.functional.relu
        x = clamp(self.bn(self.stem(x)))
        y = self.a(x) + self.b(x)
        if self.tail == "conv":
            y = y + self.wide(x)
        if self.tail == "add":
            y = y + x
        if self.tail == "twice":
            y = y + self.a(y)
        y = self.last(nn.functional.relu(y)).mean((2, 3))
        if self.tail == "sigmoid":
            y = y * torch.sigmoid(x.mean((2, 3)))
        if self.tail == "linear":
            y = y + self.side(x.flatten(1))
        return (self.fc(y), x) if self.tail == "output" else self.fc(y)


# Who else reads the map; may the batch norm be rescaled all the same?
TAILS = [
    ("nothing", True),
    ("conv", True),  # an ignored grouped convolution: compensated
    ("linear", True),  # compensated column by column
    ("add", False),
    ("relu6", False),
    ("output", False),
    ("sigmoid", False),
    ("twice", False),  # one convolution on two maps has two scales per channel
]


@pytest.mark.parametrize("tail, rescaled", TAILS)
def test_maps_with_several_readers(tail, rescaled):
    """A batch norm is rescaled although one of its readers cannot make up for it."""
    torch.manual_seed(2)
    model = lived_in(Branches(tail))

    def result() -> torch.Tensor:
        y = model(X)
        return torch.cat([part.flatten(1) for part in y], 1) if isinstance(y, tuple) else y

    before, gamma = result(), model.bn.weight.clone()
    pruner = SynapticStrength(model, X, ignore="wide" if tail == "conv" else ())
    assert relative(result(), before) < 1e-10
    assert torch.equal(model.bn.weight, gamma.sign() if rescaled else gamma)
    assert set(pruner.strengths()) == {"a", "b", "last"}
    pruner.finalize()
    assert relative(result(), before) < 1e-10


class PreActivation(nn.Module):
    """A pre-activation block (He et al. 2016): both batch norms stand before their convolution, the
    first reads the sum of the block before."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        x = x + self.conv3(self.bn3(x).relu())
        return self.fc(x.mean((2, 3)))


def test_pre_activation():
    """A sum in front of a batch norm keeps its gamma from moving, or the sum itself is scaled."""
    torch.manual_seed(2)
    model = lived_in(PreActivation())
    before = model(X)
    expected = {
        f"conv{i}": model.get_submodule(f"bn{i}").weight.abs()
        * model.get_submodule(f"conv{i}").weight.square().sum((2, 3)).sqrt()
        for i in (1, 2, 3)
    }
    pruner = SynapticStrength(model, X)
    assert relative(model(X), before) < 1e-10
    found = pruner.strengths()
    assert found.keys() == expected.keys()
    for name, strength in expected.items():
        assert torch.allclose(found[name], strength, rtol=1e-12), name
    pruner.prune(density=0.5)
    pruned = model(X)
    pruner.finalize()
    assert relative(model(X), pruned) < 1e-10


class Concatenated(nn.Module):
    """One convolution reads, side by side: a batch norm's map pooled, the same map again, one of
    another batch norm, and a map without any; a linear layer reads part of that, flattened."""

    def __init__(self):
        super().__init__()
        self.a, self.bn_a = nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.b, self.bn_b = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.c = nn.Conv2d(3, 2, 3, padding=1)
        self.read = nn.Conv2d(9, 4, 3, padding=1)
        self.fc, self.side = nn.Linear(4, 5), nn.Linear(5 * 4 * 4, 5)

    def forward(self, x):
        a = nn.functional.avg_pool2d(self.bn_a(self.a(x)).relu(), 2)
        b = nn.functional.max_pool2d(self.bn_b(self.b(x)).relu(), 2)
        c = nn.functional.max_pool2d(self.c(x), 2)
        y = self.read(torch.cat([torch.cat([a, b], 1), a, c], 1)).relu()
        return self.fc(y.mean((2, 3))) + self.side(torch.cat([a, b], 1).flatten(1))


def test_scales_behind_a_concatenation():
    """A gamma moves into the wrong channels of a concatenation, or those without one get none."""
    torch.manual_seed(2)
    model = lived_in(Concatenated())
    before = model(X)
    gammas = torch.cat([model.bn_a.weight, model.bn_b.weight, model.bn_a.weight]).abs()
    norms = model.read.weight.square().sum((2, 3)).sqrt()
    kept = nn.functional.max_pool2d(model.c(X), 2).square().mean((0, 2, 3)).sqrt()
    pruner = SynapticStrength(model, X)
    assert relative(model(X), before) < 1e-10
    assert set(pruner.strengths()) == {"read"}
    expected = norms * torch.cat([gammas, kept])
    assert torch.allclose(pruner.strengths()["read"], expected, rtol=1e-9)
    part = model.read.parametrizations.weight[0]
    assert part.measured.tolist() == [False] * 7 + [True] * 2
    pruner.measure([3 * X])
    assert torch.allclose(part.scale[:7], torch.ones(7, dtype=torch.float64))
    pruner.finalize()
    assert relative(model(X), before) < 1e-10


def test_measured_scale_is_the_root_mean_square_of_the_map():
    """Where no batch norm can be used, strengths are not sigma_i * ||K_ij||."""
    torch.manual_seed(2)
    model = lived_in(Branches("add"))
    data = torch.randn(12, 3, 8, 8, dtype=torch.float64)
    maps = nn.functional.relu(model.bn(model.stem(data)))
    sigma = maps.square().mean((0, 2, 3)).sqrt()
    norms = model.a.weight.square().sum((2, 3)).sqrt()
    pruner = SynapticStrength(model, X)
    pruner.measure([(data[:4], None), (data[4:8], None), (data[8:], None), (X, None)], batches=3)
    assert torch.allclose(pruner.strengths()["a"], sigma * norms, rtol=1e-9)
    # Training replaces the first estimate by what the batches show (in batch statistics).
    pruner = SynapticStrength(lived_in(Branches("add")), X)
    pruner.model.train()
    seen = []
    pruner.model.a.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for part in data.split(4):
        pruner.model(part)
    expected = torch.cat(seen).square().mean((0, 2, 3)).sqrt()
    scale = pruner.model.a.parametrizations.weight[0].scale
    assert torch.allclose(scale, expected, rtol=1e-9)
    pruner.model.eval()(X)
    assert torch.allclose(scale, expected, rtol=1e-9)  # evaluation measures nothing
