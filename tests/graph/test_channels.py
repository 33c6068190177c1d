"""Dead channels are removed exactly: which go, which stay, where their constants end."""

from __future__ import annotations

import numpy as np
import pytest
from graph.graphs_for_passes import Builder, assert_same_function
from hypothesis import given, settings, strategies as st

from kernelprune.format import Graph
from kernelprune.graph import passes
from kernelprune.graph.channels import analyse
from kernelprune.graph.validate import check_graph


def dropped(graph: Graph) -> Graph:
    after = graph.copy()
    passes.drop_dead_channels(after)
    assert_same_function(graph, after)
    return after


def widths(graph: Graph) -> list[int]:
    return [node.shape[0] for node in graph.nodes]


def chain(padding: int, bias: float | None, act: str = "relu", side: int = 3) -> Graph:
    """conv A -> conv B -> output, where A's channel 1 has no connection."""
    b = Builder()
    first = b.conv("x", 4, act=act, bias=bias is not None)
    second = b.conv(first, 5, side=side, padding=padding)
    node = b.graph.node(first)
    node.weight[1] = 0
    if bias is not None:
        node.bias[1] = bias
    return b.done(second)


KEPT = [
    (1, None, "relu", 3, 3), (0, None, "relu", 3, 3),  # constant 0: always goes
    (1, -2.0, "relu", 3, 3),  # relu(-2) = 0
    (1, -2.0, "none", 3, 4),  # -2 behind padding: the border sees fewer taps, so it stays
    (1, 0.7, "relu", 3, 4), (0, 0.7, "relu", 3, 3), (0, 0.7, "relu", 1, 3),
    (0, 9.0, "relu6", 3, 3), (0, -2.0, "none", 1, 3),
]  # fmt: skip


@pytest.mark.parametrize(("padding", "bias", "act", "side", "left"), KEPT)
def test_channel_that_nobody_writes(padding, bias, act, side, left) -> None:
    """If this fails, a dead channel stays, or its constant is wrong (at the border)."""
    graph = dropped(chain(padding, bias, act, side))
    assert widths(graph) == [left, 5]


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_channel_that_nobody_reads(constant: float) -> None:
    """If this fails, channels are computed that nobody reads."""
    b = Builder()
    first = b.conv("x", 4)
    second = b.conv(b.max_pool(b.act(first)), 5)
    b.graph.node(second).weight[:, 2] = 0
    assert widths(dropped(b.done(second))) == [3, 3, 3, 5]


def test_deadness_spreads_backwards_through_layers() -> None:
    """If this fails, only the last of a row of dead layers is found."""
    b = Builder()
    layers = [b.conv("x", 4)]
    for _ in range(3):
        layers.append(b.conv(layers[-1], 4))
    b.graph.node(layers[3]).weight[:, 0] = 0
    for name in layers[1:3]:
        b.graph.node(name).weight[1:, 0] = 0  # only output 0 reads input 0
    assert widths(dropped(b.done(layers[3]))) == [3, 3, 3, 4]


def test_constants_spread_forwards_through_layers() -> None:
    """If this fails, a channel fed by constants alone is computed for every image."""
    b = Builder()
    first = b.conv("x", 4, side=1, padding=0)
    second = b.conv(first, 4, side=1, padding=0, act="relu")
    third = b.conv(second, 2, side=1, padding=0)
    b.graph.node(first).weight[0] = 0
    b.graph.node(second).weight[3, 1:] = 0  # reads only the constant channel 0
    assert widths(dropped(b.done(third))) == [3, 3, 2]


def test_constants_end_in_the_classifier() -> None:
    """If this fails, the last convolution's constants are lost on the way to the classifier."""
    b = Builder()
    first = b.conv("x", 4, act="relu")
    b.graph.node(first).weight[2] = 0
    b.graph.node(first).bias[2] = 0.3
    y = b.linear(b.node("flatten", [b.node("global_avg_pool", [first], {})], {}))
    assert widths(dropped(b.done(y))) == [3, 3, 3, 3]


def test_flatten_goes_by_whole_maps() -> None:
    """If this fails, a map loses some of its pixels."""
    b = Builder((3, 2, 2))
    y = b.linear(b.node("flatten", [b.conv("x", 4)], {}))
    weight = b.graph.node(y).weight
    weight[:, 4:8] = 0  # map 1, all of it
    weight[:, 8:11] = 0  # three pixels of map 2
    assert widths(dropped(b.done(y))) == [3, 12, 3]


