"""Which channels of a network have to stay, and why: said to whoever asks for fewer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from kernelprune.errors import Error
from kernelprune.graph.channels import links
from kernelprune.graph.coupling import Coupling
from kernelprune.graph.ir import Graph, Node
from kernelprune.graph.ops.base import uniform, width_of
from kernelprune.prune.layers import Layer
from kernelprune.prune.weights import check_weight

SUM = "residual sums"
OUTPUT = "outputs of the model"
INPUT = "inputs of the model"
WHOLE = "layers that are kept whole"
PARTS = "parts of unequal size"
NUMBERS = "numbers of each channel in the model's code"


class Ties:
    """``reasons``: by class of channels why it stays; "" where it may go.

    A class stays when the model gives or takes it, when a sum of two values has it (to cut both
    alike is not what a choice by layer does; unless channels are ``coupled``), when an operator
    needs all channels of its input, or when a layer reads it that loses no inputs: the classifier
    (unless coupled, see ``find_layers``), what ``ignore`` names, a module that is called more than
    once. Coupled ones also stay where ``compact`` could not cut them out of the model's modules.
    """

    def __init__(
        self, graph: Graph, coupling: Coupling, layers: Sequence[Layer], *, coupled: bool = False
    ):
        self.reasons = np.full(coupling.count, "", object)
        readers = {id(node): layer for layer in layers for node in layer.nodes}
        calls = Counter(node.module for node in graph.nodes if node.rule.module_classes())
        for node in graph.nodes:
            if node.has_weight():
                layer = readers.get(id(node))
                if node.name not in coupling.whole and not loses_inputs(layer):
                    self._stay(coupling.classes[node.inputs[0]], WHOLE)
                if coupled and not _loses_outputs(layer):
                    self._stay(coupling.classes[node.output], WHOLE)
                continue
            if node.rule.is_sum and not coupled:
                self._stay(coupling.classes[node.output], SUM)
            if coupled and (calls[node.module] > 1 and node.rule.module_classes()):
                self._stay(coupling.classes[node.output], WHOLE)
            elif coupled and not node.rule.module_classes() and _numbers_channels(node):
                self._stay(coupling.classes[node.output], NUMBERS)
            for value in _needed_whole(graph, node):
                name = str(node.params.get("operator", node.op)).removeprefix("aten::")
                self._stay(coupling.classes[value], f"{name}, which mixes channels")
        for value in graph.outputs:
            self._stay(coupling.classes[value], OUTPUT)
        for given in graph.inputs:
            self._stay(coupling.classes[given.name], INPUT)

    def _stay(self, classes: np.ndarray, reason: str) -> None:
        self.reasons[classes[self.reasons[classes] == ""]] = reason

    def held(self) -> np.ndarray:
        """bool [classes]: has to stay."""
        return np.asarray(self.reasons != "", bool)


def loses_inputs(layer: Layer | None) -> bool:
    """May input channels of the layer go?"""
    if layer is None or len(layer.nodes) != 1 or not (layer.prunable or layer.follows):
        return False
    return has_plain_weight(layer)


def _numbers_channels(node: Node) -> bool:
    """Has it a number for each channel, not the same one for all?"""
    width = width_of(node.shape)
    return any(
        array.ndim > 0
        and array.shape[0] == width
        and np.issubdtype(array.dtype, np.floating)
        and not uniform(array)
        for array in node.tensors.values()
    )


def _loses_outputs(layer: Layer | None) -> bool:
    """May output channels go from the layer's module too?"""
    if layer is None or len(layer.nodes) != 1 or layer.shared:
        return False
    return has_plain_weight(layer)


def has_plain_weight(layer: Layer) -> bool:
    """Is the layer's weight a parameter of its own, masks of ours aside?"""
    try:
        check_weight(layer.name, layer.module, masked=True)
    except Error:
        return False
    return True


def _needed_whole(graph: Graph, node: Node) -> list[str]:
    """Values of which the op needs, or makes, all channels."""
    mixed = [link.mixed for link in links(node, graph.shapes())]
    found = [name for name, all_of_it in zip(node.inputs, mixed, strict=True) if all_of_it]
    return [*found, node.output] if mixed and all(mixed) else found
