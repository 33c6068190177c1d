"""The model zoo: own implementations, built by name."""

from __future__ import annotations

from kernelprune.models import (
    densenet,
    inception,
    mobilenet,
    resnet,
    vgg,
)
from kernelprune.models.registry import create, kind_of, names, register, require_classifier

__all__ = [
    "create",
    "densenet",
    "inception",
    "kind_of",
    "mobilenet",
    "names",
    "register",
    "require_classifier",
    "resnet",
    "vgg",
]
