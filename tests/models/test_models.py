"""The model zoo: every registered model is built, run, trained a step and saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from models.small_zoo import numbers
from torch import nn

from kernelprune import models
from kernelprune.errors import Error
from kernelprune.models.layers import SqueezeExcitation

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

# Parameters as published to the last one: by torchvision 0.28; unet by segmentation_models_pytorch;
# yolov8n by its authors, whose 3,157,200 count the 16 fixed bins of the boxes too.
EXACT_PARAMETERS = [
    ("mobilenet_v3_large", 1000, {}, 5_483_032),
    ("mobilenet_v3_small", 1000, {}, 2_542_856),
    ("efficientnet_b0", 1000, {}, 5_288_548),
    ("efficientnetv2_s", 1000, {}, 21_458_488),
    ("shufflenet_v2", 1000, {}, 2_278_604),
    ("regnet_y_400mf", 1000, {}, 4_344_144),
    ("squeezenet1_1", 1000, {}, 1_235_496),
    ("convnext_tiny", 1000, {}, 28_589_128),
    ("unet", 1, {}, 24_436_369),
    ("unet", 1, {"encoder": "resnet18"}, 14_328_209),
    ("yolov8n", 80, {}, 3_157_200 - models.yolo.BINS),
]

# Millions of multiply-adds as published, at the side of the image: by torchvision, and for yolov8n
# by its authors (8.7 thousand million operations).
MULTIPLY_ADDS = [
    ("mobilenet_v3_large", 1000, 224, 217),
    ("mobilenet_v3_small", 1000, 224, 57),
    ("efficientnet_b0", 1000, 224, 386),
    ("efficientnetv2_s", 1000, 384, 8366),
    ("shufflenet_v2", 1000, 224, 145),
    ("regnet_y_400mf", 1000, 224, 402),
    ("squeezenet1_1", 1000, 224, 349),
    ("convnext_tiny", 1000, 224, 4456),
    ("yolov8n", 80, 640, 4350),
]


def shapes(output: Any) -> Any:
    """The shape of an output, or of each of a dictionary of outputs."""
    if isinstance(output, Mapping):
        return {name: shapes(value) for name, value in output.items()}
    return tuple(output.shape)


def expected_shapes(name: str, count: int, classes: int, side: int) -> Any:
    kind = models.kind_of(name)
    if kind == "classifier":
        return (count, classes)
    if kind == "segmentation":
        return (count, classes, side, side)
    cells = {stride: (math.ceil(side / stride),) * 2 for stride in (8, 16, 32)}
    return {
        f"{what}{stride}": (count, channels, *size)
        for stride, size in cells.items()
        for what, channels in (("boxes", 64), ("classes", classes))
    }


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
    assert shapes(y) == expected_shapes(name, 3, 7, 32)
    numbers(y).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    twin = models.create(name, num_classes=7, in_channels=2, width=0.25, seed=2)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(numbers(model.eval()(x)), numbers(twin.eval()(x)))


@pytest.mark.parametrize("name, classes, options, published", PARAMETERS)
def test_parameter_count_is_the_published_one(name, classes, options, published):
    """A zoo model that is not the architecture whose name it has."""
    with torch.device("meta"):
        model = models.create(name, num_classes=classes, **options)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(published, rel=0.012)


@pytest.mark.parametrize("name, classes, options, published", EXACT_PARAMETERS)
def test_parameter_count_is_exactly_the_published_one(name, classes, options, published):
    """A layer or a bias more or less than the architecture has."""
    with torch.device("meta"):
        model = models.create(name, num_classes=classes, **options)
    assert sum(p.numel() for p in model.parameters()) == published


@pytest.mark.parametrize("name, classes, side, published", MULTIPLY_ADDS)
def test_multiply_adds_are_the_published_ones(name, classes, side, published):
    """A stride or a pool in the wrong place, which parameters do not show."""
    found = []
    with torch.device("meta"):
        model = models.create(name, num_classes=classes).eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(
                    lambda layer, _x, y: found.append(y.numel() * layer.weight[0].numel())
                )
        model(torch.empty(1, 3, side, side))
    assert sum(found) == pytest.approx(1e6 * published, rel=0.01)


@pytest.mark.parametrize("size", [28, 32, 40])
@pytest.mark.parametrize("name", ["vgg16", "vgg_small", "resnet20", "densenet40"])
def test_small_images_of_any_size(name, size):
    """28x28 images losing their last pixel to the fifth pool, or a tail tied to one size."""
    model = models.create(name, in_channels=1, width=0.125, seed=0).eval()
    assert model(torch.randn(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("name", ["unet", "yolov8n", "shufflenet_v2", "squeezenet1_1"])
@pytest.mark.parametrize("side", [28, 45])
def test_maps_of_odd_sizes_meet(name, side):
    """Maps of the two ways through the network differ by a row at sizes that do not halve."""
    model = models.create(name, width=0.125, seed=0).eval()
    assert shapes(model(torch.randn(2, 3, side, side))) == expected_shapes(name, 2, 10, side)


# Modules that no parameter shows: model, kind, how many.
KINDS_OF_MODULES = [
    ("mobilenet_v3_large", nn.Hardsigmoid, 8),
    ("mobilenet_v3_large", nn.Hardswish, 21),
    ("mobilenet_v3_large", nn.ReLU, 19),
    ("mobilenet_v3_small", nn.Hardsigmoid, 9),
    ("efficientnet_b0", nn.Sigmoid, 16),
    ("efficientnet_b0", nn.SiLU, 49),
    ("efficientnetv2_s", nn.Sigmoid, 30),
    ("regnet_y_400mf", nn.Sigmoid, 16),
    ("convnext_tiny", nn.GELU, 18),
    ("yolov8n", nn.SiLU, 57),
]


@pytest.mark.parametrize("name, kind, count", KINDS_OF_MODULES, ids=str)
def test_activations(name, kind, count):
    """Another activation function than the paper says, which neither parameters nor sizes show."""
    with torch.device("meta"):
        found = models.create(name).modules()
    assert sum(type(module) is kind for module in found) == count


def test_shuffle_takes_both_halves_in_turn():
    """Channels of a ShuffleNet that never meet those of the other half."""
    x = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 2, 3)
    found = models.shufflenet.shuffle(x)
    assert found[1, :, 1, 2].tolist() == [0, 3, 1, 4, 2, 5]


def test_squeeze_and_excitation_is_the_formula():
    """A gate that is not of the channel's mean, or is added instead of multiplied."""
    module = SqueezeExcitation(4, 2, activation=nn.SiLU).double()
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    means = x.mean((2, 3))
    hidden = nn.functional.silu(means @ module.reduce.weight[:, :, 0, 0].T + module.reduce.bias)
    gates = (hidden @ module.expand.weight[:, :, 0, 0].T + module.expand.bias).sigmoid()
    assert torch.allclose(module(x), x * gates[:, :, None, None], rtol=1e-12)


