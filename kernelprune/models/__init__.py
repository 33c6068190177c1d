"""The model zoo: own implementations, built by name."""

from __future__ import annotations

from kernelprune.models import (
    convnext,
    densenet,
    efficientnet,
    inception,
    mobilenet,
    mobilenet_v3,
    regnet,
    resnet,
    shufflenet,
    squeezenet,
    unet,
    vgg,
    yolo,
)
from kernelprune.models.registry import create, kind_of, names, register, require_classifier

__all__ = [
    "convnext",
    "create",
    "densenet",
    "efficientnet",
    "inception",
    "kind_of",
    "mobilenet",
    "mobilenet_v3",
    "names",
    "register",
    "regnet",
    "require_classifier",
    "resnet",
    "shufflenet",
    "squeezenet",
    "unet",
    "vgg",
    "yolo",
]
