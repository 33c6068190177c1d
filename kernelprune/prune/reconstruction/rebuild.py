"""Both networks, the dense and the pruned one, node by node: every layer is fitted with the inputs
that it will really get, and every batch norm follows what its inputs have become."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.graph.ir import Graph, Node
from kernelprune.prune.batches import Inputs, device_of
from kernelprune.prune.layers import Layer
from kernelprune.prune.progress import Progress
from kernelprune.prune.reconstruction.choice import Blocks, present_connections
from kernelprune.prune.reconstruction.fitting import Fit, Wanted, fit
from kernelprune.prune.reconstruction.options import ReconstructionOptions
from kernelprune.prune.strength import Strength
from kernelprune.prune.walk import Walk, affordable
from kernelprune.prune.weights import parametrisation, raw_weight


@dataclass
class Task:
    """``graph``: as traced. ``fitted``: the layer of each node whose weights can be fitted; other
    layers are called more than once, or with something else than their weights."""

    model: nn.Module
    graph: Graph
    layers: list[Layer]
    batches: list[Inputs]
    options: ReconstructionOptions
    fitted: dict[str, Layer] = field(init=False)
    norms: dict[str, _BatchNorm] = field(init=False)

    def __post_init__(self) -> None:
        times: dict[int, int] = {}
        for _, parameter in self.model.named_parameters(remove_duplicate=False):
            times[id(parameter)] = times.get(id(parameter), 0) + 1
        self.fitted = {
            layer.nodes[0].name: layer
            for layer in self.layers
            if _can_be_fitted(layer) and times.get(id(raw_weight(layer.module))) == 1
        }
        modules = dict(self.model.named_modules())
        called = [node.module for node in self.graph.nodes]
        self.norms = {
            node.name: module
            for node in self.graph.nodes
            for module in [modules.get(node.module or "")]
            if isinstance(module, _BatchNorm)
            and "running_mean" in node.tensors
            and called.count(node.module) == 1
        }

    def networks(self) -> tuple[list[GraphModel], list[Walk]]:
        """The dense network and one to change, and their walks over the images, as many as the
        memory has room for."""
        numbers = (self.options.memory_mb << 20) // 16  # a quarter of the bytes for each
        device = device_of(self.model)
        batches = affordable(self.graph, self.batches, numbers)
        batches = [tuple(x.to(device) for x in batch) for batch in batches]
        models = [GraphModel(self.graph).to(device) for _ in range(2)]
        return models, [Walk(model, batches) for model in models]


def _can_be_fitted(layer: Layer) -> bool:
    module = layer.module
    if len(layer.nodes) != 1 or parametrisation(module, Strength) is not None:
        return False
    node = layer.nodes[0]
    assert node.weight is not None
    weight = module.weight.detach().float().cpu()
    own = torch.from_numpy(node.weight).float()
    same_bias = (node.bias is None) == (module.bias is None)
    return same_bias and own.numel() == weight.numel() and own.view_as(weight).allclose(weight)


@dataclass
class Rebuilt:
    """By module: the layers' fits, and the running means of the batch norms that follow them."""

    fits: dict[str, Fit] = field(default_factory=dict)
    norms: dict[str, torch.Tensor] = field(default_factory=dict)

    def write(self, model: nn.Module) -> None:
        """Gives the model's modules the new weights and statistics."""
        with torch.no_grad():
            for name, found in self.fits.items():
                module = model.get_submodule(name)
                raw_weight(module).copy_(found.weight)
                if found.bias is not None:
                    module.bias.copy_(found.bias)  # type: ignore[operator, union-attr]
            for name, mean in self.norms.items():
                model.get_submodule(name).running_mean.copy_(mean)  # type: ignore[operator, union-attr]


