"""Free sizes: which of a captured graph's numbers follow the size of the input map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from kernelprune.errors import Error
from kernelprune.graph.ir import Graph, Node

SIDES = ("height", "width")
# How much larger the second map is, in pixels: networks want multiples of up to 64.
_STEPS = ((32, 64), (64, 128), (128, 64))


def check_dynamic(dynamic: Sequence[str], inputs: Sequence[torch.Tensor]) -> tuple[bool, bool]:
    """(is the height free, is the width). Raises Error for other names, or inputs without."""
    names = [dynamic] if isinstance(dynamic, str) else list(dynamic)
    if not names or not set(names) <= set(SIDES):
        raise Error(f"dynamic={dynamic!r}: name one or both of 'height' and 'width'")
    if len(inputs) != 1 or inputs[0].dim() != 4:
        raise Error("dynamic sizes need a model with one input [N, C, H, W]")
    return "height" in names, "width" in names


def with_free_sizes(
    graph: Graph,
    free: tuple[bool, bool],
    inputs: Sequence[torch.Tensor],
    capture: Callable[[torch.Tensor], Graph],
) -> tuple[Graph, torch.Tensor]:
    """``graph`` for maps of any size, and the larger map at which it was compared.

    The model is captured a second time, for a larger map (``capture(x)``): nothing in its graph may
    differ but shapes. Upsampling "to the size of" another map becomes upsampling by a factor, if
    both graphs have the same one. Raises Error that names the node which keeps to one size.
    """
    larger, other = _second(inputs[0], free, capture)
    names = [(node.op, node.inputs, node.output) for node in graph.nodes]
    if names != [(node.op, node.inputs, node.output) for node in other.nodes]:
        raise Error("the model computes other steps for maps of another size: one file for each")
    for node, twin in zip(graph.nodes, other.nodes, strict=True):
        if node.op == "resize":
            _by_factor(node, graph, twin, other)
        _check_equal(node, twin)
    graph.inputs[0].free = free
    return graph, larger


def _second(
    x: torch.Tensor, free: tuple[bool, bool], capture: Callable[[torch.Tensor], Graph]
) -> tuple[torch.Tensor, Graph]:
    reasons = []
    for more in _STEPS:
        height, width = (
            side + step * f for side, step, f in zip(x.shape[2:], more, free, strict=True)
        )
        larger = torch.nn.functional.interpolate(x.double(), (height, width)).to(x.dtype)
        try:
            return larger, capture(larger)
        except Error as error:
            reasons.append(f"{height}x{width}: {error}")
    raise Error(f"the model takes no map of another size ({reasons[0]})")


def _by_factor(node: Node, graph: Graph, twin: Node, other: Graph) -> None:
    scale = list(node.params["scale"])
    before, after = graph.shapes()[node.inputs[0]], node.shape
    for axis in (0, 1):
        if scale[axis] != 0 or node.params["align_corners"]:
            continue
        pairs = ((before, after), (other.shapes()[twin.inputs[0]], twin.shape))
        ratios = {large[axis + 1] / small[axis + 1] for small, large in pairs}
        if len(ratios) == 1:
            scale[axis] = twin.params["scale"][axis] = ratios.pop()
    node.params["scale"] = scale
    twin.params["scale"] = list(scale)


def _check_equal(node: Node, twin: Node) -> None:
    def differ(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        if a is None or b is None:
            return a is not b
        return not np.array_equal(a, b)

    fixed = node.params != twin.params or node.tensors.keys() != twin.tensors.keys()
    fixed = fixed or differ(node.weight, twin.weight) or differ(node.bias, twin.bias)
    fixed = fixed or any(differ(node.tensors[role], twin.tensors[role]) for role in node.tensors)
    if fixed:
        where = f" ({node.source})" if node.source else ""
        raise Error(
            f"node '{node.name}' ({node.op}) is made for one size of the map{where}: "
            "export without dynamic=, one file for each size"
        )
