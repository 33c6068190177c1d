"""Which layers may be pruned: the rules and the selectors."""

from __future__ import annotations

import pytest
import torch
from prune.networks import two_blocks
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.models.resnet import BasicBlock
from kernelprune.ops import sparsify
from kernelprune.prune.layers import find_layers
from kernelprune.prune.strength import expand


@pytest.fixture(scope="module")
def net():
    model = two_blocks()
    return model, trace(model, torch.randn(1, 3, 8, 8))


def prunable(model, graph, **options) -> set[str]:
    layers = find_layers(model, graph, **options)
    return {layer.name.removeprefix("layer") for layer in layers if layer.prunable}


ALL = {"1.0.conv1", "1.0.conv2", "2.0.conv1", "2.0.conv2", "2.0.downsample.0"}


def test_first_convolution_and_classifier_are_left_out(net):
    """The layers that hurt most are pruned by default, with or without an example input."""
    assert prunable(*net) == ALL
    assert prunable(net[0], None) == ALL


def test_selectors(net):
    """ignore= by name, pattern, type or module selects other layers than it says."""
    model, graph = net
    first = model.get_submodule("layer1.0.conv2")
    assert prunable(model, graph, ignore="layer1.0.conv2") == ALL - {"1.0.conv2"}
    assert prunable(model, graph, ignore=[first]) == ALL - {"1.0.conv2"}
    assert prunable(model, graph, ignore="layer2") == {"1.0.conv1", "1.0.conv2"}
    assert prunable(model, graph, ignore=["*.conv2"]) == ALL - {"1.0.conv2", "2.0.conv2"}
    assert prunable(model, graph, ignore=["*downsample*"]) == ALL - {"2.0.downsample.0"}
    assert prunable(model, graph, ignore=nn.Linear) == ALL
    assert prunable(model, graph, include="conv1") == ALL | {"conv1"}
    assert prunable(model, graph, include="conv1", ignore="layer2*") == {
        "1.0.conv1", "1.0.conv2", "conv1",
    }  # fmt: skip
    with pytest.raises(Error, match="no module 'layer3'"):
        find_layers(model, graph, ignore="layer3")
    with pytest.raises(Error, match="no module this Conv2d"):
        find_layers(model, graph, ignore=nn.Conv2d(1, 1, 1))
    with pytest.raises(Error, match="no convolution to prune"):
        find_layers(model, graph, ignore=BasicBlock)
    sparse = sparsify(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), below=2)
    with pytest.raises(Error, match="they are SparseConv2d: kernelprune.densify.model. first"):
        find_layers(sparse)


class FullyConvolutional(nn.Module):
    """The last convolution is the classifier; one module is called twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.unused = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = nn.functional.relu(self.stem(x))
        x = self.twice(nn.functional.max_pool2d(self.twice(x), 2))
        return self.head(x).mean((2, 3))


def test_convolutional_classifier_and_repeated_module():
    """A 1x1 classifier is pruned, a module called twice is counted once."""
    model = FullyConvolutional()
    layers = find_layers(model, trace(model, torch.randn(1, 3, 8, 8)))
    assert [(layer.name, layer.prunable) for layer in layers] == [
        ("stem", False), ("twice", True), ("head", False),
    ]  # fmt: skip
    assert [layer.cost for layer in layers] == [9 * 64, 9 * 64 + 9 * 16, 16]


def test_tied_weights_are_left_alone():
    """Pruning a convolution changes another one that shares its weight."""
    model = two_blocks()
    first, second = model.get_submodule("layer1.0.conv1"), model.get_submodule("layer1.0.conv2")
    second.weight = first.weight
    graph = trace(model, torch.randn(1, 3, 8, 8))
    for known in (graph, None):
        assert prunable(model, known) == ALL - {"1.0.conv1", "1.0.conv2"}


def test_expand_follows_the_groups():
    """A number per input channel reaches the wrong connections of a grouped convolution."""
    channels = torch.arange(6.0)
    assert torch.equal(expand(channels, 1, 2), channels.expand(2, 6))
    assert expand(channels, 2, 4).tolist() == [[0, 1, 2]] * 2 + [[3, 4, 5]] * 2
    assert expand(channels, 6, 6).tolist() == [[0], [1], [2], [3], [4], [5]]
