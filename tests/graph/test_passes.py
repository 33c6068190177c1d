"""Each pass alone: it changes the graph in the way it promises and keeps its function."""

from __future__ import annotations

import numpy as np
import pytest
from graph.graphs_for_passes import Builder, assert_same_function, outputs

from kernelprune.format import Graph
from kernelprune.graph import passes
from kernelprune.graph.connections import Connections
from kernelprune.graph.ir import infer_shape

LOWEST = float(np.finfo(np.float32).min)  # what a file holds in place of minus infinity


def apply(graph: Graph, *steps) -> Graph:
    """A changed copy, checked to be a graph whose shapes hold and which computes the same."""
    after = graph.copy()
    for step in steps:
        step(after)
    shapes = {value.name: value.shape for value in after.inputs}
    for node in after.nodes:
        inputs = [shapes[name] for name in node.inputs]  # KeyError: not in topological order
        assert node.shape == infer_shape(node.op, inputs, node.params, node.shape)
        shapes[node.output] = node.shape
    assert_same_function(graph, after)
    return after


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_drop_unread_nodes() -> None:
    """If this fails, unused branches are stored and computed."""
    b = Builder()
    kept = b.conv("x")
    b.act(b.conv("x"))
    graph = apply(b.done(b.act(kept)), passes.drop_unread_nodes)
    assert ops(graph) == ["conv2d", "activation"]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_expand_groups(groups: int) -> None:
    """If this fails, grouped and depthwise layers are stored with the wrong connections."""
    b = Builder((6, 4, 4))
    graph = apply(b.done(b.conv("x", 12, groups=groups)), passes.expand_group_weights)
    node = graph.nodes[0]
    assert node.weight.shape == (12, 6, 3, 3) and "groups" not in node.params
    assert node.kept_connections() == 12 * 6 // groups


FOLD = (passes.to_float64, passes.expand_group_weights, passes.fold_scale_and_shift)


@pytest.mark.parametrize("bias", [True, False])
def test_fold_batch_norm_into_conv(bias: bool) -> None:
    """If this fails, every network with batch norm is exported wrongly."""
    b = Builder()
    graph = apply(b.done(b.batch_norm(b.conv("x", 4, bias=bias, groups=1))), *FOLD)
    assert ops(graph) == ["conv2d"]


def test_fold_batch_norm_into_linear() -> None:
    """If this fails, classifiers with BatchNorm1d are exported wrongly."""
    b = Builder((7,))
    assert ops(apply(b.done(b.batch_norm(b.linear("x"))), *FOLD)) == ["linear"]


def _blocks(b: Builder, x: str) -> str:
    """What a transposed convolution ends with."""
    return b.node("depth_to_space", [x], {"block": 2})


def _part(b: Builder, x: str) -> str:
    return b.node("slice", [x], {"axis": 0, "start": 1, "stop": 3, "step": 1})


def _transposed(b: Builder, x: str) -> str:
    return b.node("permute", [x], {"axes": [0, 2, 1]})


@pytest.mark.parametrize("rearrange", [_blocks, _part, _transposed])
def test_fold_batch_norm_through_what_only_rearranges(rearrange) -> None:
    """If this fails, the batch norm behind a transposed convolution is computed on its own, or
    scales the wrong channels."""
    b = Builder()
    x = rearrange(b, b.conv("x", 8))
    graph = apply(b.done(b.act(b.batch_norm(x))), *FOLD, passes.fuse_activations)
    assert ops(graph) == ["conv2d", b.graph.node(x).op]
    assert graph.nodes[0].params["activation"] == "relu"


def test_batch_norm_behind_a_repeated_channel_stays() -> None:
    """If this fails, one channel gets the scales of several."""
    b = Builder()
    x = b.node("expand", [b.conv("x", 1)], {}, declared=(4, 6, 5))
    assert ops(apply(b.done(b.batch_norm(x)), *FOLD)) == ["conv2d", "expand", "conv2d"]


@pytest.mark.parametrize(
    ("reader", "value", "folds"),
    [
        ("conv2d", 0.0, True),
        ("conv2d", 1.0, False),
        ("max_pool2d", LOWEST, True),
        ("max_pool2d", 0.0, False),
        ("avg_pool2d", 0.0, True),
        ("avg_pool2d", LOWEST, False),
    ],
)
def test_fold_padding(reader: str, value: float, folds: bool) -> None:
    """If this fails, networks that pad by an operator of its own copy every map, or pad by another
    number than they say."""
    b = Builder()
    x = b.pad("x", [1, 0, 1, 2], value)
    made = {
        "conv2d": lambda: b.conv(x, padding=0),
        "max_pool2d": lambda: b.max_pool(x, 3),
        "avg_pool2d": lambda: b.avg_pool(x),
    }
    graph = apply(b.done(made[reader]()), passes.fold_padding)
    assert ops(graph) == ([reader] if folds else ["pad", reader])
    assert graph.nodes[-1].params["padding"] == ([1, 0, 1, 2] if folds else [0, 0, 0, 0])


