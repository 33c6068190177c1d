"""Which layers a model has, what a connection of each costs, and which of them may be pruned."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.check import warn_of
from kernelprune.frontends.torch.trace import trace, trace_all
from kernelprune.graph.ir import Graph, Node
from kernelprune.ops import SparseConv2d
from kernelprune.prune.weights import (
    Masked,
    check_model,
    check_weight,
    kernels_of,
    parametrisation,
)

_PACKAGE = Path(__file__).resolve().parent.parent

# One item of ``ignore=``: a module's name, a pattern with * and ?, a type, or a module.
Selector = str | type | nn.Module


@dataclass
class Layer:
    """A convolution, or a linear layer. ``cost``: multiply-adds per image of one connection, summed
    over all calls of the module; it and ``map_size`` (of the output) are None without a graph.
    ``named``: ``include`` selects it; ``ignored``: ``ignore`` does. ``shared``: its weight is that
    of another module too. ``follows``: a linear layer on
    vectors, between others: it is not pruned, but does without the channels of a map that all other
    readers do without. For coupled channels so does every layer that is not pruned for itself, a
    transposed convolution among them."""

    name: str
    module: nn.Conv2d | nn.Linear | nn.ConvTranspose2d
    cost: int | None = None
    map_size: tuple[int, int] | None = None
    nodes: list[Node] = field(default_factory=list)
    prunable: bool = False
    named: bool = False
    ignored: bool = False
    shared: bool = False
    follows: bool = False

    @property
    def on_map(self) -> bool:
        """A convolution, or a linear layer that every call applies at each place of a map
        (ConvNeXt's between two permutes), which is a 1x1 convolution. Not known without a graph."""
        if not isinstance(self.module, nn.Linear):
            return True
        return bool(self.nodes) and all(len(node.shape) > 1 for node in self.nodes)

    @property
    def groups(self) -> int:
        return 1 if isinstance(self.module, nn.Linear) else self.module.groups

    @property
    def transposed(self) -> bool:
        return isinstance(self.module, nn.ConvTranspose2d)

    @property
    def depthwise(self) -> bool:
        """Each output channel reads one input channel: without that connection it is constant."""
        return self.groups > 1 and self.in_channels == self.groups

    @property
    def in_channels(self) -> int:
        module = self.module
        return module.in_features if isinstance(module, nn.Linear) else module.in_channels

    @property
    def out_channels(self) -> int:
        module = self.module
        return module.out_features if isinstance(module, nn.Linear) else module.out_channels

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``[O, I/groups]`` of the layer's connections, and of its masks; ``[I, O/groups]``
        of a transposed convolution, as its weight."""
        if self.transposed:
            return self.in_channels, self.out_channels // self.groups
        return self.out_channels, self.in_channels // self.groups

    @property
    def kernel(self) -> tuple[int, int]:
        if isinstance(self.module, nn.Linear):
            return 1, 1
        return int(self.module.kernel_size[0]), int(self.module.kernel_size[1])

    def mask_of(self, inputs: torch.Tensor) -> torch.Tensor:
        """The connections of the input channels ``inputs`` (bool ``[I]``), of the layer's shape."""
        if self.transposed:
            return inputs[:, None].expand(self.shape).clone()
        by_group = inputs.reshape(self.groups, 1, -1)
        by_group = by_group.expand(-1, self.out_channels // self.groups, -1)
        return by_group.reshape(self.shape).contiguous()

    def inputs_of(self, mask: torch.Tensor) -> torch.Tensor:
        """bool ``[I]``: the input channels with a connection in ``mask``, of the layer's shape."""
        if self.transposed:
            return mask.any(1)
        return mask.reshape(self.groups, -1, mask.shape[1]).any(1).reshape(-1)

    def kernels(self, weight: torch.Tensor) -> torch.Tensor:
        """``[O, I/groups, kh, kw]`` of the layer's weight, or of a tensor like it."""
        kernels = kernels_of(weight)
        if not self.transposed:
            return kernels
        by_group = kernels.reshape(self.groups, -1, *kernels.shape[1:]).transpose(1, 2)
        return by_group.reshape(-1, *by_group.shape[2:])

    def present(self) -> torch.Tensor:
        """bool ``[O, I/groups]``: connections with a weight other than zero."""
        weight = self.module.weight.detach()
        return weight.reshape(*weight.shape[:2], -1).ne(0).any(dim=2)


def read_graph(
    model: nn.Module,
    x: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    masked: bool = False,
    computed: bool = False,
    coupled: bool = False,
) -> tuple[Graph, list[Layer]]:
    """The model's graph for an example input and its layers, for a method that is about to prune
    it; ``masked``: it also prunes below masks that are attached; ``computed``: it computes the
    graph; ``coupled``: as ``find_layers``.

    Warns (UnsupportedWarning) of operators that the engine cannot run; raises UnsupportedOperator
    for them where the graph is computed. Raises Error as ``trace`` and ``find_layers`` do, and for
    what cannot be pruned: a model that is wrapped or has no values yet, a prunable layer whose
    weight is made anew at every call.
    """
    check_model(model)
    if computed:
        graph = trace(model, x)
    else:
        graph, refusals = trace_all(model, x)
        warn_of(refusals, _stacklevel())
    # A module that stands in several places has several names in a graph, and one for a model.
    first = {id(module): name for name, module in model.named_modules()}
    for name, module in model.named_modules(remove_duplicate=False):
        if first[id(module)] != name:
            for node in graph.nodes:
                node.module = first[id(module)] if node.module == name else node.module
    layers = find_layers(model, graph, ignore=ignore, include=include, coupled=coupled)
    return graph, _changeable(layers, masked)


def _stacklevel() -> int:
    """Of warnings.warn in the caller, so that it names the line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _PACKAGE in Path(frame.f_code.co_filename).parents:
        frame, level = frame.f_back, level + 1
    return level


def read_layers(
    model: nn.Module,
    x: torch.Tensor | tuple[torch.Tensor, ...] | None,
    *,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    masked: bool = False,
) -> tuple[Graph | None, list[Layer]]:
    """As ``read_graph``, for a method that does without an example input."""
    if x is not None:
        return read_graph(model, x, ignore=ignore, include=include, masked=masked)
    return None, _changeable(find_layers(model, ignore=ignore, include=include), masked)


def _changeable(layers: list[Layer], masked: bool) -> list[Layer]:
    for layer in layers:
        if layer.prunable:
            check_weight(layer.name, layer.module, masked=masked)
    return layers


def find_layers(
    model: nn.Module,
    graph: Graph | None = None,
    *,
    ignore: Iterable[Selector] | Selector = (),
    include: Iterable[Selector] | Selector = (),
    coupled: bool = False,
) -> list[Layer]:
    """All convolutions and linear layers, in the order of the graph (else of the modules).

    Prunable are the convolutions, and with a graph the linear layers that work at each place of a
    map, but the first ones (those that read the model's input), the classifier (the last layers
    before the output, linear or not), depthwise ones, those that share a weight with another
    module, and what ``ignore`` selects; ``include`` selects first, last and depthwise ones that are
    prunable all the same. Linear layers on vectors never are. ``coupled``: transposed convolutions
    too, and of all layers but those that ``ignore`` selects, or share a weight, inputs may go.
    Raises Error when a selector is a name or module that the model does not have, when ``include``
    selects a layer that shares its weight, or when nothing is left to prune.
    """
    check_model(model)
    modules = dict(model.named_modules())
    layers = [
        Layer(name, module)
        for name, module in modules.items()
        if isinstance(module, (nn.Conv2d, nn.Linear))
        or (coupled and isinstance(module, nn.ConvTranspose2d))
    ]
    if graph is None:
        ends = _ends_by_order(layers)
    else:
        layers = _read_graph(layers, graph)
        ends = _ends_by_graph(graph)
    ignored, included = _selected(modules, ignore), _selected(modules, include)
    shared = _shared(modules, layers)
    for layer in layers:
        layer.named, layer.ignored = layer.name in included, layer.name in ignored
        layer.shared = layer.name in shared
        left_out = layer.ignored or layer.shared
        kept_whole = (layer.name in ends or layer.depthwise) and not layer.named
        able = not (kept_whole or left_out)
        layer.prunable = able and layer.on_map and not layer.transposed
        layer.follows = able and not layer.on_map
        if coupled:
            layer.follows = not (layer.prunable or left_out or layer.depthwise)
        if layer.named and layer.name in shared and layer.name not in ignored:
            raise Error(
                f"include: layer '{layer.name}' shares its weight with '{shared[layer.name]}': "
                "pruning one would prune both, so neither can be pruned"
            )
    if not any(layer.prunable or (coupled and layer.follows) for layer in layers):
        _refuse(model, layers)
    return layers


def _refuse(model: nn.Module, layers: list[Layer]) -> NoReturn:
    why = "it has no nn.Conv2d"
    if any(isinstance(module, SparseConv2d) for module in model.modules()):
        why += ", they are SparseConv2d: kernelprune.densify(model) first"
    if any(isinstance(layer.module, nn.Conv2d) for layer in layers):
        why = (
            "left out are the first one, the classifier and depthwise ones (include= takes these "
            "in), what ignore= names, and those that share their weight with another module"
        )
    raise Error(f"{type(model).__name__} has no convolution to prune: {why}")


def _read_graph(layers: list[Layer], graph: Graph) -> list[Layer]:
    by_name = {layer.name: layer for layer in layers}
    called: dict[str, Layer] = {}
    for node in graph.nodes:
        layer = by_name.get(node.module or "")
        if not node.has_weight() or layer is None:
            continue
        called[layer.name] = layer
        layer.nodes.append(node)
        sides = node.shape[1:] or (1, 1)
        layer.map_size = (int(sides[0]), int(sides[1]))
        kernel_h, kernel_w = layer.kernel
        layer.cost = (layer.cost or 0) + kernel_h * kernel_w * layer.map_size[0] * layer.map_size[1]
    return list(called.values())


def _ends_by_order(layers: list[Layer]) -> set[str]:
    convolutions = [layer.name for layer in layers if isinstance(layer.module, nn.Conv2d)]
    return {*convolutions[:1], *(layer.name for layer in layers[-1:])}


def _ends_by_graph(graph: Graph) -> set[str]:
    """Layers with no layer between them and the model's input, or its output."""
    raw = {value.name for value in graph.inputs}  # values that no layer has worked on
    ends: set[str] = set()
    for node in graph.nodes:
        fresh = all(name in raw for name in node.inputs)
        if node.has_weight():
            if fresh:
                ends.add(node.module or "")
        elif fresh:
            raw.add(node.output)
    final = set(graph.outputs)  # values that no layer works on any more
    for node in reversed(graph.nodes):
        if node.output in final:
            if node.has_weight():
                ends.add(node.module or "")
            else:
                final.update(node.inputs)
    return ends


def _shared(modules: dict[str, nn.Module], layers: list[Layer]) -> dict[str, str]:
    """Layers whose weight is a parameter of another module too, and that module's name."""
    owners: dict[int, list[str]] = {}
    for name, module in modules.items():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    found = {}
    for layer in layers:
        held = parametrisation(layer.module, Masked)
        place = layer.name if held is None else f"{layer.name}.parametrizations.weight"
        role = "weight" if held is None else "original"
        own = modules[place]._parameters.get(role)
        others = [name for name in owners.get(id(own), ()) if name != place]
        if others:
            found[layer.name] = others[0]
    return found


def _selected(modules: dict[str, nn.Module], items: Iterable[Selector] | Selector) -> set[str]:
    """Names of the selected modules and of everything inside them."""
    single = isinstance(items, (str, type, nn.Module))
    chosen: list[str] = []
    for item in [items] if single else items:  # type: ignore[union-attr, list-item]
        found = [name for name, module in modules.items() if _matches(item, name, module)]
        if not found and not isinstance(item, type):
            what = repr(item) if isinstance(item, str) else f"this {type(item).__name__}"
            raise Error(f"the model has no module {what}; its modules: {_some(modules)}")
        chosen += found
    return {
        name
        for name in modules
        if any(name == root or root == "" or name.startswith(f"{root}.") for root in chosen)
    }


def _matches(item: Any, name: str, module: nn.Module) -> bool:
    if isinstance(item, str):
        return fnmatchcase(name, item)
    return isinstance(module, item) if isinstance(item, type) else module is item


def _some(modules: dict[str, nn.Module]) -> str:
    leaves = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
    return ", ".join(leaves[:6]) + (", ..." if len(leaves) > 6 else "")
