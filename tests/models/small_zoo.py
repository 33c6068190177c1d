"""Every style of network in the zoo with as few blocks as show the style: tracing takes seconds
for the full ones."""

from __future__ import annotations

import torch
from torch import nn

from kernelprune.models.densenet import DenseNet
from kernelprune.models.inception import GoogLeNet
from kernelprune.models.mobilenet import MobileNetV1, MobileNetV2
from kernelprune.models.resnet import BasicBlock, Bottleneck, ResNet
from kernelprune.models.vgg import POOL, VGG

_CLASSES = {"num_classes": 5, "in_channels": 3}

BUILDERS = {
    "vgg": lambda: VGG((8, POOL, 12, 12, 16), **_CLASSES),
    "resnet": lambda: ResNet(BasicBlock, (1, 2), (8, 12), stem="cifar", **_CLASSES),
    "bottleneck": lambda: ResNet(Bottleneck, (1, 1), (4, 6), stem="cifar", **_CLASSES),
    "densenet": lambda: DenseNet(10, 6, **_CLASSES),
    "mobilenet_v1": lambda: MobileNetV1(
        ((16, 1), (24, 2), (24, 1)), stem="cifar", width=0.5, **_CLASSES
    ),
    "mobilenet_v2": lambda: MobileNetV2(
        ((1, 8, 1, 1), (2, 12, 2, 1), (2, 16, 1, 2)), stem="cifar", width=0.5, **_CLASSES
    ),
    "inception": lambda: GoogLeNet(
        ((60, 40, 80, 30, 50, 40), (), (80, 40, 80, 30, 60, 40)),
        stem="cifar",
        width=0.1,
        **_CLASSES,
    ),
}


def build(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[name]()