def test_fold_padding_needs_all_readers() -> None:
    """If this fails, a reader that cannot pad by itself reads a map without its border, or one that
    could has it twice."""
    b = Builder()
    x = b.pad("x", [1, 1, 1, 1])
    small, wide = b.conv(x, side=1, padding=0), b.conv(x, side=3, padding=0)
    graph = apply(b.done(small, wide), passes.fold_padding)
    assert ops(graph) == ["pad", "conv2d", "conv2d"]
    assert all(node.params["padding"] == [0, 0, 0, 0] for node in graph.nodes[1:])
    padded = b.avg_pool(b.pad("x", [1, 1, 1, 1]), padding=1)
    assert "pad" in ops(apply(b.done(padded), passes.fold_padding, passes.drop_unread_nodes))


def test_scales_fold_into_each_other() -> None:
    """If this fails, (x - mean) / deviation takes two nodes."""
    b = Builder()
    channels = {"scale": b.rng.standard_normal(3), "shift": b.rng.standard_normal(3)}
    x = b.node("affine", ["x"], {}, tensors=dict(channels))
    graph = apply(b.done(b.node("affine", [x], {}, tensors=dict(channels))), *FOLD)
    assert ops(graph) == ["affine"]
    b = Builder()
    x = b.node("group_norm", ["x"], {"groups": 1, "eps": 1e-3}, tensors=dict(channels))
    assert ops(apply(b.done(b.batch_norm(x)), *FOLD)) == ["group_norm"]


def test_batch_norm_that_folds_nowhere() -> None:
    """If this fails, pre-activation networks are exported wrongly."""
    b = Builder()
    both = b.conv("x")
    graph = apply(b.done(b.add(b.batch_norm(both), both), b.batch_norm("x")), *FOLD)
    assert ops(graph) == ["conv2d", "conv2d", "add", "conv2d"]
    diagonal = graph.nodes[1]
    assert diagonal.params["kernel"] == [1, 1] and diagonal.kept_connections() == 4
    b = Builder((7,))
    assert ops(apply(b.done(b.batch_norm("x")), *FOLD)) == ["linear"]


def test_batch_norm_after_an_output_or_an_activation_stays() -> None:
    """If this fails, a value that the user sees, or that is already activated, gets scaled."""
    b = Builder()
    seen = b.conv("x")
    graph = apply(b.done(seen, b.batch_norm(seen), b.batch_norm(b.conv("x", act="relu"))), *FOLD)
    assert [node.kept_connections() for node in graph.nodes] == [12, 4, 12, 4]


def test_folding_does_not_change_a_shared_array() -> None:
    """If this fails, a module that is called twice is scaled by both batch norms."""
    b = Builder((4, 6, 5))
    first = b.conv("x")
    second = b.conv(b.batch_norm(first))
    b.graph.node(second).weight = b.graph.node(first).weight
    apply(b.done(b.batch_norm(second)), *FOLD)


FUSED = [
    (["relu"], "relu"), (["relu6"], "relu6"), (["relu", "relu6"], "relu6"),
    (["relu6", "relu"], "relu6"), (["relu", "relu"], "relu"),
]  # fmt: skip


@pytest.mark.parametrize(("kinds", "fused"), FUSED)
@pytest.mark.parametrize("source", ["conv2d", "linear", "add"])
def test_fuse_activations(kinds: list[str], fused: str, source: str) -> None:
    """If this fails, an activation is lost or the wrong one remains."""
    b = Builder((7,) if source == "linear" else (3, 6, 5))
    made = {"conv2d": lambda: b.conv("x"), "linear": lambda: b.linear("x"),
            "add": lambda: b.add("x", "x")}  # fmt: skip
    value = made[source]()
    for kind in kinds:
        value = b.act(value, kind)
    graph = apply(b.done(value), passes.fuse_activations)
    assert ops(graph) == [source] and graph.nodes[0].params["activation"] == fused


