"""One function for each op of a model file, by its name, that appends the nodes of ONNX."""

from __future__ import annotations

from collections.abc import Callable

from kernelprune.frontends.onnx.emitters import functions, layers, shapes
from kernelprune.frontends.onnx.emitters.builder import Builder
from kernelprune.graph.ir import Node

EMITTERS: dict[str, Callable[[Builder, Node], None]] = {
    **functions.TABLE,
    **layers.TABLE,
    **shapes.TABLE,
}