@torch.no_grad()
def rebuild(task: Task, wanted: Mapping[str, Wanted], tell: Progress) -> Rebuilt:
    """``wanted``: by layer, of the prunable ones. Those that cannot be fitted keep their largest
    kernels."""
    models, (dense, pruned) = task.networks()
    changed = models[1]
    found = Rebuilt()
    by_name = {layer.name: layer for layer in task.layers}
    for position, node in enumerate(task.graph.nodes):
        tell(f"fitting {node.module or node.name}", position / len(task.graph.nodes))
        layer = by_name.get(node.module or "")
        before, given = ([walk.values[name] for name in node.inputs] for walk in (dense, pruned))
        outputs = dense.advance(position)
        step = changed.steps[position]
        if layer is not None and node.has_weight():
            own = _fit_layer(task, layer, node, before, given, outputs, wanted.get(layer.name))
            if own is not None:
                found.fits[layer.name] = own
                step.replace(weight=own.weight.view_as(step.weight))
                if own.bias is not None:
                    step.replace(bias=own.bias)
        elif node.name in task.norms and not _same(before[0], given[0]):
            mean = follow(task.norms[node.name], before[0], given[0])
            found.norms[node.module or ""] = mean
            step.replace(tensor_running_mean=mean)
        pruned.advance(position)
    return found


def _fit_layer(
    task: Task,
    layer: Layer,
    node: Node,
    before: list[list[torch.Tensor]],
    given: list[list[torch.Tensor]],
    outputs: list[torch.Tensor],
    wanted: Wanted | None,
) -> Fit | None:
    """None for a layer that stays as it is."""
    options = task.options
    fitted = node.name in task.fitted
    if wanted is None:
        whole = options.refit_whole and not (layer.ignored or layer.depthwise)
        if not (whole and fitted) or _same(before[0], given[0]):
            return None
        wanted = Wanted()
    if not fitted:
        return by_norm(layer, wanted, options)
    absorbed = is_absorbed(task.graph, task.norms, node)
    return fit(layer, node, given[0], outputs, wanted, options, absorbed=absorbed)


def by_norm(layer: Layer, wanted: Wanted, options: ReconstructionOptions) -> Fit:
    """The largest kernels as they are."""
    blocks = Blocks.of(layer, options.group)
    assert wanted.blocks is not None
    mask = blocks.connections(blocks.largest(wanted.blocks, wanted.held))
    mask &= present_connections(layer).cpu()
    weight = layer.module.weight.detach()
    kept = mask.to(weight.device).view(*mask.shape, *[1] * (weight.dim() - 2))
    return Fit(mask, (weight * kept).double(), None, (float("nan"), float("nan")))


def is_absorbed(graph: Graph, norms: Container[str], node: Node) -> bool:
    """Does all that reads the node's output put it through one of ``norms`` (names of nodes) first?
    Sums, and what moves channels about, may lie between."""
    left, seen = [node.output], set()
    while left:
        value = left.pop()
        readers = graph.consumers(value)
        if value in graph.outputs or not readers:
            return False
        for reader in readers:
            if reader.name in norms:
                continue
            plain_sum = reader.rule.is_sum and reader.params.get("activation", "none") == "none"
            if not (plain_sum or reader.rule.rearranges):
                return False
            if reader.output not in seen:
                seen.add(reader.output)
                left.append(reader.output)
    return True


def follow(
    norm: _BatchNorm, before: Sequence[torch.Tensor], given: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The running mean ``[C]`` for inputs ``given`` where those ``before`` had the norm's: moved by
    as much as the mean of the images has moved, so that what few images tell badly, and training
    images told well, stays.

    The variance stays too. Least squares predict what they can, with less variance than the dense
    outputs have; to divide by that would bring the outputs further from these.
    """
    assert norm.running_mean is not None
    return norm.running_mean + (_mean(given) - _mean(before))


def _mean(batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of every channel, in float64."""
    count = 0
    sums = torch.zeros((), dtype=torch.float64, device=batches[0].device)
    for batch in batches:
        values = batch.transpose(0, 1).flatten(1)
        count += values.shape[1]
        sums = sums + values.sum(1, dtype=torch.float64)
    return sums / count


def _same(before: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(before, given, strict=True))


# Called with a layer's node, its inputs and its outputs, batch by batch, of the dense network.
Look = Callable[[Layer, Node, list[torch.Tensor], list[torch.Tensor]], None]


@torch.no_grad()
def survey(task: Task, look: Look, tell: Progress) -> None:
    """Shows all prunable layers that can be fitted, in order, in the dense network."""
    _, (dense, _) = task.networks()
    for position, node in enumerate(task.graph.nodes):
        tell(f"looking at {node.module or node.name}", position / len(task.graph.nodes))
        inputs = [dense.values[name] for name in node.inputs]
        outputs = dense.advance(position)
        layer = task.fitted.get(node.name)
        if layer is not None and layer.prunable:
            look(layer, node, inputs[0], outputs)
