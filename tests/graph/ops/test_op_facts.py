"""What operators of version 2 say of channels: which are made of which, constants, what is left
when channels go. Each is tried on numbers, so a wrong fact cannot agree with itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from graph.graphs_for_passes import Builder, assert_same_function
from graph.ops.op_cases import CASES, UNARY, Case, images

from kernelprune.format import Graph, Node
from kernelprune.frontends.torch import to_torch
from kernelprune.graph import passes
from kernelprune.graph.channels import links
from kernelprune.graph.ir import infer_shape
from kernelprune.graph.validate import check_graph

WITH_INPUTS = [case for case in CASES if case.shapes and case not in UNARY[1:]]


@pytest.mark.parametrize("case", WITH_INPUTS, ids=str)
def test_output_channels_depend_on_their_sources_alone(case: Case) -> None:
    """If this fails, a channel is dropped that a result needs."""
    graph, given = case.graph(), images(case, 2)
    (node,) = graph.nodes
    run = to_torch(graph, torch.float64)
    before = run(*given)
    tables = node.rule.channel_sources(node, list(case.shapes))
    for position, table in enumerate(tables):
        if table is None:
            continue
        for channel in range(case.shapes[position][0]):
            other = [x.clone() for x in given]
            other[position][:, channel] += 0.375
            changed = (run(*other) != before).reshape(2, node.shape[0], -1).any(2).any(0).numpy()
            allowed = (np.reshape(table, (node.shape[0], -1)) == channel).any(axis=1)
            assert not (changed & ~allowed).any(), (position, channel)


def _constant_inputs(case: Case, seed: int) -> tuple[list[np.ndarray], list[torch.Tensor]]:
    """Some channels of every input, or with seed 0 all, as constants: (the constants, images)."""
    rng = np.random.default_rng(seed)
    given, constants = images(case, 2, seed), []
    for x in given:
        values = rng.choice([0.0, 0.75, 1.5], x.shape[1]) + 0.25 * (seed % 2)
        values = np.where(rng.random(x.shape[1]) < (0.6 if seed else 2), values, np.nan)
        for channel in np.flatnonzero(~np.isnan(values)):
            x[:, channel] = values[channel]
        constants.append(values)
    return constants, given


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_constants(case: Case, seed: int) -> None:
    """If this fails, a channel counts as a constant that it is not, or has another value."""
    graph = case.graph()
    (node,) = graph.nodes
    constants, given = _constant_inputs(case, seed)
    found = node.rule.constants(node, list(case.shapes), constants)
    assert found.shape == node.shape[:1] and found.dtype == np.float64
    result = to_torch(graph, torch.float64)(*(given or images(case, 2)))
    for channel, value in enumerate(found):
        if not math.isnan(value):
            wanted = torch.full_like(result[:, channel], value)
            torch.testing.assert_close(result[:, channel], wanted, rtol=1e-9, atol=1e-9)


FOLLOW = {
    "unary", "binary", "affine", "prelu", "slice", "reshape", "expand", "gather", "resize",
    "depth_to_space", "space_to_depth", "adaptive_avg_pool2d", "adaptive_max_pool2d", "constant",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", [case for case in CASES if case.op in FOLLOW], ids=str)
def test_constants_pass_through(case: Case) -> None:
    """If this fails, channels that are known are computed for every image."""
    (node,) = case.graph().nodes
    ones = [np.ones(shape[0]) for shape in case.shapes]
    known = ~np.isnan(node.rule.constants(node, list(case.shapes), ones))
    mixes = any(t is None for t in node.rule.channel_sources(node, list(case.shapes)))
    # The random numbers of the case with a constant differ within its channels.
    assert known.all() or mixes or case.op == "constant" or case.params.get("function") == "log"


@pytest.mark.parametrize("case", WITH_INPUTS, ids=str)
def test_positive_factors_pass_through(case: Case) -> None:
    """If this fails, a scale by channel is moved past an op that it does not pass."""
    graph, given = case.graph(), images(case, 2)
    (node,) = graph.nodes
    if not node.rule.scales_with(node):
        pytest.skip("says nothing of factors")
    factor = torch.linspace(0.5, 2.0, node.shape[0], dtype=torch.float64)
    run = to_torch(graph, torch.float64)
    scaled = run(given[0] * factor.reshape(-1, *[1] * (given[0].dim() - 2)))
    wanted = run(*given) * factor.reshape(-1, *[1] * (len(node.shape) - 1))
    torch.testing.assert_close(scaled, wanted, rtol=1e-9, atol=1e-9)


def _network(case: Case, read: np.ndarray) -> tuple[Graph, Node]:
    """conv -> reshape -> op -> flatten -> linear, which reads only the output channels ``read``."""
    b = Builder((2, 1, 1))
    inputs = []
    for shape in case.shapes:
        size = math.prod(shape[1:])
        x = b.conv("x", shape[0] * size, side=1, padding=0)
        # One channel per entry of the value; then the value, whose channels are groups of these.
        inputs.append(_add(b, "reshape", [x], {}, shape))
    y = _add(b, case.op, inputs, dict(case.params), case.shape)
    node = b.graph.node(y)
    node.tensors = {role: array.copy() for role, array in case.tensors.items()}
    size = math.prod(node.shape[1:])
    flat = b.node("flatten", [y], {})
    b.linear(flat, 3)
    last = b.graph.nodes[-1]
    last.weight[:, ~np.repeat(read, size)] = 0
    return b.done(last.output), node


def _add(
    b: Builder, op: str, inputs: list[str], params: dict[str, Any], shape: tuple[int, ...]
) -> str:
    name = f"{op}{len(b.graph.nodes)}"
    found = infer_shape(op, [b.shapes[each] for each in inputs], params, shape)
    b.graph.nodes.append(Node(op, name, inputs, name, found, params))
    b.shapes[name] = found
    return name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dead_channels_go_and_the_function_stays(case: Case) -> None:
    """If this fails, dropping channels behind or before an op changes what a network computes, or
    leaves parameters and tensors that do not fit it any more."""
    if case.params.get("function") in ("log", "sqrt", "rsqrt", "pow", "reciprocal"):
        pytest.skip("a convolution gives negative numbers, too")
    rng = np.random.default_rng(3)
    width = case.graph().nodes[0].shape[0]
    read = rng.random(width) < 0.5
    read[rng.integers(width)] = True
    graph, node = _network(case, read)
    after = graph.copy()
    passes.drop_trace_parameters(after)
    passes.drop_dead_channels(after)
    check_graph(after)
    assert_same_function(graph, after)
    ties = [link.tied and len(link.pairs) > 1 for link in links(node, graph.shapes())]
    mixed = [link.mixed for link in links(node, graph.shapes())]
    splits = case.op in ("reshape", "space_to_depth")  # one input channel makes several
    if not any(ties) and not any(mixed) and not splits:
        assert after.node(node.name).shape[0] <= read.sum()  # less: constants go in any case
