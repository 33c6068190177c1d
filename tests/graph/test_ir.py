"""Shape rules and counts of the in-memory graph."""

from __future__ import annotations

import numpy as np
import pytest

from kernelprune import ShapeError
from kernelprune.format import Graph, Node, Value
from kernelprune.graph.ir import infer_shape

WINDOW = {"kernel": [3, 2], "stride": [2, 1], "padding": [1, 0, 1, 1], "dilation": [1, 2]}

CASES = [
    ("conv2d", [(3, 8, 9)], WINDOW, 5, (5, 4, 8)),
    ("conv2d", [(3, 8, 9), (5, 4, 8)], WINDOW, 5, (5, 4, 8)),
    ("linear", [(7,)], {}, 5, (5,)),
    ("max_pool2d", [(3, 8, 9)], WINDOW, 0, (3, 4, 8)),
    ("global_avg_pool", [(3, 8, 9)], {}, 0, (3, 1, 1)),
    ("add", [(3, 8, 9), (3, 8, 9)], {}, 0, (3, 8, 9)),
    ("concat", [(3, 8, 9), (2, 8, 9)], {}, 0, (5, 8, 9)),
    ("concat", [(3,), (2,), (4,)], {}, 0, (9,)),
    ("flatten", [(3, 8, 9)], {}, 0, (216,)),
    ("softmax", [(3,)], {}, 0, (3,)),
]


@pytest.mark.parametrize(("op", "inputs", "params", "channels", "wanted"), CASES)
def test_infer_shape(op, inputs, params, channels, wanted) -> None:
    """If this fails, valid files are refused or wrong ones accepted."""
    assert infer_shape(op, inputs, params, (channels,)) == wanted


WRONG = [
    ("conv2d", [(3, 8, 9), (5, 4, 7)], WINDOW),
    ("conv2d", [(3,)], WINDOW),
    ("conv2d", [(3, 8, 1)], {**WINDOW, "padding": [0, 0, 0, 0]}),
    ("linear", [(3, 1, 1)], {}),
    ("add", [(3, 8, 9), (3, 8, 8)], {}),
    ("add", [(3, 8, 9)], {}),
    ("concat", [(3, 8, 9), (3, 9, 8)], {}),
    ("concat", [(3, 8, 9), (3,)], {}),
    ("swish", [(3,)], {}),
]


@pytest.mark.parametrize(("op", "inputs", "params"), WRONG)
def test_wrong_shapes_are_refused(op, inputs, params) -> None:
    """If this fails, a kernel is later run on shapes that do not belong together."""
    with pytest.raises(ShapeError):
        infer_shape(op, inputs, params, (5,))


def test_counts() -> None:
    """If this fails, density and multiply-adds in every report are wrong."""
    weight = np.zeros((4, 3, 3, 3))
    weight[0, 0, 0, 0] = weight[2, 1] = 1
    params = {"kernel": [3, 3], "stride": [1, 1], "padding": [1] * 4, "dilation": [1, 1]}
    conv = Node("conv2d", "c", ["x"], "c", (4, 5, 6), params, weight=weight)
    flat = Node("flatten", "f", ["c"], "f", (120,))
    linear = Node("linear", "l", ["f"], "l", (2,), weight=np.ones((2, 120)))
    graph = Graph([Value("x", (3, 5, 6))], ["l"], [conv, flat, linear])
    assert (conv.kept_connections(), conv.all_connections()) == (2, 12)
    assert conv.density() == 2 / 12 and flat.density() == 1.0
    assert conv.macs() == 2 * 9 * 30 and conv.macs(dense=True) == 12 * 9 * 30
    assert graph.macs() == 2 * 9 * 30 + 240 and graph.density() == 242 / 252
    assert graph.producer("f") is flat and graph.consumers("c") == [flat]
    assert graph.producer("x") is None


def test_copy_is_independent() -> None:
    """If this fails, a pass on a copy changes the graph it was copied from."""
    node = Node("linear", "l", ["x"], "l", (2,), {"activation": "none"}, weight=np.ones((2, 3)))
    graph = Graph([Value("x", (3,))], ["l"], [node])
    twin = graph.copy()
    twin.nodes[0].weight = np.zeros((2, 3))
    twin.nodes[0].params["activation"] = "relu"
    twin.nodes[0].inputs.append("r")
    twin.outputs.clear()
    assert graph.nodes[0].weight.sum() == 6 and graph.nodes[0].inputs == ["x"]
    assert graph.nodes[0].params == {"activation": "none"} and graph.outputs == ["l"]
