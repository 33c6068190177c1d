"""The model file: the only contract between Python and the engine. See FORMAT.md."""

from __future__ import annotations

from kernelprune.format.graph import Graph, Node, Value
from kernelprune.format.reader import read
from kernelprune.format.writer import write

__all__ = ["Graph", "Node", "Value", "read", "write"]
