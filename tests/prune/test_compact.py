"""compact keeps the function, makes modules smaller, and leaves alone what is not safe to slice."""

from __future__ import annotations

import copy

import pytest
import torch
from frontends.torch.networks import NETWORKS, Basic, network, randomise, zero_kernels
from torch import nn

from kernelprune import Error, UnsupportedOperator
from kernelprune.frontends.torch.trace import trace
from kernelprune.models.shufflenet import shuffle
from kernelprune.prune.compact import compact


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Compacts, and compares in eval mode; the model itself must not change."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    smaller = compact(model, x)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        expected, found = model.eval()(x.clone()), smaller.eval()(x.clone())
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) <= 1e-10
    return smaller


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    """If this fails, compact breaks networks of this style."""
    model, x = network(name)
    zero_kernels(model, 0.3)
    smaller = check(model, x)
    assert type(smaller) is type(model)
    if name != "functional":
        assert parameters(smaller) < parameters(model)
    again = compact(smaller, x)
    assert parameters(again) == parameters(smaller)


ZOO = [
    ("vgg16", {"width": 0.25, "in_channels": 1}, 32),
    ("resnet20", {}, 32),
    ("resnet18", {}, 64),
    ("resnet50", {}, 64),
]


@pytest.mark.parametrize(("name", "options", "side"), ZOO, ids=[row[0] for row in ZOO])
def test_zoo(name: str, options: dict, side: int) -> None:
    """If this fails, compact breaks a network that users start from."""
    from kernelprune import models

    torch.manual_seed(0)
    model = randomise(models.create(name, num_classes=10, **options))
    zero_kernels(model, 0.1)
    x = torch.randn(2, options.get("in_channels", 3), side, side, dtype=torch.float64)
    assert parameters(check(model, x)) < 0.9 * parameters(model)


def test_modules_say_their_new_size() -> None:
    """If this fails, a compact model cannot be printed, saved and built again."""
    model, x = network("vgg")
    zero_kernels(model, 0.1)
    smaller = check(model, x)
    for module in smaller.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels)
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.shape == (module.num_features,)


def test_it_can_be_trained_further() -> None:
    """If this fails, a compact model cannot be fine-tuned, or frozen parameters thaw."""
    model, x = network("vgg")
    zero_kernels(model, 0.1)
    model.features[0].weight.requires_grad_(False)
    smaller = check(model, x).train()
    smaller(x).sum().backward()
    for name, parameter in smaller.named_parameters():
        assert parameter.requires_grad == (name != "features.0.weight")
        assert (parameter.grad is not None) == parameter.requires_grad


def dead_first(*rest: nn.Module, bias: bool = True) -> nn.Sequential:
    """conv(3 -> 6) with a dead channel 2 that is the constant 0.7, then ``rest``."""
    first = nn.Conv2d(3, 6, 3, padding=1, bias=bias)
    model = nn.Sequential(first, *rest).double().eval()
    with torch.no_grad():
        first.weight[2] = 0
        if bias:
            first.bias[2] = 0.7
    return model


X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_constant_goes_into_the_next_bias() -> None:
    """If this fails, the constant of a dead channel is lost."""
    model = dead_first(nn.ReLU(), nn.Conv2d(6, 4, 3))
    smaller = check(model, X)
    assert smaller[0].out_channels == 5
    expected = model[2].bias + 0.7 * model[2].weight[:, 2].sum((1, 2))
    assert torch.allclose(smaller[2].bias, expected)


def test_constant_goes_into_the_running_mean() -> None:
    """If this fails, the constant is lost where the next layer has a batch norm and no bias."""
    model = dead_first(nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4))
    smaller = check(randomise_bias(model), X)
    assert smaller[0].out_channels == 5 and smaller[2].bias is None
    assert not torch.equal(smaller[3].running_mean, model[3].running_mean)