@pytest.mark.parametrize("shared", [0, 1])
def test_residual_ties_its_branches(shared: int) -> None:
    """If this fails, a sum's operands end with different channels."""
    b = Builder()
    left, right = b.conv("x", 4), b.conv("x", 4)
    y = b.conv(b.act(b.add(left, right)), 2)
    b.graph.node(y).weight[:, 0] = 0
    other = b.conv(left, 2)  # reads left directly
    b.graph.node(other).weight[:, shared] = 0
    expected = 3 if shared == 0 else 4
    assert widths(dropped(b.done(y, other)))[:4] == [expected] * 4


def test_residual_of_a_constant_and_a_varying_channel() -> None:
    """If this fails, a sum with one dead operand loses the living one."""
    b = Builder()
    left, right = b.conv("x", 4), b.conv("x", 4)
    b.graph.node(left).weight[0] = 0
    b.graph.node(left).weight[1] = 0
    b.graph.node(right).weight[1] = 0  # channel 1 is a constant in both
    y = b.conv(b.add(left, right), 2, padding=0)
    assert widths(dropped(b.done(y))) == [3, 3, 3, 2]


def test_fused_residual() -> None:
    """If this fails, a fused residual and its layer end with different channels."""
    b = Builder()
    left = b.conv("x", 4)
    right = b.conv("x", 4, residual=left, act="relu")
    y = b.conv(right, 2)
    b.graph.node(y).weight[:, 3] = 0
    assert widths(dropped(b.done(y))) == [3, 3, 2]


@pytest.mark.parametrize(("dead", "left"), [([0], 4), ([0, 1], 3)])
def test_fused_residual_decides_what_varies(dead: list[int], left: int) -> None:
    """If this fails, a layer's dead channel is taken for a constant although its residual varies,
    or is kept although the residual is a constant too."""
    b = Builder()
    first = b.conv("x", 4)
    second = b.conv("x", 4, residual=first, act="relu")
    b.graph.node(second).weight[[0, 1]] = 0
    b.graph.node(first).weight[[i for i in dead if i != 0]] = 0
    y = b.conv(second, 2, padding=0)
    assert widths(dropped(b.done(y))) == [left, left, 2]


def test_concat() -> None:
    """If this fails, the channels behind a removed one are read from the wrong place."""
    b = Builder()
    parts = [b.conv("x", 3), b.conv("x", 2), b.conv("x", 3)]
    joined = b.node("concat", parts, {})
    y = b.conv(joined, 4)
    b.graph.node(y).weight[:, [1, 4]] = 0
    b.graph.node(parts[2]).weight[0] = 0
    b.graph.node(parts[2]).bias[0] = 0
    assert widths(dropped(b.done(y))) == [2, 1, 2, 5, 4]


@pytest.mark.parametrize(
    ("padding", "include", "left"), [(0, True, 3), (1, False, 3), (1, True, 4)]
)
def test_average_pool_of_a_constant(padding: int, include: bool, left: int) -> None:
    """If this fails, an average that counts padding is taken for a constant."""
    b = Builder((3, 7, 7))
    first = b.conv("x", 4)
    b.graph.node(first).weight[1] = 0
    y = b.conv(b.avg_pool(first, padding, include), 2, padding=0)
    assert widths(dropped(b.done(y))) == [left, left, 2]


def test_inputs_and_outputs_keep_their_shape() -> None:
    """If this fails, a pruned model takes or gives another shape than the model did."""
    b = Builder()
    y = b.conv("x", 4)
    b.graph.node(y).weight[2] = 0
    b.graph.node(y).weight[:, 1] = 0
    graph = dropped(b.done(y))
    assert graph.inputs[0].shape == (3, 6, 5) and graph.nodes[0].weight.shape == (4, 3, 3, 3)


@pytest.mark.parametrize("padding", [0, 1])
def test_whole_network_dead(padding: int) -> None:
    """If this fails, a layer without any connection gives an empty shape or a wrong constant."""
    b = Builder()
    first = b.conv("x", 4, density=0.0, act="relu")
    y = b.conv(b.conv(first, 4, padding=padding), 2, padding=padding)
    graph = dropped(b.done(y))
    assert min(widths(graph)) >= 1 and graph.kept_connections() <= 4 * 4 + 2 * 4
    check_graph(strip(graph))


