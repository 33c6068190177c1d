"""Small networks and helpers for the tests of pruning."""

from __future__ import annotations

import torch
from torch import nn

from kernelprune import models


def lived_in(model: nn.Module) -> nn.Module:
    """As if trained: batch norms with gammas of both signs, shifts and statistics, in float64."""
    generator = torch.Generator().manual_seed(7)

    def draw(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                draw(module.weight, -1.0, 1.5)
                draw(module.bias, -0.5, 0.5)
                draw(module.running_mean, -0.5, 0.5)
                draw(module.running_var, 0.5, 2.0)
    return model.double().eval()


def zoo(name: str, **options) -> nn.Module:
    return lived_in(models.create(name, seed=0, **options))


def two_blocks() -> nn.Module:
    """The smallest ResNet with an identity and a projection shortcut."""
    options = {"num_classes": 10, "in_channels": 3, "stem": "cifar"}
    return models.resnet.ResNet(models.resnet.BasicBlock, (1, 1), (4, 6), **options)


class Chain(nn.Module):
    """conv - bn - ReLU - max pool - conv - bn - ReLU - avg pool - conv - bn - ReLU - linear."""

    def __init__(self, channels: int = 6, groups: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 8, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8 * 2 * 2, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.relu(self.bn1(self.conv1(x))), 2)
        x = nn.functional.avg_pool2d(self.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(self.relu(self.bn3(self.conv3(x))).flatten(1))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def train(model, parameters, x, labels, steps, *, penalty=None, lr=0.05):
    """``steps`` of SGD with momentum and weight decay; returns the optimiser."""
    optimiser = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-3)
    run(model, optimiser, x, labels, steps, penalty=penalty)
    return optimiser


def run(model, optimiser, x, labels, steps, *, penalty=None):
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        if penalty is not None:
            loss = loss + penalty()
        loss.backward()
        optimiser.step()
    model.eval()
