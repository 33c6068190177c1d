"""A grouped layer has the connections of its groups, in every count."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console
from torch import nn

from kernelprune import models
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes
from kernelprune.frontends.torch.export import capture
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.footprint import Footprint
from kernelprune.graph.ir import Graph
from kernelprune.report import model_table


class ResNeXtBlock(nn.Module):
    """A bottleneck of 4 groups of 4 channels, and a batch norm that folds into no layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.reduce = nn.Conv2d(32, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.expand = nn.Conv2d(16, 32, 1)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.grouped(torch.relu(self.reduce(x))))
        return self.norm(torch.relu(self.expand(y) + x))


X = torch.randn(1, 32, 6, 6, generator=torch.Generator().manual_seed(1))


def file_of(graph: Graph) -> Graph:
    """The graph that a reader makes of it."""
    return read_bytes(to_bytes(graph), "memory")[0]


def counts(graph: Graph) -> list[int]:
    return [node.all_connections() for node in graph.nodes if node.has_weight()]


def test_grouped_layers_have_the_connections_of_their_groups() -> None:
    """If this fails, an unpruned ResNeXt reads as a pruned one: 16 * 16 connections of which 64
    are kept."""
    block = ResNeXtBlock().eval()
    graph = capture(block, X)
    for found in (graph, file_of(graph)):
        assert counts(found) == [512, 64, 512, 32]
        assert found.kept_connections() == 1120 and found.density() == 1.0
        assert found.macs() == found.macs(dense=True) == 36 * (512 + 9 * 64 + 512 + 32)
    dense = Footprint(trace(block, X)).dense
    assert (dense.connections, dense.macs) == (1120, graph.macs())


def test_pruned_groups_keep_the_count_of_what_could_be_there() -> None:
    """If this fails, pruning a grouped layer changes what its density is measured against, or dead
    channels still count."""
    block = ResNeXtBlock().eval()
    with torch.no_grad():
        block.grouped.weight[0, 1:] = 0  # one connection of four
        block.grouped.weight[5] = 0  # a dead output of the second group ...
        block.reduce.weight[12] = 0  # ... and a dead input of the last
        block.reduce.bias[12] = 0
    graph = capture(block, X)
    for found in (graph, file_of(graph)):
        assert counts(found) == [32 * 15, 16 + 4 * 3 + 16 + 3 * 4, 15 * 32, 32]
        node = found.node("grouped")
        assert (node.kept_connections(), node.density()) == (53, 53 / 56)


def test_mobilenet_is_dense() -> None:
    """If this fails, an unpruned MobileNetV2 reads "43.1 % of the connections, 5.4 % of the
    multiply-adds", and its depthwise layers "density 1 %"."""
    options = {"num_classes": 10, "in_channels": 3, "stem": "imagenet", "width": 0.25}
    model = models.create("mobilenet_v2", **options).eval()
    x = torch.zeros(1, 3, 64, 64)
    own = sum(
        module.weight.shape[0] * module.weight.shape[1]
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    )
    graph = capture(model, x)
    for found in (trace(model, x), graph, file_of(graph)):
        assert found.all_connections() == found.kept_connections() == own == 137_800
        assert found.macs(dense=True) == found.macs() == 2_014_208
    console = Console(width=120)
    with console.capture() as shown:
        console.print(model_table(file_of(graph), {}, 1))
    assert "137,800 of 137,800 (100.0%)" in shown.get()
    assert "2.01 M of 2.01 M per image (100.0%)" in shown.get()


def test_files_without_groups_stay_of_version_1() -> None:
    """If this fails, older engines refuse networks that have nothing new."""
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(32, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    assert b'"version":"1"' in to_bytes(capture(plain, X))
    assert b'"version":"2"' in to_bytes(capture(ResNeXtBlock().eval(), X))


@pytest.mark.parametrize("total", [63, 257, -1, 1.5, "64", True])
def test_wrong_totals_are_refused(total: object) -> None:
    """If this fails, a file's layer claims a density above 1, or one of nothing."""
    graph = capture(ResNeXtBlock().eval(), X)
    graph.node("grouped").params["all_connections"] = total
    with pytest.raises(FormatError, match="all_connections"):
        to_bytes(graph)


def test_a_file_says_only_what_is_not_obvious() -> None:
    """If this fails, every layer of every file carries a number that its shape says already."""
    text = to_bytes(capture(ResNeXtBlock().eval(), X)).decode("latin1")
    assert text.count("all_connections") == 2