def test_fuse_activation_through_max_pool() -> None:
    """If this fails, conv-pool-relu networks pay for a step, or compute something else."""
    b = Builder()
    graph = apply(b.done(b.act(b.max_pool(b.conv("x"), 3, 1))), passes.fuse_activations)
    assert ops(graph) == ["conv2d", "max_pool2d"]
    assert graph.nodes[0].params["activation"] == "relu"


def test_activation_of_a_shared_value_stays() -> None:
    """If this fails, the other reader of a value sees it activated."""
    b = Builder()
    seen, read = b.conv("x"), b.conv("x")
    graph = b.done(seen, b.act(seen), b.add(b.act(read), read), b.act(b.avg_pool("x")))
    assert ops(apply(graph, passes.fuse_activations)).count("activation") == 3


def test_fuse_residual_with_identity() -> None:
    """If this fails, a ResNet block pays for an extra pass over memory, or adds wrongly."""
    b = Builder()
    x = b.conv("x", act="relu")
    graph = b.done(b.act(b.add(b.conv(b.conv(x, act="relu")), x)))
    graph = apply(graph, passes.fuse_activations, passes.fuse_residuals)
    assert ops(graph) == ["conv2d"] * 3
    assert graph.nodes[2].inputs == [graph.nodes[1].output, graph.nodes[0].output]
    assert graph.nodes[2].params["activation"] == "relu"


@pytest.mark.parametrize("shortcut_first", [True, False])
def test_fuse_residual_takes_the_later_layer(shortcut_first: bool) -> None:
    """If this fails, a layer reads a residual that is not computed yet."""
    b = Builder()
    if shortcut_first:
        early = b.conv("x", side=1, padding=0)
        late = b.conv(b.conv("x"))
    else:
        early = b.conv(b.conv("x"))
        late = b.conv("x", side=1, padding=0)
    graph = apply(b.done(b.add(early, late)), passes.fuse_residuals)
    assert ops(graph) == ["conv2d"] * 3 and graph.nodes[2].name == late


def test_fuse_residual_moves_a_layer_behind_its_residual() -> None:
    """If this fails, a residual that is computed after the layer (a pool, say) cannot be fused."""
    b = Builder()
    early = b.conv("x", 3)
    graph = apply(b.done(b.add(early, b.act("x"))), passes.fuse_residuals)
    assert ops(graph) == ["activation", "conv2d"]


def test_looking_for_a_node_expands_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a depthwise layer takes the memory of a full one while its graph changes."""
    b = Builder()
    first = b.conv("x", 3)
    graph = b.done(b.add(b.conv(first, 3), b.act(first)))
    for layer in graph.nodes[:2]:
        layer.connections = Connections.from_groups(np.array(layer.weight)[:, :1], 3)
        layer.__dict__["_weight"] = None
    monkeypatch.setattr(Connections, "dense", lambda _: pytest.fail("expanded"))
    passes.fuse_residuals(graph)
    assert ops(graph) == ["conv2d", "activation", "conv2d"]


def test_residuals_that_cannot_be_fused() -> None:
    """If this fails, a value is added that others read, twice, or after its activation."""
    b = Builder()
    seen, twice = b.conv("x"), b.conv("x")
    active = b.conv("x", act="relu")
    graph = b.done(b.add(seen, active), seen, b.add(twice, twice))
    assert ops(apply(graph, passes.fuse_residuals)).count("add") == 2


def test_chain_of_adds() -> None:
    """If this fails, one layer gets two residuals, which no file can say."""
    b = Builder()
    first = b.add(b.conv("x"), b.act(b.conv("x")))
    graph = apply(b.done(b.add(first, b.act(b.conv("x")))), passes.fuse_residuals)
    assert all(len(node.inputs) <= 2 for node in graph.nodes)
    assert ops(graph).count("add") == 1


def test_run_all_leaves_only_ops_of_the_file() -> None:
    """If this fails, capture gives graphs that cannot be written."""
    b = Builder((4, 6, 5))
    y = b.act(b.batch_norm(b.conv("x", 4, groups=2, bias=False)))
    graph = apply(b.done(b.batch_norm(b.add(y, b.batch_norm("x")))), passes.run_all)
    assert set(ops(graph)) <= {"conv2d", "add"}
    assert all("groups" not in node.params for node in graph.nodes)
    assert all(node.bias is not None for node in graph.nodes if node.has_weight())


def test_outputs_vary() -> None:
    """If this fails, the comparisons here compare constants."""
    b = Builder()
    (y,) = outputs(b.done(b.conv("x")))
    assert float((y[0] - y[1]).norm()) > 0.5 * float(y.norm()) / np.sqrt(3)
