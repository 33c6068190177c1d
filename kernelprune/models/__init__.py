"""The model zoo: own implementations, built by name."""

from __future__ import annotations

from kernelprune.models import resnet, vgg
from kernelprune.models.registry import create, names, register

__all__ = ["create", "names", "register", "resnet", "vgg"]