def test_constant_makes_a_bias() -> None:
    """If this fails, the constant is lost where the next layer has nowhere to put it."""
    smaller = check(dead_first(nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False)), X)
    assert smaller[0].out_channels == 5 and isinstance(smaller[2].bias, nn.Parameter)


def test_constant_behind_padding_stays() -> None:
    """If this fails, the border of the next layer is wrong."""
    smaller = check(dead_first(nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)), X)
    assert smaller[0].out_channels == 6


def test_batch_norm_scale_zero() -> None:
    """If this fails, channels pruned through their batch norm scale stay."""
    norm = nn.BatchNorm2d(6)
    model = dead_first(norm, nn.ReLU(), nn.Conv2d(6, 4, 1), bias=False)
    with torch.no_grad():
        norm.weight[4], norm.bias[4] = 0, 0.3
        norm.bias[2] = 0.2
    smaller = check(model, X)
    assert smaller[0].out_channels == smaller[1].num_features == 4


def randomise_bias(model: nn.Sequential) -> nn.Sequential:
    """randomise, with the dead channel kept dead at 0.7."""
    randomise(model)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0.7
    return model


@pytest.mark.parametrize("affine", [True, False])
def test_depthwise_is_sliced(affine: bool) -> None:
    """If this fails, MobileNet-style blocks stay at full size or break."""
    depthwise = nn.Conv2d(6, 6, 3, padding=0, groups=6, bias=False)
    model = dead_first(nn.ReLU(), depthwise, nn.BatchNorm2d(6, affine=affine), nn.Conv2d(6, 4, 1))
    smaller = check(model, X)
    assert smaller[0].out_channels == smaller[2].groups == smaller[3].num_features == 5


def test_shared_module_is_left_alone() -> None:
    """If this fails, a module that two places use is sliced for one of them."""
    shared = nn.Conv2d(6, 6, 3)
    smaller = check(dead_first(shared, nn.ReLU(), shared, nn.Conv2d(6, 4, 1)), X)
    assert smaller[0].out_channels == 6 and smaller[1].weight.shape == (6, 6, 3, 3)


def test_shared_parameter_is_left_alone() -> None:
    """If this fails, two modules that share one weight come apart."""
    first, second = nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)
    second.weight = first.weight
    smaller = check(dead_first(first, nn.ReLU(), second, nn.Conv2d(6, 4, 1)), X)
    assert smaller[1].weight.shape == smaller[3].weight.shape == (6, 6, 3, 3)


def test_parametrised_module_is_left_alone() -> None:
    """If this fails, a weight that is computed in every forward is overwritten."""
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3))
    smaller = check(dead_first(nn.ReLU(), normed), X)
    assert smaller[0].out_channels == 6


class Sorted(nn.Module):
    """An operator that capture does not know: it may do anything to anything."""

    def forward(self, x):
        return x.sort(2).values


def test_unknown_operator_keeps_its_channels() -> None:
    """If this fails, an operator that capture does not know stops compact, or gets a channel less
    than it was written for."""
    model = dead_first(nn.ReLU(), nn.Conv2d(6, 5, 3), Sorted(), nn.Conv2d(5, 4, 3))
    with torch.no_grad():
        model[4].weight[:, 1] = 0
    assert "opaque" in {node.op for node in trace(model, X, opaque=True).nodes}
    smaller = check(model, X)
    assert [smaller[i].out_channels for i in (0, 2, 4)] == [5, 5, 4]


class Doubled(nn.Module):
    """As many channels as come in, twice, one behind the other."""

    def forward(self, x):
        return torch.cat([x, x.flip(2)], 1)


THROUGH = [
    (nn.SiLU(), 1), (nn.GELU(), 1), (nn.Hardswish(), 1), (nn.Softmax(2), 1), (nn.Dropout(), 1),
    (nn.Upsample(scale_factor=2, mode="bilinear"), 1), (nn.Upsample(scale_factor=2), 1),
    (nn.ZeroPad2d(1), 1), (nn.ReflectionPad2d(1), 1), (nn.AvgPool2d(2), 1), (nn.PixelShuffle(2), 4),
    (nn.PixelUnshuffle(2), 1), (Doubled(), 1),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "together"), THROUGH, ids=lambda case: str(case)[:24])
