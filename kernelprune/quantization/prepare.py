"""What quantisation begins with: the float32 graph, the images, which layers stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from kernelprune.errors import Error
from kernelprune.format.reader import read
from kernelprune.frontends.torch.accepted import check_module, unwrapped
from kernelprune.frontends.torch.export import capture
from kernelprune.frontends.torch.graph_model import GraphModel
from kernelprune.frontends.torch.weights import check_finite
from kernelprune.graph.ir import Graph
from kernelprune.graph.quantization import quantizations
from kernelprune.prune.batches import Inputs
from kernelprune.prune.calibration import batches_of

# A torch module, a captured graph, or the path of a model file.
Model = nn.Module | Graph | str | os.PathLike[str]
# One item of ``ignore=``: the name of a module or node, a pattern with * and ?, a type, a module.
Selector = str | type | nn.Module


@dataclass
class Prepared:
    """``graph``: in float32. ``ignored``: names of nodes that compute with numbers. ``source``:
    what the graph was made of."""

    graph: Graph
    batches: list[Inputs]
    ignored: set[str]
    source: str

    @property
    def images(self) -> list[Inputs]:
        """One by one."""
        return [
            tuple(x[i : i + 1] for x in batch)
            for batch in self.batches
            for i in range(len(batch[0]))
        ]


def prepare(
    model: Any, calibration: Any, ignore: Iterable[Selector] | Selector, samples: int
) -> Prepared:
    """``model``: a Model. Raises what ``kernelprune.quantize`` says of its arguments."""
    if isinstance(model, (str, os.PathLike)):
        graph, source = read(model)[0], os.fspath(model)
    elif isinstance(model, Graph):
        graph, source = model.copy(), "Graph"
    else:
        model, source = unwrapped(model), type(model).__name__
        check_module(model)
        if not isinstance(model, GraphModel):
            batches = batches_of(calibration, model, samples)
            graph = capture(model, tuple(x[:1] for x in batches[0]))
            check_finite(graph)
            if quantizations(graph):
                raise Error("the model is quantised already: export it as it is")
            return Prepared(graph, batches, _ignored(graph, model, ignore), source)
        graph, source = model.graph, model.source
    if quantizations(graph):
        raise Error("the model is quantised already: give the float32 one")
    batches = batches_of(calibration, GraphModel(graph), samples)
    return Prepared(graph, batches, _ignored(graph, model, ignore), source)


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
