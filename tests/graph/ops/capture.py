"""How tests of rows capture a function of tensors and compare it with what the graph computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from kernelprune.format import Graph
from kernelprune.frontends.torch import to_torch
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph import passes
from kernelprune.graph.validate import check_graph

torch.set_num_threads(1)  # for tensors this small more threads only cost

Shapes = Sequence[tuple[int, ...]]


class Model(nn.Module):
    """A function of tensors as a model; modules it uses are given, so that their weights count."""

    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Any, y: Any = None) -> Any:
        return self.function(*self.parts, x) if y is None else self.function(*self.parts, x, y)


def images(shapes: Shapes, count: int, *, positive: bool = False) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    found = [torch.randn(count, *s, generator=generator, dtype=torch.float64) for s in shapes]
    return tuple(x.abs() + 0.5 if positive else x for x in found)


def captured(model: nn.Module, shapes: Shapes, *, positive: bool = False) -> Graph:
    """The model's graph as a file may hold it, after it has been compared, traced and folded, with
    the model on one image and on three."""
    model = model.double().eval()
    traced = trace(model, images(shapes, 2))
    folded = passes.run_all(traced.copy())
    check_graph(folded)
    for graph in (traced, folded):
        twin = to_torch(graph, torch.float64)
        for count in (1, 3):
            given = images(shapes, count, positive=positive)
            with torch.no_grad():
                wanted, found = model(*given), twin(*given)
            for want, have in zip(_flat(wanted), _flat(found), strict=True):
                want = want.double().reshape(have.shape) if want.dim() == 1 else want.double()
                torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)
    return folded


def _flat(results: Any) -> list[torch.Tensor]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]
