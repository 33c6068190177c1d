"""Small networks of every style that capture must understand, with random BN statistics."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional

from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.ir import Graph

torch.set_num_threads(1)  # for tensors this small more threads only cost


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Float64, eval mode, BN statistics and scales that are neither 0 nor 1, and weights so large
    that the output depends on the image more than on the biases."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0.0, 2.0 / fan_in**0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model


def zero_kernels(model: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """Zeroes random kernels of every convolution but the first, and whole rows and columns too."""
    generator = torch.Generator().manual_seed(seed)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]
    for conv in convs:
        weight = conv.weight.data
        mask = torch.rand(weight.shape[:2], generator=generator) < density
        mask[torch.rand(weight.shape[0], generator=generator) < 0.25] = False
        if weight.shape[1] > 1:  # not depthwise
            mask[:, torch.rand(weight.shape[1], generator=generator) < 0.25] = False
        weight *= mask[:, :, None, None]
    return model


class Vgg(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (8, "M", 12, 12, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(12 * 4, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += identity
        return functional.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, bottleneck: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        if bottleneck:
            self.blocks = nn.Sequential(Bottleneck(8, 6, 12), Bottleneck(12, 6, 12, 2))
        else:
            self.blocks = nn.Sequential(Basic(8, 8), Basic(8, 12, 2))
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1)
        return self.fc(x.view(x.size(0), -1))


class DenseNet(nn.Module):
    """Pre-activation BN, concatenation, transition with average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(10)])
        self.convs = nn.ModuleList([nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(10, 4, 3, padding=1)])
        self.last_norm = nn.BatchNorm2d(14)
        self.transition = nn.Conv2d(14, 7, 1)
        self.fc = nn.Linear(7, 5)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(norm(x).relu())], 1)
        x = functional.avg_pool2d(self.transition(self.last_norm(x).relu()), 2)
        return self.fc(x.mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise and grouped convolutions, ReLU6, asymmetric 'same' padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
            nn.Conv2d(12, 12, 3, 1, 1, groups=3), nn.BatchNorm2d(12), nn.Hardtanh(0, 6),
            nn.Conv2d(12, 8, 2, padding="same", dilation=3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5), nn.Softmax(1),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


class Functional(nn.Module):
    """No modules but one: parameters used directly, one module called twice, aliases mutated."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(8, 3, 3, 3) / 2)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.register_buffer("mask", (torch.rand(8, 3, 1, 1) < 0.7).float())
        self.last = nn.Parameter(torch.randn(5, 8))

    def forward(self, x):
        x = functional.conv2d(x, self.first * self.mask, None, 1, (1, 1))
        kept = x.clone()
        x.relu_()
        x = self.shared(self.shared(x).clamp(min=0)) + kept
        x = functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        x = functional.relu(functional.avg_pool2d(x, 3, 2, 1, True, False))
        return functional.linear(x.mean([-2, -1]), self.last)


NETWORKS = {
    "vgg": (Vgg, (3, 8, 8)),
    "resnet_basic": (lambda: ResNet(False), (3, 20, 24)),
    "resnet_bottleneck": (lambda: ResNet(True), (3, 20, 24)),
    "densenet": (DenseNet, (3, 8, 10)),
    "mobile": (Mobile, (3, 16, 16)),
    "functional": (Functional, (3, 13, 14)),
}


def network(name: str, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A randomised float64 network of NETWORKS and three input images."""
    torch.manual_seed(seed)
    build, shape = NETWORKS[name]
    return randomise(build(), seed), torch.randn(3, *shape, dtype=torch.float64)


@cache
def _traced(name: str) -> Graph:
    return trace(*network(name))


def traced(name: str) -> Graph:
    """The graph of ``network(name)``, which is traced once in a process. Its arrays are shared."""
    return _traced(name).copy()