def test_channels_of_squeezes_are_multiples_of_eight():
    """A MobileNet whose squeezed channels are not those of the published one."""
    squeezed = {72: 24, 120: 32, 16: 8, 96: 24, 240: 64, 144: 40, 960: 240, 672: 168}
    assert {n: models.layers.divisible(n / 4) for n in squeezed} == squeezed


def test_boxes_of_the_detector():
    """Boxes in the wrong cell or of the wrong size, or sides mixed up."""
    maps = {f"boxes{s}": torch.zeros(1, 64, 64 // s, 96 // s) for s in (8, 16, 32)}
    maps |= {f"classes{s}": torch.zeros(1, 3, 64 // s, 96 // s) for s in (8, 16, 32)}
    for side, distance in enumerate((1, 2, 3, 15)):  # left, top, right, bottom
        maps["boxes16"][0, 16 * side + distance, 2, 1] = 100
    maps["classes16"][0, 2, 2, 1] = 100
    boxes, scores = models.yolo.Yolo.decode(maps)
    assert boxes.shape == (1, 96 + 24 + 6, 4) and scores.shape == (1, 96 + 24 + 6, 3)
    cell = 96 + 2 * 6 + 1
    assert boxes[0, cell].tolist() == [24 - 16, 40 - 32, 24 + 48, 40 + 240]
    assert scores[0, cell].tolist() == [0.5, 0.5, 1]
    even = 7.5 * 8  # of a distribution that says nothing
    assert boxes[0, 1].tolist() == [12 - even, 4 - even, 12 + even, 4 + even]


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
    ("mobilenet_v3_large", "features.4", 32),
    ("mobilenet_v3_small", "features.3", 32),
    ("efficientnet_b0", "features.4", 32),
    ("efficientnetv2_s", "features.5", 32),
    ("shufflenet_v2", "features.2", 32),
    ("regnet_y_400mf", "features.3", 32),
    ("squeezenet1_1", "features.2", 32),
    ("convnext_tiny", "features.2", 32),
    ("unet", "encoder.layer1", 32),
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
    with pytest.raises(Error, match="must be one of classifier, .*, not 'regression'"):
        models.register("vgg17", kind="regression")
    with pytest.raises(Error, match="encoder='vgg16': must be one of resnet18, resnet34"):
        models.create("unet", encoder="vgg16")
    with pytest.raises(Error, match="upsampling='cubic': must be"):
        models.create("unet", upsampling="cubic")


def test_kinds():
    """Training takes a model whose output is no class, or refuses one whose output is."""
    assert models.names("segmentation") == ["unet"]
    assert models.names("detection") == ["yolov8n"]
    assert sorted([*models.names("classifier"), "unet", "yolov8n"]) == models.names()
    models.require_classifier("vgg16", "training")
    message = "'unet' is for segmentation, and training takes classifiers: .*vgg16"
    with pytest.raises(Error, match=message):
        models.require_classifier("unet", "training")
    with pytest.raises(Error, match="unknown model 'vgg17'"):
        models.kind_of("vgg17")


def test_unet_upsamples_as_asked():
    """The option is taken and does nothing."""
    one, other = (
        models.create("unet", upsampling=mode, encoder="resnet18", width=0.125, seed=0).eval()
        for mode in ("nearest", "bilinear")
    )
    x = torch.randn(1, 3, 32, 32)
    assert one(x).shape == other(x).shape == (1, 10, 32, 32)
    assert not torch.allclose(one(x), other(x))
