"""kp.quantize: a trained network in bytes, from unlabelled images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.format.reader import read
from kernelprune.frontends.torch.accepted import check_module, unwrapped
from kernelprune.frontends.torch.export import capture
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.frontends.torch.weights import check_finite
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.quantization import Quantization, quantizations
from kernelprune.prune.batches import Inputs
from kernelprune.prune.options import takes
from kernelprune.quantization.calibration import batches_of
from kernelprune.quantization.observers import Observation, quantization_of
from kernelprune.quantization.options import QuantizeOptions
from kernelprune.quantization.placement import Placement, Sharing, place
from kernelprune.quantization.progress import Progress, told
from kernelprune.quantization.report import LayerReport, QuantizationReport
from kernelprune.quantization.weights import make_integer

# One item of ``ignore=``: the name of a module or node, a pattern with * and ?, a type, a module.
Selector = str | type | nn.Module

_COMPARED = 8  # images for the signal-to-noise ratios


class QuantizedModel(GraphModel):
    """A quantised network as a torch module: in eval mode and in train mode its forward computes
    the integers that the engine computes from ``kernelprune.export(model, x, path)``.

    ``graph``: what is written. ``report``: what quantisation did to each layer; ``print`` it.
    ``source``: the class, or the file, that it was made of.
    """

    def __init__(self, graph: Graph, report: QuantizationReport, source: str):
        super().__init__(graph, source)
        self.report = report

    def _arguments(self) -> tuple[Any, ...]:
        return self.graph, self.report, self.source


@takes(QuantizeOptions)
def quantize(
    model: nn.Module | Graph | str | os.PathLike[str],
    calibration: Any,
    *,
    ignore: Iterable[Selector] | Selector = (),
    progress: Progress | None = None,
    **options: Any,
) -> QuantizedModel:
    """Turns a trained network's weights and activations into bytes; ``model`` stays as it is.

    ``model``: a torch module, pruned or not, a captured graph or a model file. ``calibration``: a
    few hundred images as the network takes them, unlabelled: a tensor or array ``[N, ...]``, or
    batches of them (of tuples the first). ``ignore``: layers that stay float32, by name, pattern,
    type or module. ``progress``: called with what is done and the share of it; without one, a
    terminal shows a bar after two seconds. ``options``: those of ``QuantizeOptions``, by name.

    Weights get one symmetric scale for each output channel, activations one scale and zero point
    each. First and last layer included; outputs of the network, and values that only ops read which
    compute with float32 numbers, stay float32.

    Raises Error for wrong options, images that are none or not finite, a model that cannot be
    captured, a selector that selects nothing, and when there is no layer to quantise.
    """
    chosen = QuantizeOptions.from_dict(options)
    graph, batches, source = _prepared(model, calibration, chosen)
    placement = place(graph, _ignored(graph, model, ignore))
    if not placement.layers:
        raise Error("there is no layer to quantise: has the model any, and does ignore= leave one?")
    with told(progress) as tell:
        seen = observe(graph, placement, batches, tell)
        quantised = with_integers(graph, placement, seen, chosen)
        report = _report(graph, quantised, seen, batches, chosen, tell)
    return QuantizedModel(quantised, report, source)


def _prepared(
    model: Any, calibration: Any, chosen: QuantizeOptions
) -> tuple[Graph, list[Inputs], str]:
    """The float32 graph, the images, and what the graph was made of."""
    if isinstance(model, (str, os.PathLike)):
        graph, source = read(model)[0], os.fspath(model)
    elif isinstance(model, Graph):
        graph, source = model.copy(), "Graph"
    else:
        model, source = unwrapped(model), type(model).__name__
        check_module(model)
        if isinstance(model, GraphModel):
            graph = model.graph
        else:
            batches = batches_of(calibration, model, chosen.samples)
            graph = capture(model, tuple(x[:1] for x in batches[0]))
            check_finite(graph)
            return graph, batches, source
    if quantizations(graph):
        raise Error("the model is quantised already: give the float32 one")
    return graph, batches_of(calibration, GraphModel(graph), chosen.samples), source


def _ignored(graph: Graph, model: Any, ignore: Iterable[Selector] | Selector) -> set[str]:
    """Names of nodes. Raises Error for a selector that selects none."""
    items = [ignore] if isinstance(ignore, (str, type, nn.Module)) else list(ignore)
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    found: set[str] = set()
    for item in items:
        if isinstance(item, str):
            own = {
                node.name
                for node in graph.nodes
                if any(fnmatchcase(name, item) for name in (node.name, node.module or ""))
            }
        else:
            names = {
                name
                for name, module in modules.items()
                if (isinstance(module, item) if isinstance(item, type) else module is item)
            }
            own = {node.name for node in graph.nodes if node.module in names}
        if not own:
            layers = [node.name for node in graph.nodes if node.has_weight()]
            some = ", ".join(layers[:6]) + (", ..." if len(layers) > 6 else "")
            raise Error(f"ignore: {item!r} selects no layer; there are: {some}")
        found |= own
    return found


def observe(
    graph: Graph, placement: Placement, batches: Sequence[Inputs], tell: Progress
) -> dict[str, Observation]:
    """Of every value that becomes bytes, and of the output of every layer. Raises Error for numbers
    that are not finite."""
    names = [*placement.values, *(node.output for node in graph.nodes if node.has_weight())]
    seen = {name: Observation() for name in names}

    def see(name: str, numbers: torch.Tensor) -> None:
        if name not in seen:
            return
        if not bool(torch.isfinite(numbers).all()):
            raise Error(f"value '{name}' is not finite for the images of the calibration")
        seen[name].see(numbers)

    twin = GraphModel(graph)
    for position, batch in enumerate(batches):
        tell("measuring", position / len(batches))
        twin.run(batch, see)
    return seen


def with_integers(
    graph: Graph,
    placement: Placement,
    seen: dict[str, Observation],
    options: QuantizeOptions,
) -> Graph:
    """A copy whose values of ``placement`` are bytes and whose layers have integer weights."""
    found = graph.copy()
    sharing = Sharing(graph, {name: seen[name] for name in placement.values})
    scales = {name: quantization_of(own, options) for name, own in sharing.seen.items()}
    for value in found.inputs:
        if value.dtype == "u8" and value.name in placement.values:
            scales[sharing.set_of(value.name)] = Quantization(1.0, 0)  # they are bytes as given
    own = {name: scales[sharing.set_of(name)] for name in placement.values}
    for value in found.inputs:
        value.quantization = own.get(value.name)
    for node in found.nodes:
        node.quantization = own.get(node.output)
        if node.name in placement.layers:
            make_integer(node, own[node.inputs[0]], per_channel=options.per_channel)
    return found


# ---------------------------------------------------------------- report


def _report(
    graph: Graph,
    quantised: Graph,
    seen: dict[str, Observation],
    batches: Sequence[Inputs],
    options: QuantizeOptions,
    tell: Progress,
) -> QuantizationReport:
    images = [tuple(x[i : i + 1] for x in batch) for batch in batches for i in range(len(batch[0]))]
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
            difference = rounded.numbers(name, value).double() - want
            signal[name] = signal.get(name, 0.0) + float(want.square().sum())
            noise[name] = noise.get(name, 0.0) + float(difference.square().sum())

        rounded.run(image, see)
    return {name: decibel(signal[name], noise[name]) for name in signal}


def decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