def test_connections_that_carry_a_constant_go() -> None:
    """If this fails, a channel that must stay for one reader costs time in all the others."""
    b = Builder()
    first = b.conv("x", 4)
    b.graph.node(first).weight[0] = 0
    y, z = b.conv(first, 2, padding=0), b.conv(first, 2, padding=1)
    graph = dropped(b.done(y, z))
    assert [node.kept_connections() for node in graph.nodes] == [9, 6, 8]


def test_batch_norm_with_scale_zero() -> None:
    """If this fails, channels pruned by their batch norm scale (network slimming) are kept."""
    b = Builder()
    first = b.conv("x", 4)
    norm = b.batch_norm(first)
    b.graph.node(norm).tensors["weight"][1] = 0
    y = b.conv(b.act(norm), 2, padding=0)
    assert widths(dropped(b.done(y))) == [3, 3, 3, 2]


def test_constant_values() -> None:
    """If this fails, the analysis is right about which channels but not about their values."""
    b = Builder()
    first = b.conv("x", 2)
    b.graph.node(first).weight[0] = 0
    b.graph.node(first).bias[0] = 8.0
    y = b.act(b.add(first, first), "relu6")
    constant = analyse(b.done(y)).constant
    assert constant[first][0] == 8.0 and constant[y][0] == 6.0 and np.isnan(constant[y][1])


def strip(graph: Graph) -> Graph:
    for node in graph.nodes:
        node.params.pop("groups", None)
    return graph


@st.composite
def graphs(draw) -> Graph:
    """Random networks of every op, with many zero kernels, some zero biases and scales."""
    b = Builder((3, 7, 6), seed=draw(st.integers(0, 10_000)))
    maps = ["x"]
    pick = lambda: maps[draw(st.integers(max(0, len(maps) - 3), len(maps) - 1))]  # noqa: E731
    for _ in range(draw(st.integers(2, 7))):
        x = pick()
        kind = draw(st.sampled_from(["conv", "conv", "conv", "norm", "act", "add", "cat", "pool"]))
        if kind == "conv":
            value = (
                b.conv(
                    x,
                    draw(st.sampled_from([3, 3, 3, 5])),
                    side=draw(st.sampled_from([1, 3])),
                    padding=0,
                    density=draw(st.sampled_from([0.0, 0.3, 0.6, 1.0])),
                    act=draw(st.sampled_from(["none", "relu", "relu6"])),
                    bias=draw(st.booleans()),
                )
                if draw(st.booleans()) and min(b.shapes[x][1:]) >= 3
                else b.conv(
                    x,
                    draw(st.sampled_from([3, 3, 3, 5])),
                    density=draw(st.sampled_from([0.2, 0.6])),
                )
            )
        elif kind == "norm":
            value = b.batch_norm(x, zeros=draw(st.sampled_from([0.0, 0.4])))
        elif kind == "act":
            value = b.act(x, draw(st.sampled_from(["relu", "relu6"])))
        elif kind == "pool":
            value = b.max_pool(x, 3, 1) if draw(st.booleans()) else b.avg_pool(x, 1, True)
        else:
            same = [m for m in maps if b.shapes[m][1:] == b.shapes[x][1:]]
            if kind == "add":
                same = [m for m in same if b.shapes[m] == b.shapes[x]]
            other = same[draw(st.integers(0, len(same) - 1))]
            if kind == "add":
                value = b.add(x, other)
            else:
                value = b.node("concat", [x, other], {})
        maps.append(value)
    flat = b.node("flatten", [maps[-1]], {})
    ends = [b.linear(flat, 2, density=0.7)]
    if draw(st.booleans()):
        ends.append(pick())
    return b.done(*[end for end in ends if end != "x"])  # fmt: skip


@given(graphs())
@settings(max_examples=70)
def test_random_networks(graph: Graph) -> None:
    """If this fails, some combination of ops loses its function on the way to the file."""
    after = passes.run_all(graph.copy())
    check_graph(after)
    assert_same_function(graph, after)
    assert (
        after.kept_connections() <= passes.run_all(graph.copy(), keep_dead=True).kept_connections()
    )
