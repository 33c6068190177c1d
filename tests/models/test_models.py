"""The model zoo: every registered model is built, run, trained a step and saved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kernelprune import models
from kernelprune.errors import Error

# Parameters as published, at the classes and form of the publication.
PARAMETERS = [
    ("vgg16", 10, {}, 14.7e6),
    ("vgg19", 10, {}, 20.04e6),
    ("resnet18", 1000, {}, 11.7e6),
    ("resnet50", 1000, {}, 25.6e6),
    ("resnet20", 10, {}, 0.27e6),
    ("resnet56", 10, {}, 0.85e6),
    ("resnet110", 10, {}, 1.73e6),
    ("densenet40", 10, {}, 1.02e6),
    ("mobilenet_v1", 1000, {}, 4.23e6),
    ("mobilenet_v2", 1000, {}, 3.50e6),
    ("inception", 1000, {}, 7.00e6),
]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", models.names())
def test_model_runs_trains_and_saves(name):
    """A zoo model that cannot be trained, or whose state dict does not carry all of it."""
    model = models.create(name, num_classes=7, in_channels=2, width=0.25, seed=1)
    x = torch.randn(3, 2, 32, 32)
    y = model(x)
    assert y.shape == (3, 7)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    twin = models.create(name, num_classes=7, in_channels=2, width=0.25, seed=2)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("name, classes, options, published", PARAMETERS)
def test_parameter_count_is_the_published_one(name, classes, options, published):
    """A zoo model that is not the architecture whose name it has."""
    with torch.device("meta"):
        model = models.create(name, num_classes=classes, **options)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(published, rel=0.012)


@pytest.mark.parametrize("size", [28, 32, 40])
@pytest.mark.parametrize("name", ["vgg16", "vgg_small", "resnet20", "densenet40"])
def test_small_images_of_any_size(name, size):
    """28x28 images losing their last pixel to the fifth pool, or a tail tied to one size."""
    model = models.create(name, in_channels=1, width=0.125, seed=0).eval()
    assert model(torch.randn(2, 1, size, size)).shape == (2, 10)


def test_vgg16_has_the_cifar_form():
    """Thirteen 3x3 convolutions, five pools and one linear layer."""
    model = models.create("vgg16", width=0.0625)
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(nn.Conv2d) == 13
    assert kinds.count(nn.MaxPool2d) == 5
    assert kinds.count(nn.Linear) == 1
    maps = []
    for module in model.modules():
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(lambda _m, _x, y: maps.append(y.shape[-1]))
    model(torch.randn(2, 3, 28, 28))
    assert maps == [14, 7, 4, 2, 1]


# A module that sees the whole map of a small image, and the map's side at its output.
STEMS = [
    ("resnet18", "layer1", 32),
    ("mobilenet_v1", "features.4", 32),
    ("mobilenet_v2", "features.5", 32),
    ("inception", "features.0", 32),
]


@pytest.mark.parametrize("name, module, side", STEMS)
def test_cifar_stem_keeps_the_map(name, module, side):
    """At 32x32 the ImageNet stem would leave a map of 8x8 or so to start with."""
    model = models.create(name, stem="cifar", width=0.125).eval()
    seen = []
    model.get_submodule(module).register_forward_hook(lambda _m, _x, y: seen.append(y.shape[-1]))
    model(torch.randn(1, 3, 32, 32))
    assert seen == [side]
    with pytest.raises(Error, match="stem='tiny'"):
        models.create(name, stem="tiny")


def test_start_values_depend_on_the_seed_alone():
    """Runs that cannot be repeated, or a seed that disturbs the caller's random numbers."""
    torch.manual_seed(5)
    first = models.create("resnet20", seed=3)
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(()))
    second = models.create("resnet20", seed=3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    other = models.create("resnet20", seed=4)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    torch.manual_seed(9)
    third = models.create("resnet20")
    torch.manual_seed(9)
    assert torch.equal(third.conv1.weight, models.create("resnet20").conv1.weight)


def test_wrong_names_and_options_are_one_clear_error():
    """A typing error in a model's name or option ends in a traceback of torch."""
    with pytest.raises(Error, match="unknown model 'resnet19'; there are: .*resnet18"):
        models.create("resnet19")
    with pytest.raises(Error, match="unexpected keyword argument 'depth'"):
        models.create("vgg16", depth=3)
    with pytest.raises(Error, match="width=0"):
        models.create("vgg16", width=0)
    with pytest.raises(Error, match="is taken"):
        models.register("vgg16")(models.vgg.vgg16)
