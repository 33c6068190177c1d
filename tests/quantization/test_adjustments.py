"""Bias correction, learned rounding and equalisation: each makes the error smaller, and changes
nothing that it must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models.small_zoo import BUILDERS
from prune.networks import lived_in
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune.frontends.torch import capture
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph
from kernelprune.quantization.equalization import equalized, find_pairs
from kernelprune.quantization.layerwise import adjusted
from kernelprune.quantization.rounding import descend

QUIET = lambda doing, share: None  # noqa: E731


def decibels(graph: Graph, images: torch.Tensor, **options) -> float:
    """Of the output for images that were not measured."""
    quantised = kp.quantize(graph, images[:128], **options)
    want, have = GraphModel(graph)(images[128:]), quantised(images[128:])
    return float(10 * torch.log10(want.square().sum() / (have - want).square().sum()))


@pytest.fixture(scope="module")
def graph(trained) -> Graph:
    return capture(trained.model, trained.images[:1])


@pytest.mark.parametrize("per_channel", [True, False])
def test_each_option_helps(graph: Graph, trained, per_channel: bool) -> None:
    """If this fails, an option costs time for nothing, or makes a network worse."""
    images = trained.images[:512]
    plain = decibels(graph, images, bias_correction=False, per_channel=per_channel)
    corrected = decibels(graph, images, per_channel=per_channel)
    learned = decibels(graph, images, rounding="learned", per_channel=per_channel)
    assert corrected > plain + 0.5 and learned > corrected


def test_bias_correction_keeps_the_means(graph: Graph, trained) -> None:
    """If this fails, a channel's mean is off after the correction that is for it."""
    images = trained.images[:64]
    quantised = kp.quantize(graph, images)
    names = {node.output: node.name for node in graph.nodes if node.has_weight()}
    means = []
    for model in (GraphModel(graph), quantised):
        own = {}

        def see(name: str, value: torch.Tensor, model=model, own=own) -> None:
            if name in names:
                numbers = model.numbers(name, value)
                own[name] = numbers.transpose(0, 1).flatten(1).mean(1)

        model.run((images,), see)
        means.append(own)
    head = graph.outputs[0]
    step = quantised.graph.node(names[head]).weight_scale.max() * 0.1
    assert (means[0][head] - means[1][head]).abs().max() < step


def test_layers_are_adjusted_with_what_they_get(graph: Graph, trained) -> None:
    """If this fails, a layer is fitted to inputs that it never gets."""
    images = trained.images[:40]
    quantised = kp.quantize(graph, images, bias_correction=False)
    inputs: dict[str, torch.Tensor] = {}
    quantised.run((images,), inputs.__setitem__)
    numbers: dict[str, torch.Tensor] = {}
    GraphModel(graph).run((images,), numbers.__setitem__)
    seen = []

    def adjust(layer) -> None:
        seen.append(layer.rounded.output)
        name = layer.rounded.inputs[0]
        assert torch.equal(torch.cat([given for _, given in layer.pairs]), inputs[name])
        torch.testing.assert_close(torch.cat([x for x, _ in layer.pairs]), numbers[name])

    batches = [(images[:32],), (images[32:],)]
    same = adjusted(graph, quantised.graph, batches, adjust, QUIET)
    assert seen == [node.output for node in graph.nodes if node.has_weight()]
    assert torch.equal(GraphModel(same)(images), quantised(images))


def test_descend_finds_the_best_of_few() -> None:
    """If this fails, learned rounding ends above the error of a rounding that it could reach."""
    rng = np.random.default_rng(0)
    size = 6
    x = rng.normal(0, 1, (1, 40)) + 0.5 * rng.normal(0, 1, (size, 40))  # neighbours are alike
    moments = torch.from_numpy(x @ x.T)[None]
    real = torch.from_numpy(rng.uniform(-20, 20, (1, 3, size)))
    real[0, 0, :2] = torch.tensor([0.0, 5.0])  # a dropped connection, and a whole number
    found = descend(real, real.round(), moments, moments)

    def error(whole: torch.Tensor) -> torch.Tensor:
        off = whole - real
        return (off @ moments * off).sum(2)[0]

    assert ((found - real).abs() < 1).all()
    assert found[0, 0, :2].tolist() == [0.0, 5.0]
    assert (error(found) < error(real.round())).any()
    for weight in range(size):  # no single weight can do better
        for step in (real.floor() + real.ceil() - 2 * found)[0, :, weight].unique():
            other = found.clone()
            change = (real.floor() + real.ceil() - 2 * found)[0, :, weight] == step
            other[0, change, weight] += step
            assert (error(other) >= error(found) - 1e-9).all()


