"""What a graph's weights say before they are written: no numbers, zeros that gain nothing."""

from __future__ import annotations

import numpy as np
import torch

from kernelprune.errors import Error
from kernelprune.graph.ir import Graph, Node

# Share of zeros in the kernels that are kept from which on a user is told that they gain nothing.
_IDLE_ZEROS = 0.25


def check_finite(graph: Graph, inputs: tuple[torch.Tensor, ...] = ()) -> None:
    """Raises Error when a weight of the graph, or of an example input, is NaN or infinite."""
    for node in graph.nodes:
        for role, values in _arrays(node).items():
            if not np.isfinite(values).all():
                what = "NaN" if np.isnan(values).any() else "infinite numbers"
                name = node.name if node.module is None else node.module
                raise Error(f"layer '{name}' holds {what} in its {role}: did training diverge?")
    if not all(bool(torch.isfinite(x).all()) for x in inputs):
        raise Error("the example input holds NaN or infinite numbers: give a finite one")


def check_fits_float32(graph: Graph) -> None:
    """Raises Error when a weight of a lowered graph is beyond float32, in which files are."""
    for node in graph.nodes:
        if not all(np.isfinite(values).all() for values in _arrays(node).values()):
            name = node.name if node.module is None else node.module
            raise Error(
                f"layer '{name}': its weights are beyond float32 once the batch norm behind it is "
                "folded in; is a running variance 0 or negative?"
            )


def _arrays(node: Node) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray | None] = {}
    if node.has_weight():
        found = {"weight": node.weight, "bias": node.bias}
    found.update(node.tensors)
    return {role: values for role, values in found.items() if values is not None}


def idle_zeros(graph: Graph) -> str | None:
    """A line for the user when many weights of a traced graph are zero in kernels that are not all
    zero: single-weight and n:m sparsity, which an engine of whole kernels gains nothing from."""
    layers = [node.weight for node in graph.nodes if node.weight is not None]
    weights = sum(weight.size for weight in layers)
    zeros = weights - sum(int(np.count_nonzero(weight)) for weight in layers)
    kept = sum(node.kept_connections() * _size_of_kernel(node) for node in graph.nodes)
    idle = zeros - (weights - kept)
    if idle <= _IDLE_ZEROS * kept:
        return None
    connections, left = graph.all_connections(), graph.kept_connections()
    return (
        f"{100 * zeros / weights:.0f} % of the weights are zero, but only "
        f"{100 - 100 * left / connections:.0f} % of the connections: a kernel with one weight left "
        "costs as much as a full one; see 'Zeros that gain nothing' in docs/PRUNING.md"
    )


def _size_of_kernel(node: Node) -> int:
    return 0 if node.weight is None else node.weight[0, 0].size
