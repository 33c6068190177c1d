"""A network as plain data: operators, shapes, connections, and what can be done with them; needs
numpy alone."""

from __future__ import annotations

from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import Graph, Node, Shape, Value, infer_shape

__all__ = ["Connections", "Graph", "Node", "Shape", "Value", "infer_shape"]