def test_known_operators_lose_channels(operator: nn.Module, together: int) -> None:
    """If this fails, an operator that makes channel c of channel c keeps channels that nobody
    needs; ``together``: of so many channels one is made, all of which go or stay."""
    probe = torch.zeros(1, 8, 6, 6)
    probe[:, together:] = torch.nan
    unread = operator.eval()(probe).isnan().flatten(2).any(2)[0]  # made of other channels
    model = nn.Sequential(nn.Conv2d(3, 8, 3), operator, nn.Conv2d(len(unread), 4, 1))
    with torch.no_grad():
        model[2].weight[:, unread] = 0
    smaller = check(model.double().eval(), X)
    assert smaller[0].out_channels == together
    assert smaller[2].in_channels == len(unread) * together // 8


class Branches(nn.Module):
    """Cuts channels in two, works on one half, and shuffles both: a unit of ShuffleNet v2. ``cut``
    says how: by a share of the channels, or by numbers that the code holds."""

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.cut = cut
        self.first, self.branch = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)
        with torch.no_grad():
            # Of the outputs 2 i and 2 i + 1 nobody reads those of the odd i, the channels i of both
            # halves.
            odd = torch.arange(16) % 4 >= 2
            self.last.weight[:, odd] = 0
            self.branch.weight[:, ::2] = 0

    def forward(self, x):
        x = self.first(x)
        if self.cut == "chunk":
            one, other = x.chunk(2, 1)
        elif self.cut == "half":
            half = x.shape[1] // 2
            one, other = x[:, :half], x[:, half:]
        else:
            one, other = x[:, :8], x[:, 8:]
        return self.last(shuffle(torch.cat([one, self.branch(other)], 1)))


@pytest.mark.parametrize(("cut", "left"), [("chunk", 8), ("half", 8), ("numbers", 16)])
def test_chunk_and_shuffle(cut: str, left: int) -> None:
    """If this fails, code that cuts channels into halves keeps all of them, or is given halves that
    it does not cut where they end; or a number in the code is taken for a half."""
    smaller = check(Branches(cut).double(), X)
    assert smaller.first.out_channels == smaller.last.in_channels == left
    assert smaller.branch.in_channels == smaller.branch.out_channels == left // 2


def test_halves_stay_equal() -> None:
    """If this fails, a chunk of unequal halves is made where one of them needs more channels."""
    model = Branches("chunk").double()
    with torch.no_grad():
        model.branch.weight[:, 0] = 1.0  # one more input of the branch: its half has 5
    smaller = check(model, X)
    assert smaller.first.out_channels == 10 and smaller.branch.in_channels == 5


def grouped(groups: int, needed: tuple[int, ...]) -> nn.Sequential:
    """conv(3 -> 12), grouped conv(12 -> 12), conv: the middle one reads and writes ``needed``."""
    middle = nn.Conv2d(12, 12, 3, groups=groups)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), middle, nn.Conv2d(12, 4, 1)).double()
    unused = [channel for channel in range(12) if channel not in needed]
    width = 12 // groups
    with torch.no_grad():
        for channel in unused:
            group, place = divmod(channel, width)
            middle.weight[group * width : (group + 1) * width, place] = 0
        model[3].weight[:, unused] = 0
    return model.eval()


