"""From a torch model to the graph that a model file holds."""

from __future__ import annotations

from kernelprune.capture.export import capture, export
from kernelprune.capture.to_torch import to_torch
from kernelprune.capture.trace import trace

__all__ = ["capture", "export", "to_torch", "trace"]
