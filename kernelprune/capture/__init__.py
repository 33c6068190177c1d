"""From a torch model to the graph that a model file holds."""

from __future__ import annotations

from kernelprune.capture.trace import trace

__all__ = ["trace"]
