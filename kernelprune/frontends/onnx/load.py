"""An ONNX file becomes a torch module that can be pruned, trained and exported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kernelprune.frontends.onnx.model_file import ModelFile
from kernelprune.frontends.onnx.walk import Sizes, Walk
from kernelprune.graph.ir import Graph
from kernelprune.graph.ops.fake_quantize import rounds
from kernelprune.graph.quantization import quantizations
from kernelprune.lazy import resolve

if TYPE_CHECKING:
    from torch import nn


def read_onnx(path: str | os.PathLike[str], sizes: Sizes | None = None) -> Graph:
    """The graph of an ONNX file as ``trace`` makes it of a model, nothing folded; shapes are per
    image, whatever batch the file has. See ``load_onnx``; needs no torch."""
    return Walk(ModelFile(path), sizes).run()


def load_onnx(path: str | os.PathLike[str], sizes: Sizes | None = None) -> nn.Module:
    """A torch module in eval mode that computes what an ONNX file (opset 7 to 22) does, for any
    batch.

    It takes the file's inputs ``[N, ...]`` in order and returns its output, a dictionary by name
    when there are several, the batch always in front. Layers are torch.nn modules (a convolution
    that the file calls by the weight ``features.0.weight`` is ``features.0``), so that it is
    trained, pruned, compacted and exported as any other; weights that are zero are dropped
    connections.

    A file with QuantizeLinear and DequantizeLinear of results becomes a module of bytes, which is
    exported in int8 but does not train, and returns a tuple where there are several outputs. What
    cannot be bytes stays float32, with a QuantizationWarning that names it.

    ``sizes``: per image, as in ``(3, 224, 224)``, for an input whose sides the file leaves free, or
    in place of the file's; by name where there are several inputs.

    Raises Error when there is no such file or it leaves a size free, FormatError when it is
    damaged, UnsupportedOperator (which names all nodes) for operators without counterpart,
    MissingPackage without torch or onnx.
    """
    resolve("kernelprune.load_onnx", "torch")
    return as_module(read_onnx(path, sizes))


def as_module(graph: Graph) -> nn.Module:
    """The module of a graph of ``read_onnx``: one that can be trained, or the quantised one."""
    from kernelprune.frontends.torch.export import quantised
    from kernelprune.frontends.torch.to_torch import to_trainable

    if quantizations(graph) or any(rounds(node) for node in graph.nodes):
        return quantised(graph)
    return to_trainable(graph)