def test_learned_rounding_of_pruned_and_depthwise(trained) -> None:
    """If this fails, a dropped connection comes back, or groups are fitted to other inputs."""

    class Depthwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(1, 8, 3, padding=1)
            self.b = nn.Conv2d(8, 16, 3, padding=1, groups=8)
            self.c = nn.Conv2d(16, 8, 3, stride=2, padding=(0, 1), groups=2)
            self.d = nn.Linear(8 * 3 * 4, 4)

        def forward(self, x):
            x = functional.relu(self.b(functional.relu(self.a(x))))
            return self.d(functional.relu(self.c(x)).flatten(1))

    model = Depthwise().eval()
    with torch.no_grad():
        model.c.weight[::2, 3] = 0
    graph = capture(model, trained.images[:1])
    plain = kp.quantize(graph, trained.images[:128]).graph
    learned = kp.quantize(graph, trained.images[:128], rounding="learned").graph
    for node in graph.nodes:
        if node.has_weight():
            a, b = plain.node(node.name).weight, learned.node(node.name).weight
            assert not b[node.weight == 0].any()
            assert np.abs(a.astype(int) - b).max() == 1
    images = trained.images[:512]
    assert decibels(graph, images, rounding="learned") > decibels(graph, images)


# ---------------------------------------------------------------- equalisation


def uneven(name: str) -> nn.Module:
    """A network of the zoo whose channels differ by orders of magnitude."""
    model = lived_in(BUILDERS[name]()).float().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                factors = torch.exp(torch.randn(module.num_features))
                module.weight.mul_(factors)
                module.bias.mul_(factors)
    return model


@pytest.mark.parametrize("name", ["vgg", "bottleneck", "mobilenet_v1", "densenet", "inception"])
def test_equalized_network_is_the_same(name: str) -> None:
    """If this fails, equalisation changes what a network computes."""
    torch.manual_seed(0)
    model = uneven(name).double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    graph = capture(model, x[:1])
    assert find_pairs(graph)
    found = equalized(graph, [(x,)], QUIET)
    pairs = [each for each in zip(graph.nodes, found.nodes, strict=True) if each[0].has_weight()]
    assert any((a.weight != b.weight).any() for a, b in pairs)
    a, b = (kp.frontends.torch.to_torch(each, torch.float64)(x) for each in (graph, found))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_equalisation_helps() -> None:
    """If this fails, narrow channels beside wide ones lose their precision in spite of it."""
    torch.manual_seed(0)
    graph = capture(uneven("vgg"), torch.randn(1, 3, 32, 32))
    x = torch.randn(160, 3, 32, 32)
    assert decibels(graph, x, equalize=True) > decibels(graph, x) + 0.5


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between: nn.Module):
        super().__init__()
        self.a, self.between, self.b = nn.Conv2d(3, 4, 3), between, nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.b(self.between(self.a(x)))


class Twice(nn.Module):
    def forward(self, x):
        return x + functional.max_pool2d(x, 3, 1, 1)


THROUGH = {
    "relu": (nn.ReLU(), True),
    "leaky relu": (nn.LeakyReLU(0.1), True),
    "max pool": (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), True),
    "average pool": (nn.AvgPool2d(2, padding=1), True),
    "relu6": (nn.ReLU6(), False),
    "silu": (nn.SiLU(), False),
    "group norm": (nn.GroupNorm(2, 4), False),
    "two readers": (Twice(), False),
}


@pytest.mark.parametrize("name", THROUGH)
def test_pairs(name: str) -> None:
    """If this fails, a pair is missed, or channels are scaled past something that minds."""
    between, is_pair = THROUGH[name]
    graph = capture(Between(between).eval(), torch.randn(1, 3, 12, 12))
    assert [pair.writer.name for pair in find_pairs(graph)] == (["a"] if is_pair else [])


def test_flatten_between() -> None:
    """If this fails, the columns of a linear layer are scaled by another channel's factor."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 5)).eval()
    graph = capture(model, torch.randn(1, 3, 4, 4))
    ((_, channels),) = find_pairs(graph)[0].readers
    assert channels.tolist() == np.repeat(np.arange(4), 4).tolist()
