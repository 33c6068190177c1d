"""The model file: the only contract between Python and the engine. See FORMAT.md."""

from __future__ import annotations

from kernelprune.format.reader import read
from kernelprune.format.writer import write
from kernelprune.graph.ir import Graph, Node, Value

__all__ = ["Graph", "Node", "Value", "read", "write"]
