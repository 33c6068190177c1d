"""The quantised network beside the float32 one: what is reported of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.quantization import Quantization, quantizations
from kernelprune.prune.batches import Inputs
from kernelprune.prune.progress import Progress
from kernelprune.quantization.observers import INFINITE, Observation
from kernelprune.quantization.options import QuantizeOptions
from kernelprune.quantization.report import LayerReport, QuantizationReport

_COMPARED = 8  # images for the signal-to-noise ratios


def report_of(
    graph: Graph,
    quantised: Graph,
    seen: dict[str, Observation],
    images: Sequence[Inputs],
    options: QuantizeOptions,
    tell: Progress,
) -> QuantizationReport:
    """``seen``: of every value that is bytes and of every layer's output; ``images``: one by
    one."""
    ratios = signal_to_noise(graph, quantised, images[:_COMPARED], tell)
    scales = quantizations(quantised)
    layers = []
    for value in quantised.inputs:
        if value.name in seen:
            layers.append(_layer(value.name, "input", "", value.name, seen, scales, ratios))
    for node in quantised.nodes:
        if node.has_weight():
            layers.append(
                _layer(node.name, node.op, _precision(node), node.output, seen, scales, ratios)
            )
    return QuantizationReport(options.method, len(images), tuple(layers))


def _precision(node: Node) -> str:
    return "float32" if node.weight_scale is None else "int8"


def _layer(
    name: str,
    op: str,
    precision: str,
    value: str,
    seen: dict[str, Observation],
    scales: dict[str, Quantization],
    ratios: dict[str, float],
) -> LayerReport:
    observed, own = seen[value], scales.get(value)
    return LayerReport(
        name=name,
        op=op,
        precision=precision,
        low=observed.low,
        high=observed.high,
        scale=None if own is None else own.scale,
        zero_point=None if own is None else own.zero_point,
        clipped=0.0 if own is None else observed.clipped(own),
        signal_to_noise=ratios[value],
    )


def signal_to_noise(
    graph: Graph, quantised: Graph, images: Sequence[Inputs], tell: Progress
) -> dict[str, float]:
    """In dB by value: the numbers of ``graph`` over what the other graph's differ from them."""
    exact, rounded = GraphModel(graph), GraphModel(quantised)
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for position, image in enumerate(images):
        tell("comparing", position / len(images))
        values: dict[str, torch.Tensor] = {}
        exact.run(image, values.__setitem__)

        def see(name: str, value: torch.Tensor, values: dict = values) -> None:
            want = values[name].double()
            want = torch.where(want.abs() < INFINITE, want, 0)
            # What stands for infinity is no signal, and no byte is far from it.
            difference = torch.where(want == values[name], rounded.numbers(name, value) - want, 0)
            signal[name] = signal.get(name, 0.0) + float(want.square().sum())
            noise[name] = noise.get(name, 0.0) + float(difference.square().sum())

        rounded.run(image, see)
    return {name: decibel(signal[name], noise[name]) for name in signal}


def decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
