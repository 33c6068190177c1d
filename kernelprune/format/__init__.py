"""The model file: the only contract between Python and the engine. See FORMAT.md."""

from __future__ import annotations

from kernelprune.format.graph import Graph, Node, Value

__all__ = ["Graph", "Node", "Value"]
