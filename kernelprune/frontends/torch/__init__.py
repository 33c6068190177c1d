"""From a torch model to the graph that a model file holds."""

from __future__ import annotations

from kernelprune.frontends.torch.check import Check, check
from kernelprune.frontends.torch.export import capture, export
from kernelprune.frontends.torch.to_torch import to_torch
from kernelprune.frontends.torch.trace import trace

__all__ = ["Check", "capture", "check", "export", "to_torch", "trace"]