@pytest.mark.parametrize(
    ("needed", "left"),
    [((0, 2, 5, 8, 9, 11), 8), ((0, 1, 4, 6), 8), ((1, 3, 6, 9), 4), (tuple(range(12)), 12)],
)
def test_groups_stay_equal(needed: tuple[int, ...], left: int) -> None:
    """If this fails, a grouped convolution loses more channels of one group than of another, takes
    the channels of a group from another one, or keeps more than its largest group needs."""
    smaller = check(grouped(4, needed), X)
    assert smaller[2].groups == 4 and smaller[2].weight.shape[:2] == (left, left // 4)
    assert smaller[0].out_channels == smaller[3].in_channels == left


class Literal(nn.Module):
    """Flattens with a number of features that is fixed in the code, or taken from the value."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.body = dead_first(nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.MaxPool2d(6))
        self.fc = nn.Linear(5, 3)
        with torch.no_grad():
            self.body[2].weight[1] = 0

    def forward(self, x):
        x = self.body(x)
        return self.fc(x.view(-1, 5 if self.fixed else x.size(1)))


@pytest.mark.parametrize(("fixed", "left"), [(True, 5), (False, 4)])
def test_number_of_features_in_the_code(fixed: bool, left: int) -> None:
    """If this fails, code such as view(-1, 512) breaks, or view(n, x.size(1)) is never sliced."""
    smaller = check(Literal(fixed).double(), X)
    assert smaller.body[0].out_channels == 5 and smaller.fc.in_features == left


def test_residual_blocks_keep_their_sum() -> None:
    """If this fails, a block's two branches end with different channels."""
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 1), Basic(8, 8), nn.Conv2d(8, 4, 1)))
    with torch.no_grad():
        model[1].conv2.weight[3] = 0
        model[2].weight[:, 5] = 0
        model[1].conv1.weight[:, 5] = 0
        model[1].conv1.weight[2] = 0
        model[1].conv2.weight[:, 4] = 0
    smaller = check(model, X)
    assert smaller[0].out_channels == smaller[1].conv2.out_channels == 7
    assert smaller[1].conv1.out_channels < 8 and smaller[2].in_channels == 7


def test_training_mode_and_device_type_are_kept() -> None:
    """If this fails, compact changes the type of a model or leaves it in eval mode."""
    model = dead_first(nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False)).float().train()
    smaller = compact(model, X.float())
    assert smaller.training and model.training
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.float32}


class CountsChannels(nn.Module):
    """Computes with the number of channels, which the traced graph cannot show."""

    def __init__(self) -> None:
        super().__init__()
        self.body = dead_first(nn.ReLU())
        self.last = nn.Conv2d(6, 4, 3).double()

    def forward(self, x):
        x = self.body(x)
        return self.last(x) if x.size(1) == 6 else self.last(x).relu()


def test_code_that_depends_on_the_number_of_channels() -> None:
    """If this fails, compact silently returns a model that computes something else."""
    with pytest.raises(Error, match="CountsChannels cannot be made compact"):
        compact(CountsChannels(), X)


def test_untraceable_model() -> None:
    """If this fails, a model that cannot be traced gives a traceback from inside torch."""

    class Branch(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises((Error, UnsupportedOperator)):
        compact(Branch(), X)


def test_deep_copy() -> None:
    """If this fails, training the compact model changes the model it came from."""
    model = dead_first(nn.ReLU(), nn.Conv2d(6, 4, 3))
    before = copy.deepcopy(model.state_dict())
    smaller = compact(model, X)
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_constants_that_cancel() -> None:
    """If this fails, a network is refused because float32 rounds: two dead channels with large
    constants (a batch norm divided by next to nothing) whose sum is small, found in a DenseNet."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 1, bias=False),
    )  # fmt: skip
    model.eval()
    with torch.no_grad():
        model[0].weight[:2].zero_()
        model[1].bias[:2] = 5e5
        model[3].weight[:, 1] = -model[3].weight[:, 0]
    x = torch.randn(2, 3, 8, 8)
    smaller = compact(model, x)
    assert smaller[0].out_channels == 4
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
        found = copy.deepcopy(smaller).double()(x.double())
    assert float((found - expected).norm() / expected.norm()) < 1e-5
