"""Networks with other weights, without tracing the model anew: the trace of the dense one is given
the weights, and lowered as every export is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from kernelprune.frontends.torch.export import capture, lower
from kernelprune.graph.ir import Graph, Node
from kernelprune.prune.batches import Inputs
from kernelprune.prune.masks import apply_masks
from kernelprune.prune.reconstruction.rebuild import Rebuilt, Task
from kernelprune.prune.weights import copy_of

Masks = Mapping[str, torch.Tensor]


class Networks:
    """Of one model, which stays as it is. ``example``: as the model takes it."""

    def __init__(self, task: Task, example: Inputs):
        self._task, self._example = task, example
        # A weight that is shared, or computed from another, is not the one in the trace.
        names = {layer.name for layer in task.layers if layer.prunable}
        self._traced = names <= {layer.name for layer in task.fitted.values()}

    def module(self, masks: Masks, rebuilt: Rebuilt | None = None) -> nn.Module:
        """A copy of the model with these connections, and the weights that were fitted."""
        found = copy_of(self._task.model)
        apply_masks(found, masks)
        if rebuilt is not None:
            rebuilt.write(found)
        return found

    def graph(self, masks: Masks, rebuilt: Rebuilt | None = None) -> Graph:
        """The same as it is exported."""
        if not self._traced:
            return lower(capture(self.module(masks, rebuilt), self._example))
        graph = self._task.graph.copy()
        for node in graph.nodes:
            name = node.module or ""
            if node.name in self._task.fitted and name in masks:
                _mask(node, masks[name])
            if rebuilt is not None:
                _take(node, rebuilt)
        return lower(graph)


def _mask(node: Node, mask: torch.Tensor) -> None:
    assert node.weight is not None
    kept = mask.cpu().numpy()
    weight = node.weight.reshape(*kept.shape, -1) * kept[:, :, None]
    node.weight = weight.astype(node.weight.dtype).reshape(node.weight.shape)


def _take(node: Node, rebuilt: Rebuilt) -> None:
    """The fitted weights and statistics of a node's module, if it has some."""
    name = node.module or ""
    fit = rebuilt.fits.get(name)
    if fit is not None and node.has_weight():
        assert node.weight is not None
        node.weight = _like(fit.weight, node.weight)
        if fit.bias is not None:
            assert node.bias is not None
            node.bias = _like(fit.bias, node.bias)
    if name in rebuilt.norms and "running_mean" in node.tensors:
        mean = node.tensors["running_mean"]
        node.tensors["running_mean"] = _like(rebuilt.norms[name], mean)


def _like(values: torch.Tensor, old: np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy().reshape(old.shape).astype(old.dtype)
