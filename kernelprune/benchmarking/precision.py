"""Float32 and int8 files of one network: what is raced in bytes needs both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kernelprune.benchmarking.peers import random_inputs
from kernelprune.errors import Error
from kernelprune.format import Graph, read, write
from kernelprune.graph.quantization import quantizations

# Images that bytes are fitted to, unless some are given. Time does not depend on them.
_CALIBRATION_IMAGES = 4
_CALIBRATION_SEED = 2


@dataclass(frozen=True)
class Network:
    """One network to race.

    Attributes:
        graph: In float32, which is what peers are made of.
        float32: Its file.
        int8: The same in bytes; None where nobody asked for it.
    """

    graph: Graph
    float32: Path
    int8: Path | None


def open_network(
    path: Path, precision: str, calibration: Sequence[np.ndarray] | None, folder: Path
) -> Network:
    """A model file and, for a race in bytes, its twin: a float32 file is quantised where
    ``precision`` is "int8", of one that holds bytes the float32 twin is made.

    ``calibration``: images ``[count, *shape]`` for each input; None takes a few random ones.
    ``folder``: where the twin goes.

    Raises:
        Error: The file cannot be read or quantised, or holds bytes and float32 was asked for.
        FormatError: It is not a valid model.
    """
    graph = read(path)[0]
    if quantizations(graph):
        if precision in ("float32", "strict"):
            raise Error(f"{path} holds bytes, there is no {precision} in it: give the float32 file")
        graph, twin = float32_twin(graph), folder / "float32.safetensors"
        write(graph, twin)
        return Network(graph, twin, path)
    if precision != "int8":
        return Network(graph, path, None)
    int8 = folder / "int8.safetensors"
    write_int8(graph, int8, calibration)
    return Network(graph, path, int8)


def holds_bytes(path: Path) -> bool:
    """Whether values of a model file are quantised. Raises Error and FormatError for no model."""
    return bool(quantizations(read(path)[0]))


def float32_graph(path: Path) -> Graph:
    """What a file holds, in float32. Raises Error and FormatError as ``open_network`` does."""
    graph = read(path)[0]
    return float32_twin(graph) if quantizations(graph) else graph


def write_int8(graph: Graph, path: Path, calibration: Sequence[np.ndarray] | None = None) -> Graph:
    """Quantises a float32 graph and writes the file; returns the graph in bytes.

    ``calibration``: images ``[count, *shape]`` for each input; None takes a few random ones, of
    which all numbers are kept in range. Raises Error for a graph without a layer to quantise.
    """
    from kernelprune.quantization import quantize

    if calibration is None:
        shapes = [value.shape for value in graph.inputs]
        images = random_inputs(shapes, _CALIBRATION_IMAGES, _CALIBRATION_SEED)
        found = quantize(graph, tuple(images), method="minmax", bias_correction=False).graph
    else:
        found = quantize(graph, tuple(calibration)).graph
    write(found, path, {"precision": "int8"})
    return found


def float32_twin(graph: Graph) -> Graph:
    """What a graph in bytes stands for, in float32: its integer weights and biases times their
    scales, and values that are rounded nowhere."""
    known = quantizations(graph)
    twin = graph.copy()
    for value in twin.inputs:
        value.quantization = None
    for node in twin.nodes:
        node.quantization = None
        if node.weight_scale is None:
            continue
        kept = node.sparse()
        node.set_sparse(kept.with_weight(kept.weight.astype(np.float32)))
        node.scale_outputs(node.weight_scale)
        assert node.bias is not None
        steps = node.weight_scale.astype(np.float64) * known[node.inputs[0]].scale
        node.bias = (node.bias * steps).astype(np.float32)
        node.weight_scale = None
    return twin
