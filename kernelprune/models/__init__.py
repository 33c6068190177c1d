"""The model zoo: own implementations, built by name."""

from __future__ import annotations

from kernelprune.models import densenet, inception, mobilenet, resnet, vgg
from kernelprune.models.registry import create, names, register

__all__ = [
    "create",
    "densenet",
    "inception",
    "mobilenet",
    "names",
    "register",
    "resnet",
    "vgg",
]
