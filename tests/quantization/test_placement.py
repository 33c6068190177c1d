"""Which values become bytes, and which share a scale."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from kernelprune.frontends.torch import capture
from kernelprune.graph.ir import Graph
from kernelprune.quantization import quantize
from kernelprune.quantization.placement import place


class Branches(nn.Module):
    """A concat of two branches, one of which is read elsewhere, a norm that needs numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(3, 4, 3, padding=1)
        self.c = nn.Conv2d(8, 6, 1)
        self.norm = nn.GroupNorm(2, 6)
        self.d = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        a, b = functional.relu(self.a(x)), functional.silu(self.b(x))
        y = self.c(functional.max_pool2d(torch.cat([a, b], 1), 2))
        y = self.d(self.norm(y)) + functional.avg_pool2d(a, 2)
        return self.head(y.mean((2, 3))), y


def graph_of(model: nn.Module) -> Graph:
    return capture(model.eval(), torch.randn(1, 3, 8, 8))


def test_bytes_where_ops_compute_on_bytes() -> None:
    """If this fails, a layer cannot compute with integers, or numbers that only float32 ops read
    lose precision for nothing."""
    graph = graph_of(Branches())
    placement = place(graph)
    by_op = {node.output: node for node in graph.nodes}
    kept = {by_op[name].op for name in set(by_op) - set(placement.values)}
    # c, which group_norm alone reads; the outputs: head and d; what is added to an output
    assert kept == {"conv2d", "linear", "avg_pool2d"}
    assert placement.layers == ("a", "b", "c", "d", "head")
    group_norm = next(node for node in graph.nodes if node.op == "group_norm")
    assert group_norm.inputs[0] not in placement.values and group_norm.output in placement.values
    assert "x" in placement.values
    assert not set(graph.outputs) & set(placement.values)


def test_ignored_layers_compute_with_numbers() -> None:
    """If this fails, ignore= does not keep a layer in float32."""
    graph = graph_of(Branches())
    placement = place(graph, {"c", "head"})
    assert placement.layers == ("a", "b", "d")
    joined = graph.node("c").inputs[0]
    assert joined not in placement.values  # nobody wants the pool's bytes then
    assert graph.node("d").inputs[0] in placement.values


def test_an_output_that_a_layer_reads() -> None:
    """If this fails, a network that also returns its features cannot be quantised."""
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = features

        def forward(self, x):
            y = self.first(x)
            return y, self.second(y)

    model = Both().eval()
    x = torch.randn(4, 3, 8, 8)
    quantised = quantize(model, x)
    for have, want in zip(quantised(x), model(x), strict=True):
        assert (have - want).norm() < 0.05 * want.norm()


def scales_of(model: nn.Module, x: torch.Tensor) -> dict[str, tuple[float, int]]:
    """By node that makes the value."""
    graph = quantize(model.eval(), x, method="minmax").graph
    return {
        node.name: (node.quantization.scale, node.quantization.zero_point)
        for node in graph.nodes
        if node.quantization is not None
    }


class Joined(nn.Module):
    """cat(a, factor * b) and, with ``also_alone``, another reader of b."""

    def __init__(self, factor: float, also_alone: bool):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.c, self.d = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1)
        self.also_alone = also_alone
        with torch.no_grad():
            self.b.weight.copy_(factor * self.a.weight)
            self.b.bias.copy_(factor * self.a.bias)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        y = self.c(functional.max_pool2d(torch.cat([a, b], 1), 2))
        return y + self.d(functional.max_pool2d(b, 2)) if self.also_alone else y


def test_moved_bytes_share_a_scale() -> None:
    """If this fails, pools and concats need a table for bytes that they could move as they are, or
    a narrow branch loses its precision to a wide one."""
    x = torch.randn(8, 3, 8, 8)
    alone = scales_of(Joined(0.01, also_alone=False), x)
    assert len({alone[name] for name in ("a", "b", "cat", "max_pool2d")}) == 1
    similar = scales_of(Joined(0.7, also_alone=True), x)
    assert similar["a"] == similar["b"] == similar["cat"]
    narrow = scales_of(Joined(0.01, also_alone=True), x)
    assert narrow["a"] == narrow["cat"] and narrow["b"][0] < 0.05 * narrow["a"][0]
    assert narrow["b"] == narrow["max_pool2d_1"]
